"""Proof: no file makes the reader crash, hang, or take more than 1 GiB of memory.

Run it from the checkout: python tests/proofs/fuzz.py [FILES]. It writes 2,000 mutated record files,
and 80 whole ones (flipped bytes in the file and, with right CRCs, in the record, its JPEG and the
JPEG's header; cut ends; missing, doubled, renamed and swapped features; lengths of 2^40 with a
right CRC, values of 2^31 bytes and more; JPEG headers that promise 60,000 x 60,000 pixels), and
gives each to `records.read`, which raises or skips, to `cache_decoded` and to the data check. Each
must end in a clean read or in a UserError that names a file; what the check and a run say of it
must agree. Two children at a time read them, in batches; one that dies, is silent for 60 s or whose
memory grows by more than 1 GiB over all of its files fails the proof. A minute on two free cores.
"""

import collections
import contextlib
import faulthandler
import json
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZE = 16
BATCH = 260
"""Files a child reads; TensorFlow is imported once for each."""
SILENCE = 60
"""Seconds after which a child that says nothing hangs."""
GIB = 2**30
MUTATIONS = ("none", "file byte", "file bytes", "file cut", "file tail", "file words",
             "length 2^40", "length of the file", "file byte", "file bytes", "file cut",
             "value length", "record bytes", "record cut", "jpeg bytes",
             "jpeg header", "jpeg cut", "jpeg size", "jpeg foreign", "feature missing",
             "feature twice", "feature renamed", "feature type", "features swapped",
             "feature values", "label")


def mutate(random: np.random.Generator, kind: str, path: Path) -> None:
    """Writes a file of four records, one of which (or whose bytes) are mutated."""
    import tensorflow as tf

    from tests.data.test_records import feature, jpeg

    features = [{"image": feature(jpeg(int(random.integers(40)))),
                 "class": feature(int(random.integers(3))),
                 "id": feature(f"id{number}".encode())} for number in range(4)]
    victim = features[int(random.integers(4))]
    mutate_features(random, kind, victim)
    records = []
    for each in features:
        # Protobuf orders a map as it likes unless told, in every process another way.
        data = tf.train.Example(features=tf.train.Features(feature=each)).SerializeToString(
            deterministic=True)
        if each is victim:
            data = mutate_record(random, kind, data)
        records.append(data)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in records:
            writer.write(data)
    path.write_bytes(mutate_file(random, kind, path.read_bytes(), [len(each) for each in records]))


def flipped(random: np.random.Generator, data: bytes, most: int, start: int = 0,
            end: int | None = None) -> bytes:
    """Up to `most` bytes between start and end are other ones."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, most + 1))):
        if changed[start:end]:
            changed[start + int(random.integers(len(changed[start:end])))] = random.integers(256)
    return bytes(changed)


def mutate_features(random: np.random.Generator, kind: str, victim: dict) -> None:
    """The mutations of one record's features and of its JPEG."""
    from tests.data.test_records import feature

    image = victim["image"].bytes_list.value[0]
    name, other = (str(each) for each in random.choice(["image", "class", "id"], 2, False))
    foreign = [b"", b"\xff\xd8\xff", b"GIF89a" + bytes(40), b"\x89PNG\r\n\x1a\n" + bytes(40),
               b"BM" + bytes(60), b"RIFF\0\0\0\0WEBPVP8 ", random.bytes(200), image + image]
    images = {
        "jpeg bytes": lambda: flipped(random, image, 20),
        "jpeg header": lambda: flipped(random, image, 6, end=200),
        "jpeg cut": lambda: image[:int(random.integers(len(image)))],
        "jpeg size": lambda: promise(random, image),
        "jpeg foreign": lambda: foreign[int(random.integers(len(foreign)))]}
    if kind in images:
        victim["image"] = feature(images[kind]())
    elif kind == "feature missing":
        del victim[name]
    elif kind == "feature renamed":
        victim[f"{name}\n{random.integers(9)}"] = victim.pop(name)
    elif kind == "feature type":
        victim[name] = feature([1.5, 7, b"text", b"\xff\xfe", -1][int(random.integers(5))])
    elif kind == "features swapped":
        victim[name], victim[other] = victim[other], victim[name]
    elif kind == "feature values":
        victim[name] = feature([[], [1, 2], [b"a", b"b"], [0.5] * 9][int(random.integers(4))])
    elif kind == "label":
        victim["class"] = feature(int(random.integers(-2**63, 2**63 - 1)
                                      >> int(random.integers(64))))


def promise(random: np.random.Generator, image: bytes) -> bytes:
    """A JPEG whose header promises another size, most often 60,000 x 60,000 pixels."""
    start = next(place for place in range(2, len(image)) if image[place] == 0xFF
                 and image[place + 1] in (0xC0, 0xC1, 0xC2))
    height, width = [(60_000, 60_000), (60_000, 60_000), (65_535, 16), (16, 65_535), (0, 16),
                     (13_000, 13_000)][int(random.integers(6))]
    kind = bytes([0xFF, int(random.choice([0xC0, 0xC2]))])
    return (image[:start] + kind + image[start + 2:start + 5]
            + struct.pack(">HH", height, width) + image[start + 9:])


def mutate_record(random: np.random.Generator, kind: str, data: bytes) -> bytes:
    """The mutations of a serialized record, whose CRC will be right."""
    from tests.data.test_records import promising

    if kind == "record bytes":
        return flipped(random, data, 8)
    if kind == "record cut":
        return data[:int(random.integers(len(data)))]
    if kind == "value length":  # of the image, 2^31 and more, which TensorFlow's parser trusts
        return promising(data, int(random.integers(2**31, 2**32)))
    if kind == "feature twice":  # a second entry of the map, as another writer may leave it
        return data + data if random.integers(2) else data + data[:int(random.integers(60))]
    return data


def mutate_file(random: np.random.Generator, kind: str, data: bytes, lengths: list[int]) -> bytes:
    """The mutations of a file's bytes."""
    from flowerexp.data.tfrecord import masked_crc

    starts = [sum(lengths[:number]) + 16 * number for number in range(len(lengths))]
    start = starts[int(random.integers(len(starts)))]
    if kind in ("file byte", "file bytes"):
        if random.integers(2):
            return flipped(random, data, 1 if kind == "file byte" else 30)
        return flipped(random, data, 3, start, start + 12)
    if kind == "file cut":
        return data[:int(random.integers(len(data)))]
    if kind == "file tail":
        return data + random.bytes(int(random.integers(1, 40)))
    if kind == "file words":
        return random.bytes(int(random.integers(300)))
    if kind in ("length 2^40", "length of the file"):
        length = int(random.choice([2**40, 2**40, 2**31, 2**62, 2**63, 2**64 - 5, 2**64 - 1],
                                   )) if kind == "length 2^40" else len(data) - start
        head = struct.pack("<Q", length % 2**64)
        return data[:start] + head + struct.pack("<I", masked_crc(head)) + data[start + 12:]
    return data


def outcomes(path: Path, number: int) -> tuple[str, str]:
    """What a run and the check make of one data set, in a word each; raises what is no outcome."""
    from flowerexp.config import Dataset
    from flowerexp.data import records, sources
    from flowerexp.data.prepare import checks
    from flowerexp.data.sources import TFRecords
    from flowerexp.errors import UserError
    from flowerexp.runs.log import RunLogger
    from flowerexp.train import experiment

    def named(read) -> str:
        try:
            read()
        except UserError as error:
            sentence = str(error)
        else:
            return "clean read"
        assert str(path) in sentence, f"names no file: {sentence}"
        assert "\n" not in sentence, f"more than a line: {sentence}"
        return "named error"

    # Of one in three the size is told by the images themselves.
    config = Dataset(TFRecords(str(path), None if number % 3 == 0 else SIZE), cache="decoded")

    def run() -> None:
        source = sources.find(config.source)
        table = records.read(source.files["train"], source.spec("train"))
        experiment.as_images(table, source, config, "decoded", RunLogger(chief=False))

    def check() -> None:
        source = sources.find(config.source)
        found = checks.check(source)
        if found.errors:
            raise UserError(found.errors[0].sentence)

    def skip() -> None:
        source = sources.find(config.source)
        records.read(source.files["train"],
                     source.spec("train" if number % 2 == 0 else "test", skip_bad=True))

    ran, checked = named(run), named(check)
    named(skip)
    assert ran == checked, f"a run ends in a {ran}, the check in a {checked}"
    return ran, checked


def child(numbers: list[int], answers) -> None:
    """Reads a batch of mutated files; says before each which one it is, and after it what came."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    faulthandler.enable(os.dup(2))  # says where a child was that dies
    with Path(os.devnull).open("w") as nothing:  # libjpeg comments on what it reads
        os.dup2(nothing.fileno(), 2)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for split in ("train", "val"):
            (root / split).mkdir()
        mutate(np.random.default_rng(0), "none", root / "val/a-4.tfrec")
        first = 0
        for number in [-len(MUTATIONS), *numbers]:  # the first only warms TensorFlow up
            kind = MUTATIONS[number % len(MUTATIONS)]
            path = root / "train/a-4.tfrec"
            mutate(np.random.default_rng(number + 1000), kind, path)
            answers.send((number, kind, "begun", 0))
            try:
                outcome = outcomes(root, number)[0]
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            first = peak if number < 0 else first
            answers.send((number, kind, outcome, (peak - first) * 1024))


def read_all(numbers: list[int]) -> tuple[dict[int, tuple[str, str, int]], list[str]]:
    """The outcome of every file, and what crashed or hung."""
    context = multiprocessing.get_context("spawn")
    ended: dict[int, tuple[str, str, int]] = {}
    wrong: list[str] = []
    batches = [numbers[start:start + BATCH] for start in range(0, len(numbers), BATCH)]
    running: list = []
    while batches or running:
        while batches and len(running) < 2:
            # A pipe, not a queue: a child that dies has said all that it meant to.
            answers, sent = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(batches.pop(), sent))
            process.start()
            sent.close()
            running.append([process, answers, time.monotonic(), (None, None)])
        for each in list(running):
            process, answers, heard, _ = each
            alive = process.is_alive()
            with contextlib.suppress(EOFError):
                while answers.poll(0.05):
                    number, kind, outcome, grown = answers.recv()
                    each[2:] = time.monotonic(), (number, kind)
                    if outcome != "begun":
                        ended[number] = kind, outcome, grown
            hangs = time.monotonic() - heard > SILENCE and each[2] == heard
            if hangs:
                wrong.append(f"file {each[3]} hangs")
                process.kill()
            if hangs or not alive:
                process.join()
                if process.exitcode and not hangs:
                    wrong.append(f"file {each[3]} ends the process with {process.exitcode}")
                running.remove(each)
    return ended, wrong


def main(files: int) -> None:
    start = time.monotonic()
    ended, wrong = read_all(list(range(files)))
    by_kind: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for number, (kind, outcome, grown) in sorted(ended.items()):
        word = outcome if outcome in ("clean read", "named error") else "wrong"
        by_kind[kind][word] += number >= 0
        if word == "wrong":
            wrong.append(f"file {number} ({kind}): {outcome}")
        if grown > GIB:
            wrong.append(f"file {number} ({kind}) and those before took {grown / GIB:.2f} GiB")
    print(json.dumps({kind: dict(counts) for kind, counts in by_kind.items()}, indent=1))
    print(*wrong[:40], sep="\n")
    missing = set(range(files)) - set(ended)
    most = max(grown for number, (_, _, grown) in ended.items() if number >= 0)
    whole = sum(by_kind["none"].values())
    print(f"{files - len(missing) - whole} mutated files and {whole} whole ones, {len(wrong)} "
          f"wrong, {len(missing)} without an outcome; a child's memory grew by "
          f"{most / 2**20:.0f} MiB at most; "
          f"{time.monotonic() - start:.0f} s")
    assert not wrong, wrong
    assert not missing, sorted(missing)[:10]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2080)

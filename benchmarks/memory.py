"""How much memory does the pipeline take, with oversampling to 300, compared with a plain one?

    python -m benchmarks.memory --json memory.json

Peak resident memory that a whole epoch of batches adds to a process (Linux, /proc). The baseline is
the method that this project re-implements: every image is decoded to float32 and cached, repeated
so that its class has 300, and shuffled in a buffer of decoded images. Repeats and buffer share the
cached tensors, so it takes little more than these. Targets: `encoded` at most a tenth of it,
`decoded` at most its table of uint8 pixels and 300 MiB. Each case runs in its own process, in turn.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import photos
from benchmarks.measuring import apart, forget_peak, memory, parser, print_table, write_report
from flowerexp.data import pipeline, records, sampling, tfrecord
from flowerexp.data.batching import Plan
from flowerexp.data.features import ReadSpec
from flowerexp.data.pipeline import Split
from flowerexp.data.sampling import Oversample

MIB = 2**20
CASES = ("plain", "encoded", "decoded", "none")
BUFFER = 2048
"""Decoded images in the baseline's shuffle buffer, as in the method's notebook."""


def plain_epoch(folder: Path, size: int, policy: Any, batch: int) -> tf.data.Dataset:
    """The baseline: decoded once and cached, repeated by class, shuffled, batched."""
    files = tfrecord.list_files(str(folder))
    labels = records.read(files, ReadSpec(size, keep_images=False)).labels
    repeats = tf.constant(sampling.example_repeats(labels, policy, 0, 0))

    def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.io.parse_single_example(serialized, {
            "image": tf.io.FixedLenFeature([], tf.string),
            "class": tf.io.FixedLenFeature([], tf.int64)})
        image = tf.cast(tf.io.decode_jpeg(found["image"], channels=3), tf.float32) / 255.0
        return tf.reshape(image, [size, size, 3]), found["class"]

    data = tf.data.TFRecordDataset(files)
    data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE).cache().enumerate().flat_map(
        lambda number, pair: tf.data.Dataset.from_tensors(pair).repeat(repeats[number]))
    return data.shuffle(BUFFER).batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def project_epoch(folder: Path, size: int, policy: Any, batch: int, cache: str) -> Any:
    """The batches of an epoch of a run with this dataset.cache, read from the files."""
    table = records.read(tfrecord.list_files(str(folder)),
                         ReadSpec(size, keep_images=cache != "none"))
    examples = int(sampling.example_repeats(table.labels, policy, 0, 0).sum())
    plan = Plan(workers=1, replicas=1, batch_size=batch, accumulation=1, eval_batch_size=1,
                examples_per_epoch=examples, updates_per_epoch=examples // batch, epochs=1)
    images = Split(table, size, shuffle_bytes=4 * 1024 * MIB)
    if cache == "decoded":
        images = pipeline.cache_decoded(images)
    return pipeline.training_batches(tf.distribute.get_strategy(), images, policy, plan, 0,
                                     None)(0, 0)


def epoch(case: str, folder: Path, size: int, target: int, batch: int) -> dict[str, float]:
    """Peak bytes that an epoch added, its examples, CPU-seconds and wall seconds."""
    policy = Oversample(target)
    tf.io.decode_jpeg(tf.io.encode_jpeg(np.zeros([8, 8, 3], np.uint8)))  # starts TensorFlow
    forget_peak()
    before, _ = memory()
    cpu, start = time.process_time(), time.perf_counter()
    batches = (plain_epoch(folder, size, policy, batch) if case == "plain" else
               project_epoch(folder, size, policy, batch, case))
    examples = sum(1 for _ in batches) * batch
    return {"bytes": memory()[1] - before, "examples": examples,
            "cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - start}


def options() -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    photos.add_option(made)
    made.add_argument("--size", type=int, default=192, help="height and width in pixels")
    made.add_argument("--batch", type=int, default=128, help="images of a batch")
    made.add_argument("--target", type=int, default=300, help="images that a class is brought to")
    return made.parse_args()


def main() -> None:
    arguments = options()
    folder = photos.training_files(arguments.data, arguments.size)
    runs: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(arguments.rounds):
        for case, of_case in runs.items():
            of_case.append(apart(epoch, case, folder, arguments.size, arguments.target,
                                 arguments.batch))
    middle = {case: {key: statistics.median(one[key] for one in of_case) for key in of_case[0]}
              for case, of_case in runs.items()}
    images = len(records.read(tfrecord.list_files(str(folder)),
                              ReadSpec(arguments.size, keep_images=False)).labels)
    pixels = images * arguments.size**2 * 3
    print_table(f"memory of an epoch with oversampling to {arguments.target}: {images} photos of "
                f"{arguments.size} px, table of pixels {pixels / MIB:.0f} MiB", [
        {"": case, "examples": f"{of['examples']:.0f}",
         "added, MiB": f"{of['bytes'] / MIB:.0f}",
         "of plain": f"{of['bytes'] / middle['plain']['bytes']:.3f}",
         "rounds": " ".join(f"{one['bytes'] / MIB:.0f}" for one in runs[case]),
         "CPU-s": f"{of['cpu_seconds']:.1f}", "s": f"{of['wall_seconds']:.1f}"}
        for case, of in middle.items()])
    write_report(arguments.json, {"runs": runs, "median": middle, "pixels": pixels})


if __name__ == "__main__":
    main()

"""What does an epoch of 4 and 16 times as many images cost?

    python -m benchmarks.growth --json growth.json

CPU-seconds per image of reading and checking the files, and of an epoch's batches, from copies of
the photos' files; and the peak memory that both add (Linux, /proc). The baseline is the same with
the images once. Targets: linear, that is the same cost per image; constant memory with
dataset.cache=none, whose shuffle buffer is bounded by dataset.memory_gb. Each case runs in its own
process, in turn, which first reads a file and takes a batch, so that start-up costs do not count
against small data sets.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import photos
from benchmarks.measuring import (
    apart,
    described,
    forget_peak,
    memory,
    parser,
    print_table,
    ratios,
    write_report,
)
from flowerexp.data import pipeline, records, tfrecord
from flowerexp.data.batching import Plan
from flowerexp.data.features import ReadSpec
from flowerexp.data.pipeline import Split
from flowerexp.data.sampling import Original

MIB = 2**20
CACHES = ("encoded", "none")
BUFFER = 8 * MIB
"""Bytes of the shuffle buffer of `none`, small enough to be full with the images once."""


def copy(folder: Path, factor: int, place: Path) -> Path:
    """A split of `factor` times the files: copies, because links would share cached pages."""
    split = place / f"x{factor}"
    split.mkdir()
    for file in sorted(folder.glob("*.tfrec")):
        for number in range(factor):
            shutil.copyfile(file, split / f"{number:02d}{file.name}")
    return split


def epoch(folder: Path, size: int, cache: str, batch: int) -> dict[str, float]:
    """CPU-seconds per image of reading and of an epoch, wall seconds, and peak bytes added."""
    tf.io.decode_jpeg(tf.io.encode_jpeg(np.zeros([8, 8, 3], np.uint8)))  # starts TensorFlow
    forget_peak()
    before, _ = memory()
    files = tfrecord.list_files(str(folder))
    spec = ReadSpec(size, keep_images=cache != "none")
    records.read(files[:1], spec)
    start = time.perf_counter()
    marks = [time.process_time()]
    table = records.read(files, spec)
    marks.append(time.process_time())
    updates = len(table.labels) // batch
    plan = Plan(workers=1, replicas=1, batch_size=batch, accumulation=1, eval_batch_size=1,
                examples_per_epoch=updates * batch, updates_per_epoch=updates, epochs=1)
    batches = pipeline.training_batches(
        tf.distribute.get_strategy(), Split(table, size, shuffle_bytes=BUFFER), Original(), plan,
        0, None)
    next(iter(batches(0, 0)))
    marks.append(time.process_time())
    for _ in batches(1, 0):
        pass
    marks.append(time.process_time())
    reading, _, feeding = np.diff(marks) / len(table.labels)
    return {"images": len(table.labels), "reading": reading, "epoch": feeding,
            "wall_seconds": time.perf_counter() - start, "bytes": memory()[1] - before}


def row(cache: str, factor: int, once: list[dict[str, float]], rounds: list[dict[str, float]]
        ) -> dict[str, Any]:
    """A row of the table; ratios compare the cost per image with that of factor 1."""
    middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    shown: dict[str, Any] = {"cache": cache, "images": f"{middle['images']:.0f} (x{factor})"}
    for key in ("reading", "epoch"):
        shown[f"{key}, CPU us an image"] = f"{1e6 * middle[key]:.0f}"
        shown[f"{key}, to x1"] = "" if factor == 1 else described(
            ratios([one[key] for one in rounds], [one[key] for one in once]))
    return shown | {"s": f"{middle['wall_seconds']:.1f}",
                    "added, MiB": f"{middle['bytes'] / MIB:.0f}"}


def main() -> None:
    options = parser(__doc__, rounds=5)
    photos.add_option(options)
    options.add_argument("--size", type=int, default=96, help="height and width in pixels")
    options.add_argument("--batch", type=int, default=128, help="images of a batch")
    options.add_argument("--factors", type=int, nargs="+", default=[4, 16],
                         help="times the images, beside once (default 4 16)")
    arguments = options.parse_args()
    factors = [1, *arguments.factors]
    folder = photos.training_files(arguments.data, arguments.size)
    runs: dict[tuple[str, int], list[dict[str, float]]] = {
        (cache, factor): [] for cache in CACHES for factor in factors}
    with tempfile.TemporaryDirectory() as place:
        splits = {factor: copy(folder, factor, Path(place)) for factor in factors}
        for _ in range(arguments.rounds):
            for (cache, factor), rounds in runs.items():
                rounds.append(apart(epoch, splits[factor], arguments.size, cache, arguments.batch))
    print_table("an epoch of more images", [
        row(cache, factor, runs[cache, 1], rounds) for (cache, factor), rounds in runs.items()])
    write_report(arguments.json, {f"{cache} x{factor}": rounds
                                  for (cache, factor), rounds in runs.items()})


if __name__ == "__main__":
    main()

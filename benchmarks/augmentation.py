"""Speed of the perspective transform against the plain form of the method, which is written here.

    python -m benchmarks.augmentation --json augmentation.json

Images per CPU-second of one process, medians of interleaved rounds: the transform alone, every
pixel compared first, and the whole pipeline from JPEGs to transformed batches.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from flowerexp import augmentation, pipeline
from flowerexp.augmentation_options import Perspective
from flowerexp.config import Sampling
from flowerexp.plan import Plan
from flowerexp.records import Table

PROBABILITY = 0.35


def plain_matrix(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The yardstick: [n, 4, 2] points in (y, x) -> float64 [n, 3, 3]."""
    basis = []
    for points in (source, target):
        points = tf.cast(points, tf.float64)
        columns = tf.linalg.matrix_transpose(tf.concat([points, tf.ones_like(points[..., :1])], -1))
        scale = tf.linalg.inv(columns[..., :3]) @ columns[..., 3:]
        basis.append(columns[..., :3] * tf.linalg.matrix_transpose(scale))
    return basis[1] @ tf.linalg.inv(basis[0])


def plain_warp(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """The yardstick: float32 [n, height, width, 3] and float64 [n, 3, 3] -> float32 images."""
    count, height, width = (tf.shape(images)[axis] for axis in range(3))
    y, x = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    grid = tf.stack([tf.reshape(y, [-1]), tf.reshape(x, [-1]), tf.ones([height * width], tf.int32)])
    grid = tf.repeat(tf.cast(grid, tf.float64)[None], count, axis=0)
    points = tf.linalg.inv(matrices) @ grid
    points = tf.cast(points[:, :2] / points[:, 2:], tf.int32)
    inside = tf.reduce_all((points >= 0) & (points < tf.stack([height, width])[:, None]), 1)
    points = tf.linalg.matrix_transpose(tf.where(inside[:, None], points, 0))
    pixels = tf.gather_nd(images, points, batch_dims=1)
    return tf.reshape(tf.where(inside[..., None], pixels, 0.0), tf.shape(images))


def transforms(count: int, size: int) -> tuple[dict[str, Iterator[Any]], int]:
    """Both forms of the transform as endless data sets, and the number of pixels compared.

    Element e of both shows the same images with the corners of epoch e: the yardstick from float32
    images, the project from uint8 ones. The corners are drawn by the same function.

    Raises:
        AssertionError: where a pixel differs.
    """
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (count, size, size, 3), np.uint8))
    floats = tf.cast(images, tf.float32)
    source = tf.constant([[[0, 0], [0, size], [size, size], [size, 0]]] * count)

    def corners(epoch: tf.Tensor) -> tf.Tensor:
        return augmentation.random_corners(size, size, 0, epoch, tf.range(count, dtype=tf.int64),
                                           PROBABILITY)

    def yardstick(epoch: tf.Tensor) -> tf.Tensor:
        return plain_warp(floats, plain_matrix(source, corners(epoch)))

    def project(epoch: tf.Tensor) -> tf.Tensor:
        return augmentation.warp(images, augmentation.perspective_matrix(source, corners(epoch)))

    epochs = tf.data.Dataset.range(2**40)
    cases = {"yardstick": iter(epochs.map(yardstick)), "project": iter(epochs.map(project))}
    compared = 0
    for _ in range(4):
        plain, ours = (next(case).numpy() for case in cases.values())
        assert np.array_equal(plain, ours), f"{(plain != ours).any(-1).sum()} pixels differ"
        compared += count * size * size
    return cases, compared


def photo_like(count: int, size: int) -> list[bytes]:
    """JPEGs with the detail of photos: about 12 kB at 192 px, as the flower set's."""
    rng = np.random.default_rng(1)
    coarse = tf.constant(rng.integers(0, 256, (count, 12, 12, 3)), tf.float32)
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy()
    noisy = np.clip(smooth + rng.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
    return [tf.io.encode_jpeg(image, quality=90).numpy() for image in noisy]


def pipelines(count: int, size: int, batches: int) -> dict[str, Iterator[Any]]:
    """Both pipelines from encoded images to transformed batches of `count`, endless enough.

    The yardstick decodes, casts to float32, shuffles decoded images, batches and transforms; the
    project's is that of a run with `dataset.cache=encoded`.
    """
    encoded = photo_like(1024, size)
    labels = np.arange(len(encoded), dtype=np.int32) % 10
    source = tf.constant([[[0, 0], [0, size], [size, size], [size, 0]]] * count)

    def decode(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(tf.io.decode_jpeg(image, channels=3), tf.float32), label

    def transform(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> Any:
        images, label = batch
        corners = augmentation.random_corners(size, size, 0, number,
                                              tf.range(count, dtype=tf.int64), PROBABILITY)
        return plain_warp(tf.ensure_shape(images, [count, size, size, 3]),
                          plain_matrix(source, corners)), label

    plain = tf.data.Dataset.from_tensor_slices((encoded, labels)).repeat().map(
        decode, num_parallel_calls=tf.data.AUTOTUNE).shuffle(len(encoded), seed=0)
    plain = plain.batch(count, drop_remainder=True).enumerate().map(
        transform, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    table = Table(tf.constant(encoded), labels, [""] * len(encoded), (), ())
    plan = Plan(workers=1, replicas=1, batch_size=count, accumulation=1, eval_batch_size=1,
                examples_per_epoch=count * batches, updates_per_epoch=batches, epochs=1)
    augment = augmentation.build({"perspective": Perspective(probability=PROBABILITY)}, 0, count)
    ours = pipeline.training_batches(tf.distribute.get_strategy(), pipeline.Images(table, size),
                                     Sampling(), plan, 0, augment)
    return {"yardstick": iter(plain), "project": iter(ours(0, 0))}


def settle() -> float:
    """Waits until what runs in the background has filled its buffers; returns when that was."""
    while True:
        before, reached = time.process_time(), time.perf_counter()
        time.sleep(0.05)
        if time.process_time() - before < 0.002:
            return reached


def measure(cases: Mapping[str, Callable[[], Any]], images: int, rounds: int, calls: int
            ) -> dict[str, dict[str, Any]]:
    """CPU-seconds and wall seconds of `calls` calls of every case, in turn, `rounds` times.

    Both clocks include the refilling of a case's buffers after the calls, which takes as much as
    the calls took from them; the wall clock to about 0.05 s.

    Args:
        cases: name -> a function whose every call makes `images` images.

    Returns:
        name -> medians per image and images per second of either clock, and all rounds.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for call in cases.values():  # a first call traces and compiles
        call()
        settle()
    for _ in range(rounds):
        for name, call in cases.items():
            cpu, start = time.process_time(), time.perf_counter()
            for _ in range(calls):
                call()
            wall = settle() - start
            seconds[name].append((time.process_time() - cpu, wall))
    results = {}
    for name, pairs in seconds.items():
        cpu, wall = (statistics.median(column) for column in zip(*pairs, strict=True))
        results[name] = {"images_per_cpu_second": images * calls / cpu,
                         "images_per_wall_second": images * calls / wall,
                         "cpu_seconds": cpu, "wall_seconds": wall, "rounds": pairs}
    return results


def table(title: str, results: Mapping[str, Mapping[str, Any]]) -> tuple[str, float]:
    """The results as text, and the ratio of project to yardstick.

    The ratio is the median of the rounds' ratios: what slows the machine slows both in a round.
    """
    ratios = [slow[0] / fast[0] for slow, fast in zip(
        results["yardstick"]["rounds"], results["project"]["rounds"], strict=True)]
    ratio = statistics.median(ratios)
    lines = [title, f"{'':12}{'images/CPU-s':>14}{'images/s':>12}{'CPU-s':>10}{'wall s':>10}"]
    lines += [f"{name:12}{row['images_per_cpu_second']:14.0f}{row['images_per_wall_second']:12.0f}"
              f"{row['cpu_seconds']:10.3f}{row['wall_seconds']:10.3f}"
              for name, row in results.items()]
    lines.append(f"{'ratio':12}{ratio:14.2f}  (rounds {min(ratios):.2f} to {max(ratios):.2f})")
    return "\n".join(lines), ratio


def compare(title: str, cases: Mapping[str, Callable[[], Any]], images: int, rounds: int,
            calls: int) -> dict[str, Any]:
    """Measures and prints `yardstick` and `project`; returns what goes to the JSON file."""
    results = measure(cases, images, rounds, calls)
    text, ratio = table(title, results)
    print(text)
    return {"ratio": ratio, **results}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=128, help="images of a batch")
    parser.add_argument("--size", type=int, default=192, help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, 5 or more")
    parser.add_argument("--calls", type=int, default=6, help="batches of a case in a round")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args()
    if arguments.rounds < 5:
        parser.error("--rounds must be at least 5: a median of fewer means little")

    alone, compared = transforms(arguments.images, arguments.size)
    print(f"every one of {compared} pixels is the same")
    report: dict[str, Any] = {"images": arguments.images, "size": arguments.size,
                              "pixels_compared": compared}
    # More calls than a pipeline buffers, or its wall seconds would be those of the buffer.
    longer = 5 * arguments.calls
    whole = pipelines(arguments.images, arguments.size, (arguments.rounds + 2) * longer)
    for key, title, cases, calls in (
            ("transform", "perspective transform", alone, arguments.calls),
            ("pipeline", "whole pipeline with it", whole, longer)):
        report[key] = compare(
            f"\n{title}, {arguments.size} px",
            {name: lambda case=case: next(case) for name, case in cases.items()},
            arguments.images, arguments.rounds, calls)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()

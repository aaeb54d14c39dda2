"""Speed of the perspective transform compared with a plain implementation, written here.

    python -m benchmarks.augmentation --json augmentation.json

Images per CPU-second of one process, medians of interleaved rounds: the transform alone, after
comparing every pixel, and the whole pipeline from JPEGs to transformed batches.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import photos
from benchmarks.measuring import (
    Seconds,
    compare,
    in_turn,
    parser,
    settled_seconds_of,
    write_report,
)
from flowerexp import rng
from flowerexp.augment import Perspective, base, geometric
from flowerexp.data import pipeline
from flowerexp.data.batching import Plan
from flowerexp.data.sampling import Original
from flowerexp.data.tables import Table

PROBABILITY = 0.35


def plain_matrix(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The baseline: [n, 4, 2] points in (y, x) -> float64 [n, 3, 3]."""
    basis = []
    for points in (source, target):
        points = tf.cast(points, tf.float64)
        columns = tf.linalg.matrix_transpose(tf.concat([points, tf.ones_like(points[..., :1])], -1))
        scale = tf.linalg.inv(columns[..., :3]) @ columns[..., 3:]
        basis.append(columns[..., :3] * tf.linalg.matrix_transpose(scale))
    return basis[1] @ tf.linalg.inv(basis[0])


def plain_warp(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """The baseline: float32 [n, height, width, 3] and float64 [n, 3, 3] -> float32 images."""
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
    """Both implementations as endless datasets, and the number of pixels compared.

    Element e of both has the same images with the corners of epoch e: the baseline from float32
    images, the project from uint8 ones. The same function draws the corners.

    Raises:
        AssertionError: if a pixel differs.
    """
    generator = np.random.default_rng(0)
    images = tf.constant(generator.integers(0, 256, (count, size, size, 3), np.uint8))
    floats = tf.cast(images, tf.float32)
    source = tf.constant([[[0, 0], [0, size], [size, size], [size, 0]]] * count)

    def corners(epoch: tf.Tensor) -> tf.Tensor:
        keys = rng.keys(0, "perspective", epoch, tf.range(count, dtype=tf.int64))
        return geometric.random_corners(keys, size, size, PROBABILITY)

    def yardstick(epoch: tf.Tensor) -> tf.Tensor:
        return plain_warp(floats, plain_matrix(source, corners(epoch)))

    def project(epoch: tf.Tensor) -> tf.Tensor:
        return geometric.warp(images, geometric.perspective_matrix(source, corners(epoch)))

    epochs = tf.data.Dataset.range(2**40)
    cases = {"yardstick": iter(epochs.map(yardstick)), "project": iter(epochs.map(project))}
    compared = 0
    for _ in range(4):
        plain, ours = (next(case).numpy() for case in cases.values())
        assert np.array_equal(plain, ours), f"{(plain != ours).any(-1).sum()} pixels differ"
        compared += count * size * size
    return cases, compared


def pipelines(count: int, size: int, batches: int) -> dict[str, Iterator[Any]]:
    """Both pipelines from encoded images to transformed batches of `count`, long enough.

    The baseline decodes, casts to float32, shuffles decoded images, batches and transforms; the
    project's pipeline is that of a run with `dataset.cache=encoded`.
    """
    encoded = photos.photo_like(1024, size)
    labels = np.arange(len(encoded), dtype=np.int32) % 10
    source = tf.constant([[[0, 0], [0, size], [size, size], [size, 0]]] * count)

    def decode(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(tf.io.decode_jpeg(image, channels=3), tf.float32), label

    def transform(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> Any:
        images, label = batch
        keys = rng.keys(0, "perspective", number, tf.range(count, dtype=tf.int64))
        corners = geometric.random_corners(keys, size, size, PROBABILITY)
        return plain_warp(tf.ensure_shape(images, [count, size, size, 3]),
                          plain_matrix(source, corners)), label

    plain = tf.data.Dataset.from_tensor_slices((encoded, labels)).repeat().map(
        decode, num_parallel_calls=tf.data.AUTOTUNE).shuffle(len(encoded), seed=0)
    plain = plain.batch(count, drop_remainder=True).enumerate().map(
        transform, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    table = Table(tf.constant(encoded), labels, [""] * len(encoded))
    plan = Plan(workers=1, replicas=1, batch_size=count, accumulation=1, eval_batch_size=1,
                examples_per_epoch=count * batches, updates_per_epoch=batches, epochs=1)
    augment = base.build({"perspective": Perspective(probability=PROBABILITY)}, 0, count)
    ours = pipeline.training_batches(tf.distribute.get_strategy(), pipeline.Split(table, size),
                                     Original(), plan, 0, augment)
    return {"yardstick": iter(plain), "project": iter(ours(0, 0))}


def drawn(case: Iterator[Any], calls: int) -> Callable[[], Seconds]:
    """A case of `calls` batches."""
    def draw() -> None:
        for _ in range(calls):
            next(case)

    return lambda: settled_seconds_of(draw)


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--images", type=int, default=128, help="images of a batch")
    options.add_argument("--size", type=int, default=192, help="height and width in pixels")
    options.add_argument("--calls", type=int, default=6, help="batches of a case in a round")
    arguments = options.parse_args()

    single_process, compared = transforms(arguments.images, arguments.size)
    print(f"every one of {compared} pixels is the same")
    report: dict[str, Any] = {"images": arguments.images, "size": arguments.size,
                              "pixels_compared": compared}
    # More calls than a pipeline buffers; otherwise the wall time would be that of the buffer.
    longer = 5 * arguments.calls
    whole = pipelines(arguments.images, arguments.size, (arguments.rounds + 2) * longer)
    for key, title, iterators, calls in (
            ("transform", "perspective transform", single_process, arguments.calls),
            ("pipeline", "whole pipeline with it", whole, longer)):
        taken = in_turn({name: drawn(one, calls) for name, one in iterators.items()},
                        arguments.rounds)
        report[key] = compare(f"{title}, {arguments.size} px", taken,
                              dict.fromkeys(taken, arguments.images * calls), "images",
                              ["yardstick"])
    write_report(arguments.json, report)


if __name__ == "__main__":
    main()

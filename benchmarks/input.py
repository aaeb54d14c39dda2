"""What does feeding the images cost, compared with decoding them and with a plain pipeline?

    python -m benchmarks.input --json input.json

Images per CPU-second of whole epochs. Baselines: `bound`, the same JPEGs decoded one after another
by tf.io.decode_jpeg, nothing cached; `bound, parallel`, the same loop over a batch at a time in a
tf.data map as parallel as the project's; `plain`, the obvious pipeline: decode to float32, shuffle
decoded images, batch. Targets: `encoded` at least 0.95 of the bound, `decoded`, from the second
epoch on, 15 times the plain one. Then how long the loop waits for a batch while the device is the
bottleneck: the median `next` of a graph that sleeps between batches; target under 50 us. `one
batch` is a dataset that does nothing, which shows the cost of the call itself.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import photos
from benchmarks.measuring import (
    compare,
    in_turn,
    parser,
    print_table,
    seconds_of,
    write_report,
)
from flowerexp.data import pipeline
from flowerexp.data.batching import Plan
from flowerexp.data.pipeline import Split
from flowerexp.data.sampling import Original
from flowerexp.data.tables import Table

REPEATS = 10
"""Epochs in a round of the decoded cache, because a single one would be too short."""


def bound(encoded: list[bytes]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The baseline of decoding: images one after another, a pixel of each is used."""
    images = tf.constant(encoded)

    def decode_one_after_another(indices: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0, tf.int32)
        for index in indices:
            # Otherwise a loop decodes ten at a time, which costs more CPU-seconds.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            image = tf.io.decode_jpeg(images[index], channels=3, dct_method="INTEGER_ACCURATE")
            total += tf.cast(image[0, 0, 0], tf.int32)
        return total

    decode: Callable[[tf.Tensor], tf.Tensor] = tf.function(decode_one_after_another)
    return decode


def bound_in_parallel(encoded: list[bytes], batch: int) -> tf.data.Dataset:
    """The same baseline with the parallelism and the options of the project's pipeline."""
    data = tf.data.Dataset.range(len(encoded)).batch(batch).map(
        bound(encoded), num_parallel_calls=tf.data.AUTOTUNE)
    return pipeline.without_autotune(data.prefetch(pipeline.PREFETCH))


def plain(encoded: list[bytes], labels: Any, size: int, batch: int) -> tf.data.Dataset:
    """The baseline of pipelines: decode, float32, shuffle decoded images, batch."""
    def decode(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.cast(tf.io.decode_jpeg(image, channels=3), tf.float32)
        return tf.ensure_shape(pixels, [size, size, 3]), label

    data = tf.data.Dataset.from_tensor_slices((encoded, labels))
    data = data.map(decode, num_parallel_calls=tf.data.AUTOTUNE).shuffle(2048)
    return data.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def project(encoded: list[bytes], labels: Any, size: int, batch: int, decoded: bool
            ) -> Callable[[int], Any]:
    """epoch -> the batches of a run with dataset.cache=decoded or encoded."""
    updates = len(encoded) // batch
    plan = Plan(workers=1, replicas=1, batch_size=batch, accumulation=1, eval_batch_size=1,
                examples_per_epoch=updates * batch, updates_per_epoch=updates, epochs=1)
    images = Split(Table(tf.constant(encoded), labels, [""] * len(encoded)), size)
    batches = pipeline.training_batches(
        tf.distribute.get_strategy(), pipeline.cache_decoded(images) if decoded else images,
        Original(), plan, 0, None)
    return lambda epoch: batches(epoch, 0)


def exhaust(*epochs: Iterable[Any]) -> None:
    for batches in epochs:
        for _ in batches:
            pass


def waits(batches: tf.data.Dataset, seconds: float) -> float:
    """Median microseconds of `next` if the device takes `seconds` for a batch."""
    taken = next_seconds(iter(batches), len(batches), tf.constant(seconds))
    return 1e6 * float(np.median(taken[2:]))


@tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
def next_seconds(iterator: Any, count: int, seconds: tf.Tensor) -> tf.Tensor:
    """float64 [count], seconds of every `next` of a loop in the graph that sleeps between them."""
    taken = tf.TensorArray(tf.float64, count)
    for step in tf.range(count):
        slept = tf.py_function(lambda device: time.sleep(float(device)), [seconds], [])
        with tf.control_dependencies([slept]):  # otherwise the clock would not wait
            start = tf.timestamp()
        with tf.control_dependencies([start]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(batch)):
            taken = taken.write(step, tf.timestamp() - start)
    return taken.stack()


def main() -> None:
    options = parser(__doc__, rounds=7)
    photos.add_option(options)
    options.add_argument("--size", type=int, default=192, help="height and width in pixels")
    options.add_argument("--batch", type=int, default=128, help="images of a batch")
    options.add_argument("--images", type=int, default=5515, help="images of an epoch, at most")
    arguments = options.parse_args()
    size, batch = arguments.size, arguments.batch
    encoded, labels = photos.training_set(arguments.data, size, arguments.images)
    count = len(encoded) // batch * batch

    decode, everything = bound(encoded[:count]), tf.range(count)
    decoding = bound_in_parallel(encoded[:count], batch)
    usual = plain(encoded[:count], labels[:count], size, batch)
    fed = {cache: project(encoded, labels, size, batch, cache == "decoded")
           for cache in ("encoded", "decoded")}
    taken = in_turn({
        "bound": lambda: seconds_of(lambda: decode(everything)),
        "bound, parallel": lambda: seconds_of(lambda: exhaust(decoding)),
        "plain": lambda: seconds_of(lambda: exhaust(usual)),
        "encoded": lambda: seconds_of(lambda: exhaust(fed["encoded"](1))),
        "decoded": lambda: seconds_of(lambda: exhaust(*map(fed["decoded"], range(REPEATS)))),
    }, arguments.rounds)
    amounts = dict.fromkeys(taken, count) | {"decoded": REPEATS * count}
    report: dict[str, Any] = {"throughput": compare(
        f"training pipeline, {size} px, batches of {batch}", taken, amounts, "images",
        ["bound", "bound, parallel", "plain"])}

    # Three times as long as a batch takes to produce, on the cores that produce it.
    busy = {name: 3 * statistics.median(one.wall for one in taken[name]) * batch / amounts[name]
            for name in ("plain", *fed)} | {"one batch": 0.02}
    ready = tf.data.Dataset.from_tensors(tf.zeros([batch, size, size, 3], tf.uint8))
    fed |= {"plain": lambda _: usual, "one batch": lambda _: ready.repeat(count // batch)}
    found = {name: [waits(fed[name](number), busy[name]) for number in range(arguments.rounds)]
             for name in busy}
    print_table("wait for a batch while the device is the bottleneck", [
        {"": name, "device, ms": f"{1e3 * busy[name]:.1f}",
         "next, us": f"{statistics.median(each):.0f} ({min(each):.0f} to {max(each):.0f})"}
        for name, each in found.items()])
    report["next_microseconds"] = found
    write_report(arguments.json, report)


if __name__ == "__main__":
    main()

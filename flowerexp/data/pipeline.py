"""The tf.data pipeline: an epoch's batches, the same on one replica and on many workers.

Images stay uint8 until the device. An element is one replica's part of an update (training) or of a
step (evaluation); a strategy feeds consecutive elements to consecutive replicas.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.data import resizing, sampling, tfrecord
from flowerexp.data.batching import Plan
from flowerexp.data.tables import Table, aligned_empty, as_tensor
from flowerexp.data.tfrecord import FRAME
from flowerexp.errors import UserError
from flowerexp.strategy.workers import AllGather, single_process

PREFETCH = 2
"""Batches prefetched for each replica; the number that tf.data chooses grows with memory."""
MAX_EMPTY_DRAWS = 100
"""Draws of an epoch in a row that may choose no image of a worker's own files."""

Batch = dict[str, tf.Tensor]
Augment = Callable[[Batch, tf.Tensor, tf.Tensor], Batch]
"""(batch, epoch int64, positions int64 [n]) -> batch; see flowerexp/augment/base.py."""


@dataclass(frozen=True)
class Split:
    """A split as the pipeline feeds it.

    table: labels and ids, and the images (encoded or decoded) unless they are streamed.
    image_size: height and width in pixels.
    shuffle_bytes: memory of the shuffle buffer for streamed images.
    resize: crop | pad | stretch: how images become squares, if any is not one (`Table.plain`).
    exif: whether images are turned as their EXIF orientation says.
    """

    table: Table
    image_size: int
    shuffle_bytes: float = 0.0
    resize: str = "crop"
    exif: bool = True

    @property
    def decoded(self) -> tf.Tensor | None:
        """uint8 [n, height, width, 3], or None if images are decoded on use."""
        images = self.table.images
        return images if images is not None and images.dtype == tf.uint8 else None

    @property
    def count(self) -> int:
        return len(self.table.labels)

    @property
    def streamed(self) -> bool:
        return self.table.images is None


def parse_image(images: Split, serialized: tf.Tensor) -> tf.Tensor:
    """The encoded image, string [], of a record of a streamed split, string []."""
    spec = images.table.spec
    assert spec is not None
    return tfrecord.parse_image(serialized, spec.features.image)


def decode(images: Split, encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image of a split to uint8 [height, width, 3].

    JPEGs that are squares of the right size, as most splits hold nothing else, take the short way;
    the accurate DCT gives PIL's pixels.
    """
    size = images.image_size
    if not images.table.plain:
        return resizing.square(resizing.decode(encoded, images.exif), size, images.resize)
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, [size, size, 3])


def decode_all(images: Split, encoded: tf.Tensor) -> tf.Tensor:
    """Decodes images [n] of a split to uint8 [n, height, width, 3]."""
    shape = [images.image_size, images.image_size, 3]
    return tf.map_fn(lambda one: decode(images, one), encoded,
                     fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def cache_decoded(images: Split) -> Split:
    """The same split with every image decoded, in parallel; invalid JPEGs raise tf.errors."""
    if images.decoded is not None:
        return images
    size = images.image_size
    decoded = aligned_empty((images.count, size, size, 3))
    batches = tf.data.Dataset.from_tensor_slices(images.table.images).batch(16).map(
        lambda encoded: decode_all(images, encoded), num_parallel_calls=tf.data.AUTOTUNE)
    start = 0
    for batch in without_autotune(batches.prefetch(PREFETCH)).as_numpy_iterator():
        decoded[start:start + len(batch)] = batch
        start += len(batch)
    return replace(images, table=replace(images.table, images=as_tensor(decoded)))


def load(images: Split, indices: tf.Tensor) -> tf.Tensor:
    """The images at indices int64 [n], uint8 [n, height, width, 3]."""
    if images.decoded is not None:
        return tf.gather(images.decoded, indices)
    return decode_all(images, tf.gather(images.table.images, indices))


def gather_images(images: Split, indices: npt.NDArray[np.integer],
                  all_gather: AllGather = single_process) -> npt.NDArray[np.uint8]:
    """The images at some indices, in this order, uint8 [n, height, width, 3].

    Of a streamed split, each worker reads its own files. All use the indices of the first, because
    others may differ by the last bit of a probability. Invalid JPEGs raise tf.errors.
    """
    if not images.streamed:
        return np.asarray(load(images, tf.constant(indices, tf.int64)))
    chosen, size = all_gather(lambda worker, workers: indices)[0].tolist(), images.image_size

    def find(worker: int, workers: int) -> dict[int, npt.NDArray[np.uint8]]:
        rows = file_rows(images.table, workers, worker).tolist()
        stream = without_autotune(stream_in_order(images, workers, worker)).as_numpy_iterator()
        return {row: decode(images, encoded).numpy()
                for row, encoded in zip(rows, stream, strict=True) if row in chosen}

    found = {row: image for each in all_gather(find) for row, image in each.items()}
    return np.array([found[row] for row in chosen], np.uint8).reshape(-1, size, size, 3)


def training_batches(strategy: Any, images: Split, sampler: Any, plan: Plan, seed: int,
                     augment: Augment | None) -> Callable[[int, int], Any]:
    """A function (epoch, first update) -> the distributed data set of the epoch from that update.

    An element holds `image` uint8 [n, height, width, 3] and `label` int32 [n], and what the
    augmentation adds. The order depends only on (labels, sampler, seed, epoch) and, if images are
    streamed, on files and workers.
    """
    labels = tf.constant(images.table.labels)
    if images.streamed:
        for worker in range(plan.workers):  # here, so that an error on one stops all
            check_worker_files(images.table, plan.workers, worker)
        buffer = shuffle_buffer(images, plan)

    def prepare(what: Any, positions: tf.Tensor, epoch: tf.Tensor) -> Batch:
        if images.streamed:
            image, label = decode_all(images, what[0]), what[1]
        else:
            image, label = load(images, what), tf.gather(labels, what)
        shape = [plan.per_replica_batch, images.image_size, images.image_size, 3]
        batch = {"image": tf.ensure_shape(image, shape), "label": tf.ensure_shape(label, shape[:1])}
        return augment(batch, epoch, positions) if augment else batch

    traced = tf.function(prepare, autograph=False)  # once, not in every epoch

    def elements(epoch: int, start: int, worker: int) -> tf.data.Dataset:
        examples = plan.updates_per_epoch * plan.update_size
        positions = worker_rows(np.arange(examples), plan, start, worker)
        if images.streamed:
            chosen = stream_epoch(images, sampler, plan, seed, epoch, worker, buffer).batch(
                plan.per_replica_batch).skip(start * plan.replicas_per_worker)
        else:
            order = sampling.epoch_indices(images.table.labels, sampler, seed, epoch, examples)
            chosen = tf.data.Dataset.from_tensor_slices(worker_rows(order, plan, start, worker))
        number = tf.constant(epoch, tf.int64)
        both = tf.data.Dataset.zip((chosen, tf.data.Dataset.from_tensor_slices(positions)))
        return without_autotune(both.map(
            lambda what, where: traced(what, where, number),
            num_parallel_calls=tf.data.AUTOTUNE).prefetch(PREFETCH * plan.replicas_per_worker))

    return lambda epoch, start: strategy.distribute_datasets_from_function(
        lambda context: elements(epoch, start, context.input_pipeline_id))


def without_autotune(data: tf.data.Dataset) -> tf.data.Dataset:
    """The data set without tf.data's graph rewrites and autotuner; AUTOTUNE then means all cores.

    Rewrites would copy the captured table. The autotuner's thread sleeps 10 ms, 20 ms and so on up
    to a minute, and a finished iterator waits until it wakes: an epoch of 21 s took 41 s.
    """
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return data.with_options(options)


def input_contexts(strategy: Any) -> list[tf.distribute.InputContext]:
    """The contexts of the hosts whose replicas this process feeds."""
    contexts = []

    def ask(context: tf.distribute.InputContext) -> tf.data.Dataset:
        contexts.append(context)
        return tf.data.Dataset.range(0)

    strategy.distribute_datasets_from_function(ask)
    return contexts


def count_workers(strategy: Any) -> int:
    """The number of hosts that feed the replicas."""
    return int(input_contexts(strategy)[0].num_input_pipelines)


def files_here(strategy: Any, images: Split) -> Sequence[str]:
    """The files of a split that this process reads: all, or its workers' own if streamed."""
    files = images.table.files
    return files if not images.streamed else [
        file for context in input_contexts(strategy)
        for file in files[context.input_pipeline_id::context.num_input_pipelines]]


def worker_rows(order: npt.NDArray[np.int64], plan: Plan, start: int,
                worker: int) -> npt.NDArray[np.int64]:
    """One worker's elements of an epoch, starting at update `start`, int64 [elements, n]."""
    layout = (plan.updates_per_epoch, plan.workers, plan.replicas_per_worker,
              plan.per_replica_batch)
    return order.reshape(layout)[start:, worker].reshape(-1, plan.per_replica_batch)


def stream_epoch(images: Split, sampler: Any, plan: Plan, seed: int, epoch: int,
                 worker: int, buffer: int) -> tf.data.Dataset:
    """(JPEG bytes, label) of one worker's part of an epoch, read from its own files.

    Files are shuffled and read four at a time, records are repeated by the sampler and shuffled in
    a buffer of `buffer` records: a function of (files, seed, epoch, worker, buffer).
    """
    files = np.arange(len(images.table.files))[worker::plan.workers]
    offsets = tf.constant(np.cumsum((0, *images.table.counts)), tf.int64)
    stream_file = file_reader(images.table)

    def one_draw(draw: int, repeats: tf.Tensor) -> tf.data.Dataset:
        random = np.random.default_rng((seed, epoch, draw, 2 + worker))
        chosen = tf.data.Dataset.from_tensor_slices(files[random.permutation(len(files))])

        def read(file: tf.Tensor) -> tf.data.Dataset:
            numbered = stream_file(file).enumerate(offsets[file])
            return numbered.flat_map(lambda number, serialized: tf.data.Dataset.from_tensors(
                (serialized, number)).repeat(repeats[number]))

        records_read = chosen.interleave(read, cycle_length=4, block_length=16)
        return records_read.shuffle(buffer, seed=int(random.integers(2**31)),
                                    reshuffle_each_iteration=False)

    draws = stream_draws(images.table, sampler, plan, seed, epoch, worker)
    stream = functools.reduce(tf.data.Dataset.concatenate, (
        one_draw(draw, tf.constant(repeats)) for draw, repeats in enumerate(draws)))
    labels = tf.constant(images.table.labels)
    return stream.take(worker_examples(plan)).map(lambda serialized, number: (
        parse_image(images, serialized), labels[number]))


def stream_draws(table: Table, sampler: Any, plan: Plan, seed: int, epoch: int, worker: int
                 ) -> list[npt.NDArray[np.int64]]:
    """How often each image is seen, int64 [images], in each of the draws that one worker needs.

    Raises:
        UserError: for a sampler that chooses no image of the worker's files.
    """
    mine, draws = file_rows(table, plan.workers, worker), list[npt.NDArray[np.int64]]()
    missing, empty = worker_examples(plan), 0
    while missing > 0:
        draws.append(sampling.example_repeats(table.labels, sampler, seed, epoch, len(draws)))
        seen = int(draws[-1][mine].sum())
        missing, empty = missing - seen, 0 if seen else empty + 1
        if empty == MAX_EMPTY_DRAWS:
            raise UserError(f"dataset.cache=none: {sampler} chooses no image of the training files "
                            f"of worker {worker}: choose dataset.cache=encoded")
    return draws


def worker_examples(plan: Plan) -> int:
    """The number of examples that one worker feeds in an epoch."""
    return plan.updates_per_epoch * plan.replicas_per_worker * plan.per_replica_batch


def shuffle_buffer(images: Split, plan: Plan) -> int:
    """The number of encoded images in the shuffle buffer: as many as fit, at most an epoch.

    It is computed from the sizes of all files, so that it is the same on every worker.
    """
    record_bytes = float(np.mean(images.table.spans[:, 1] + FRAME))
    fitting = min(images.shuffle_bytes / record_bytes, worker_examples(plan))
    return int(max(plan.per_replica_batch, fitting))


def check_worker_files(table: Table, workers: int, worker: int) -> None:
    """Raises UserError if a worker has no file of its own, or no record in them."""
    if len(table.files) < workers:
        raise UserError(f"dataset.cache=none: {workers} workers cannot share {len(table.files)} "
                        "training files: write more files or choose dataset.cache=encoded")
    if not sum(table.counts[worker::workers]):
        raise UserError(f"dataset.cache=none: the training files of worker {worker} hold no good "
                        "record: write more files or choose dataset.cache=encoded")


def file_reader(table: Table) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """A function from a file's number to the data of its records that are in the table, in order.

    A file that holds other records too is read whole and cut at the positions of these, because
    TensorFlow reads nothing after a damaged record.
    """
    paths, kinds = tf.constant(table.files, tf.string), tf.constant(table.compression, tf.string)
    if not table.partial:
        return lambda file: tf.data.TFRecordDataset(paths[file], kinds[file])
    places = tf.constant(table.spans, tf.int64)
    ends = tf.constant(np.cumsum((0, *table.counts)), tf.int64)

    def read(file: tf.Tensor) -> tf.data.Dataset:
        content = tf.io.read_file(paths[file])
        for kind in {*table.compression} - {""}:
            content = tf.cond(kinds[file] == kind, functools.partial(
                tf.io.decode_compressed, content, kind), functools.partial(tf.identity, content))
        mine = tf.data.Dataset.from_tensor_slices(places[ends[file]:ends[file + 1]])
        return mine.map(lambda place: tf.strings.substr(content, place[0], place[1]))

    return read


def evaluation_rows(images: Split, plan: Plan) -> npt.NDArray[np.int64]:
    """The index of the image at every position of an evaluation; -1 is padding.

    int64 [steps, workers, replicas per worker, eval batch]: the split in order or, if it is
    streamed, each worker's files in order.
    """
    parts = ([file_rows(images.table, plan.workers, worker) for worker in range(plan.workers)]
             if images.streamed else [np.arange(images.count)])
    step = plan.replicas * plan.eval_batch_size // len(parts)
    steps = -(-max(map(len, parts)) // step)
    padded = [np.pad(part, (0, steps * step - len(part)), constant_values=-1) for part in parts]
    return np.stack([part.reshape(steps, step) for part in padded], 1).reshape(
        steps, plan.workers, plan.replicas_per_worker, plan.eval_batch_size)


def evaluation_batches(strategy: Any, images: Split, plan: Plan
                       ) -> tuple[Any, npt.NDArray[np.int64]]:
    """The distributed data set of a split, and its `evaluation_rows`.

    Elements are uint8 [eval batch, height, width, 3]. Padding is another image, so that every
    replica always has a full batch.
    """
    rows, size = evaluation_rows(images, plan), images.image_size

    def elements(context: tf.distribute.InputContext) -> tf.data.Dataset:
        mine = rows[:, context.input_pipeline_id].reshape(-1, plan.eval_batch_size)
        if not images.streamed:
            data = tf.data.Dataset.from_tensor_slices(np.maximum(mine, 0)).map(
                lambda indices: load(images, indices), num_parallel_calls=tf.data.AUTOTUNE)
        else:
            black = tf.io.encode_jpeg(tf.zeros([size, size, 3], tf.uint8))
            padding = tf.data.Dataset.from_tensors(black).repeat(int((mine < 0).sum()))
            data = stream_in_order(images, plan.workers, context.input_pipeline_id).concatenate(
                padding).batch(plan.eval_batch_size, drop_remainder=True)
            data = data.map(lambda encoded: decode_all(images, encoded),
                            num_parallel_calls=tf.data.AUTOTUNE)
        shape = [plan.eval_batch_size, size, size, 3]
        return without_autotune(data.map(lambda image: tf.ensure_shape(image, shape)).prefetch(
            PREFETCH * plan.replicas_per_worker))

    return strategy.distribute_datasets_from_function(elements), rows


def file_rows(table: Table, workers: int, worker: int) -> npt.NDArray[np.int64]:
    """The indices of the records of a worker's own files, int64 [records]."""
    file_of = np.repeat(np.arange(len(table.counts)), table.counts)
    return np.flatnonzero(file_of % workers == worker)


def stream_in_order(images: Split, workers: int = 1, worker: int = 0) -> tf.data.Dataset:
    """The JPEG bytes in a worker's own files of a streamed split, in order."""
    files = np.arange(len(images.table.files))[worker::workers]
    return tf.data.Dataset.from_tensor_slices(files).flat_map(file_reader(images.table)).map(
        lambda serialized: parse_image(images, serialized))

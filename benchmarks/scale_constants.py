"""What `benchmarks.scale` measures on this machine: sizes, bytes read and CPU-seconds.

Sizes are exact, or what a fresh process grows by (Linux, /proc). Seconds are CPU-seconds of all
threads, medians of rounds. Every function returns a flat dict that JSON can hold.
"""

import gc
import re
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measuring import forget_peak, memory
from flowerexp import metrics
from flowerexp.comparison import significance
from flowerexp.config import Hardware, Loss, Model, Optimizer, Sampling
from flowerexp.data import pipeline, records, sampling, tfrecord
from flowerexp.data.batching import Plan
from flowerexp.data.records import ReadSpec, Table
from flowerexp.data.tfrecord import FRAME, whole_spans
from flowerexp.models import build, layers, losses, optimizers
from flowerexp.runs import store
from flowerexp.strategy import factory
from flowerexp.train import checkpoint
from flowerexp.train.trainer import Trainer, moving_statistics

CLASSES = 104
BACKBONES = {"EfficientNetB7": "efficientnet", "EfficientNetB0": "efficientnet",
             "MobileNet": "keras"}

Numbers = dict[str, float]


def bytes_read() -> int:
    """Bytes that this process asked the system to read so far, from a disk or its cache."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(re.search(r"rchar: (\d+)", text)[1])  # type: ignore[index]


def cpu_seconds(call: Callable[[], Any], rounds: int) -> float:
    """Median CPU-seconds of a call, after a first one that traces."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def allocated(call: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that what a call returns holds, and the most that were held, of Python and NumPy."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = call()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return now - before, peak - before


# The table

def file_bytes(folder: str) -> Numbers:
    """Bytes of a record in its file and of its JPEG, over the training and validation split."""
    files = [file for split in ("train", "val")
             for file in tfrecord.list_files(f"{folder}/{split}")]
    lengths = [frame.length for file in files for frame in whole_spans(file.path)]
    images = records.read(files, ReadSpec(image_size_of(folder))).images
    assert images is not None
    jpegs = [len(image) for image in images.numpy()]
    return {"record_bytes": float(np.mean(lengths)) + FRAME,
            "jpeg_bytes": float(np.mean(jpegs)), "records": len(lengths), "files": len(files)}


def image_size_of(folder: str) -> int:
    return records.first_image_size(tfrecord.list_files(f"{folder}/train"))


def split_memory(folder: str, cache: str, copies: int) -> Numbers:
    """Bytes by which a fresh process grows for a record, after reading and at most while it reads.

    Args:
        folder: with train and val, which is read before to have everything traced.
        cache: decoded | encoded | none.
        copies: how often the training files are read as if there were so many.
    """
    size = image_size_of(folder)

    def load(files: tuple[tfrecord.RecordFile, ...]) -> pipeline.Split:
        spec = ReadSpec(size, keep_images=cache != "none")
        images = pipeline.Split(records.read(files, spec), size)
        return pipeline.cache_decoded(images) if cache == "decoded" else images

    load(tfrecord.list_files(f"{folder}/val"))
    forget_peak()
    before, _ = memory()
    images = load(tfrecord.list_files(f"{folder}/train") * copies)
    gc.collect()
    after, peak = memory()
    return {f"{cache}_bytes": (after - before) / images.count,
            f"{cache}_peak_bytes": (peak - before) / images.count}


def reading(folder: str, rounds: int) -> Numbers:
    """CPU-seconds a record, and passes over the files, of each way to read the training split."""
    size, files = image_size_of(folder), tfrecord.list_files(f"{folder}/train")
    length = sum(Path(file.path).stat().st_size for file in files)
    table = records.read(files, ReadSpec(size))
    count = len(table.labels)
    encoded = pipeline.Split(table, size)
    found: Numbers = {}
    cases: dict[str, Callable[[], Any]] = {
        "walk": lambda: [whole_spans(file.path) for file in files],
        "read": lambda: records.read(files, ReadSpec(size)),
        "read_labels_only": lambda: records.read(files, ReadSpec(size, keep_images=False)),
        "read_skipping": lambda: records.read(files, ReadSpec(size, skip_bad=True)),
        "decode": lambda: pipeline.cache_decoded(encoded)}
    for name, call in cases.items():
        before = bytes_read()
        call()
        found[f"{name}_passes"] = (bytes_read() - before) / length
        found[f"{name}_seconds"] = cpu_seconds(call, rounds) / count
    frames, _ = allocated(lambda: [whole_spans(file.path) for file in files])
    ids, _ = allocated(lambda: [one.encode().decode() for one in table.ids])
    return found | {"frame_bytes": frames / count, "id_bytes": ids / count,
                    "id_length": float(np.mean([len(one) for one in table.ids]))}


def streaming(folder: str, workers: int) -> Numbers:
    """What worker 0 of several reads with cache=none: of an epoch, and of a validation.

    As shares of all bytes of the split.
    """
    size = image_size_of(folder)
    found: Numbers = {"stream_workers": workers}
    tables = {split: records.read(tfrecord.list_files(f"{folder}/{split}"),
                                   ReadSpec(size, keep_images=False))
              for split in ("train", "val")}
    count = len(tables["train"].labels)
    plan = Plan(workers, workers, 16, 1, 16, count, count // (16 * workers), 1)
    train = pipeline.Split(tables["train"], size, shuffle_bytes=2**30)
    epoch = pipeline.stream_epoch(train, Sampling(), plan, 0, 0, 0,
                                  pipeline.shuffle_buffer(train, plan))
    own = pipeline.stream_in_order(pipeline.Split(tables["val"], size), workers)
    for split, data in (("train", epoch), ("val", own)):
        length = sum(Path(file.path).stat().st_size for file in tables[split].files)
        before = bytes_read()
        for _ in data:
            pass
        found[f"stream_{split}_share"] = (bytes_read() - before) / length
    return found


def order(examples: int, rounds: int) -> Numbers:
    """Bytes and CPU-seconds an example of the order of an epoch, with and without oversampling."""
    labels = np.random.default_rng(0).integers(0, CLASSES, examples).astype(np.int32)
    target = int(2.4 * examples / CLASSES)
    found: Numbers = {}
    for name, policy, shown in (
            ("order", Sampling(), examples),
            ("order_oversampled", Sampling("oversample", target), target * CLASSES)):
        def call(policy: Sampling = policy, shown: int = shown) -> Any:
            return sampling.epoch_indices(labels, policy, 0, 0, shown)

        held, peak = allocated(call)
        found |= {f"{name}_bytes": held / shown, f"{name}_peak_bytes": peak / shown,
                  f"{name}_seconds": cpu_seconds(call, rounds) / shown}
    return found


def epoch_memory(examples: int) -> Numbers:
    """Bytes by which a fresh process grows for an example when an epoch's data set is made."""
    labels = np.zeros(examples, np.int32)
    plan = Plan(1, 1, 16, 1, 16, examples, examples // 16, 1)
    tf.data.Dataset.from_tensor_slices(labels[:16])
    forget_peak()
    before, _ = memory()
    both = [pipeline.worker_rows(rows, plan, 0, 0) for rows in (
        sampling.epoch_indices(labels, Sampling(), 0, 0, examples), np.arange(examples))]
    data = [tf.data.Dataset.from_tensor_slices(rows) for rows in both]
    _, peak = memory()
    assert data
    return {"epoch_peak_bytes": (peak - before) / examples}


# The model

def build_trainer(name: str, size: int, batch: int, updates: int) -> Trainer:
    strategy, _ = factory.build_strategy(Hardware("cpu"))
    counts = np.ones(CLASSES, np.int64)
    plan = Plan(1, 1, batch, 1, batch, batch * updates, updates, 1)
    with strategy.scope():
        if name == "trivial":
            inputs = tf.keras.Input((size, size, 3))
            pooled = tf.keras.layers.GlobalAveragePooling2D()(inputs)
            model = tf.keras.Model(inputs, tf.keras.layers.Dense(CLASSES)(pooled))
        else:
            config = Model(name, BACKBONES[name], weights=None, input_scaling="unit",
                           alpha=0.25 if name == "MobileNet" else None)
            model = build.build(config, size, CLASSES)
        optimizer = optimizers.build(Optimizer(), np.full(updates, 1e-3), "float32")
    return Trainer(strategy, model, optimizer, losses.build(Loss(), counts), plan,
                   np.ones(CLASSES, np.float32))


def run_updates(trainer: Trainer, size: int, rounds: int) -> tuple[float, float]:
    """Median CPU-seconds and wall seconds of an epoch of the plan, on images in memory."""
    random = np.random.default_rng(0)
    pixels = tf.constant(random.integers(0, 256, (256, size, size, 3), np.uint8))
    table = Table(pixels, random.integers(0, CLASSES, 256).astype(np.int32), [""] * 256)
    plan = trainer.plan
    batches = pipeline.training_batches(trainer.strategy, pipeline.Split(table, size),
                                        Sampling(), plan, 0, None)
    seconds = []
    for epoch in range(rounds + 1):
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in trainer.train(batches(epoch, 0), plan.updates_per_epoch, plan.updates_per_epoch):
            pass
        seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    return (statistics.median(pair[0] for pair in seconds[1:]),
            statistics.median(pair[1] for pair in seconds[1:]))


def forward_flops(model: Any, size: int) -> int:
    """Floating-point operations of one image forward (a multiply-add is two), by TensorFlow."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2_as_graph,
    )

    function = tf.function(lambda image: model(image, training=False)).get_concrete_function(
        tf.TensorSpec([1, size, size, 3], tf.float32))
    _, definition = convert_variables_to_constants_v2_as_graph(function)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
        profiler = tf.compat.v1.profiler
        options = profiler.ProfileOptionBuilder(
            profiler.ProfileOptionBuilder.float_operation()).with_empty_output().build()
        return int(profiler.profile(graph, options=options).total_float_ops)


def backbone(name: str, size: int, batch: int, rounds: int) -> Numbers:
    """Sizes, operations and CPU-seconds of a backbone with its head of 104 classes and Adam."""
    trainer = build_trainer(name, size, batch, 1)
    model = trainer.model
    everything, trained = build.parameter_counts(model)
    moving = moving_statistics(model)
    seconds, _ = run_updates(trainer, size, rounds)
    found = {"parameters": everything, "trained": trained, "gradient_bytes": 4 * trained,
             "gradient_tensors": len(model.trainable_variables), "moving_tensors": len(moving),
             "moving_bytes": 4 * sum(int(np.prod(variable.shape)) for variable in moving),
             "train_seconds": seconds / batch, "flops": forward_flops(model, size)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        start = time.process_time()
        checkpoint.save(trainer.checkpoint, folder, 1, None, {}, True)
        found["checkpoint_seconds"] = time.process_time() - start
        found["checkpoint_bytes"] = sum(
            file.stat().st_size for file in checkpoint.folder_of(folder, 1).iterdir())
        layers.portable(model).save(folder / "model.keras")
        found["model_file_bytes"] = (folder / "model.keras").stat().st_size
    return found


def overhead(rounds: int) -> Numbers:
    """Seconds of an update that has next to nothing to compute, 16 images of 8 px."""
    updates = 200
    cpu, wall = run_updates(build_trainer("trivial", 8, 16, updates), 8, rounds)
    return {"update_cpu_seconds": cpu / updates, "update_wall_seconds": wall / updates}


# The results

def files_of_results(classes: int, rounds: int) -> Numbers:
    """Bytes of what grows with epochs and validation images, and the seconds to write it."""
    images, epochs = 37_120, 10
    random = np.random.default_rng(0)
    rows = random.integers(0, classes, (epochs, images)).tolist()
    scores = {f"{split} {name}": random.random() for split in ("train", "valid")
              for name in ("loss", *metrics.NAMES)} | {"train timing": 12.345678}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seconds = cpu_seconds(lambda: store.write_predictions(folder, rows), rounds)
        length = (folder / store.VALID_PREDICTIONS).stat().st_size
        store.write_history(folder, [scores] * epochs)  # type: ignore[list-item]
        history = (folder / store.HISTORY).stat().st_size
        process = allocated(lambda: np.stack(
            [np.array(row) for row in store.read_predictions(folder)]))
    logits = random.normal(size=(images, CLASSES)).astype(np.float32)
    _, softmax = allocated(lambda: metrics.softmax(logits))
    return {"prediction_bytes": length / (epochs * images), "history_epoch_bytes": history / epochs,
            "prediction_seconds": seconds / (epochs * images),
            "compare_bytes": process[0] / (epochs * images),
            "compare_peak_bytes": process[1] / (epochs * images),
            "softmax_peak_bytes": softmax / logits.size}


def confusion(classes: int) -> Numbers:
    """Bytes of a confusion matrix, and CPU-seconds from predictions to macro scores, once."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 3_712)
    predictions = np.where(random.random(3_712) < 0.7, labels, random.integers(0, classes, 3_712))
    metrics.scores(np.eye(3, dtype=np.int64))  # imports
    start = time.process_time()
    matrix = metrics.confusion_matrix(labels, predictions, classes)
    metrics.scores(matrix)
    return {"bytes": matrix.nbytes, "seconds": time.process_time() - start}


def comparison(images: int, rounds: int) -> Numbers:
    """CPU-seconds of a draw of the bootstrap, for every image."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, images)
    sides = [np.where(random.random((1, images)) < share, labels,
                      random.integers(0, CLASSES, (1, images))) for share in (0.7, 0.72)]
    draws = 200
    seconds = cpu_seconds(lambda: significance.bootstrap(labels, sides[0], sides[1], draws), rounds)
    return {"draw_seconds": seconds / (draws * images)}


def measure(folder: str, rounds: int, batch: int, classes: list[int], apart: Callable[..., Any]
            ) -> dict[str, Any]:
    """Everything, as JSON holds it; each group in a process of its own, which `apart` starts."""
    size = image_size_of(folder)
    found: dict[str, Any] = {"size": size, **file_bytes(folder)}
    for cache, copies in (("decoded", 1), ("encoded", 4), ("none", 4)):
        found |= apart(split_memory, folder, cache, copies)
    steps: list[tuple[Any, ...]] = [
        (reading, folder, rounds), (streaming, folder, 4), (order, 1_000_000, rounds),
        (epoch_memory, 4_000_000), (overhead, rounds), (files_of_results, CLASSES, rounds),
        (comparison, 37_120, rounds)]
    for function, *arguments in steps:
        found |= apart(function, *arguments)
    found["many_classes"] = apart(files_of_results, 20_000, rounds)
    found["confusion"] = {str(count): apart(confusion, count) for count in classes}
    found["backbones"] = {name: apart(backbone, name, size, batch, 3) for name in BACKBONES}
    return found


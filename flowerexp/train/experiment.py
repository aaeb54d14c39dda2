"""One run from top to bottom: hardware, data, plan, model, epochs, predictions."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import softmax

from flowerexp import identity, metrics, parts
from flowerexp.augment import base
from flowerexp.config import Config, Dataset
from flowerexp.data import batching, pipeline, records, remarks, sampling, sources, splits, tables
from flowerexp.data.pipeline import Split
from flowerexp.data.prepare import photo_cache
from flowerexp.errors import UserError
from flowerexp.models import backbones, build, layers, losses, optimizers, schedules
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.runs.status import RunStatus
from flowerexp.runs.store import Scores
from flowerexp.strategy import factory, workers
from flowerexp.train.callbacks import Callbacks, RunState
from flowerexp.train.checkpoint import Checkpointer
from flowerexp.train.trainer import Trainer

GIB = 2**30


def run(config: Config, folder: Path, logger: RunLogger, stop: Callable[[], int]) -> int:
    """Trains, validates and predicts; resumes from the folder's last checkpoint.

    Args:
        folder: run folder; only the chief writes to it.
        stop: called between calls of the compiled loop; returns the exit code to save and stop
            with, or 0. All workers stop with the greatest of their codes.

    Returns:
        0 if the run is finished, else the code from `stop`.

    Raises:
        UserError: for data, weights, sizes or a checkpoint that do not fit, or a bad loss.
    """
    strategy, sentence = factory.build_strategy(config.hardware)
    logger.info(f"hardware: {sentence}")
    logger.record(hardware=sentence)
    # Every worker reads all of a cached split; of a streamed one, each reads its own files.
    all_gather = (workers.for_hardware(config.hardware, strategy) if config.dataset.cache == "none"
                  else workers.single_process)

    # Data and plan
    own_code = identity.sources(config)  # before it is imported
    parts.try_all(identity.all_parts(config))
    data = load_data(config.dataset, logger, all_gather, config.train_on)
    plan, augment = derive(config, data.source, data.counts, pipeline.count_workers(strategy),
                           strategy.num_replicas_in_sync)
    for line in (*batching.sentences(config, plan, data.counts),
                 augment.sentence if augment else "augmentation: none"):
        logger.info(line)

    # Model, and what was trained before
    trainer = build_trainer(config, strategy, plan, data, logger)
    provenance = {**asdict(plan), **own_code, "data": data_identity(data, folder, logger)}
    checkpointer = Checkpointer(folder, logger, trainer,
                                identity.keys(identity.plain(config)) | provenance,
                                config.loop.checkpoint_minutes)
    labels = data.valid.table.labels
    history, predictions = checkpointer.restore_latest(len(labels), len(data.names))
    if logger.is_chief:
        store.write_classes(folder, data.names, data.counts.tolist())
        store.write_train_images(folder, data.train.table.digests.tolist(),
                                 data.train.table.groups)
        store.write_valid(folder, data.valid.table.ids, labels.tolist())
    logger.record(provenance=provenance, valid=data.valid_checksum)
    state = RunState(folder, config, plan, data.names, data.counts, labels, trainer.model, logger,
                     lambda indices: pipeline.gather_images(data.valid, indices, all_gather),
                     history, predictions, update=int(trainer.update.numpy()))
    status = RunStatus.load_or_new(folder)
    if status.stopped_early and len(history) == status.epochs_done:
        state.stop(status.stopped_early)

    # Epochs and predictions
    callbacks = Callbacks(config.callbacks)
    code = train(state, checkpointer, callbacks, data, augment,
                 lambda: int(trainer.greatest(stop())))
    if code == 0:
        predict(state, checkpointer, data, all_gather)
        callbacks("on_train_end", state)
    return code


def data_identity(data: "Data", folder: Path, logger: RunLogger) -> str:
    """The data's fingerprint, of the kind that the folder has."""
    recorded = RunStatus.load_or_new(folder).provenance.get("data")
    if identity.is_listing(recorded):
        logger.info(f"{folder}: {identity.WEAKER}")
    return data.fingerprint.like(recorded)


def derive(config: Config, source: sources.Source, counts: npt.NDArray[np.integer],
           worker_count: int, replicas: int) -> tuple[batching.Plan, base.Augment | None]:
    """The plan and the augmentation for int [classes] training images of each class.

    Raises UserError if the sizes do not fit.
    """
    plan = batching.derive(config, counts, worker_count, replicas)
    augment = base.build(config.augmentation, config.seed, plan.batch_size)
    if augment is not None:
        augment.check(plan.per_replica_batch, source.image_size)
    return plan, augment


# Data

@dataclass(frozen=True)
class Data:
    """The labelled splits of a run, as the pipeline feeds them."""

    source: sources.Source
    names: tuple[str, ...]
    """Class names in label order; numbers if the data set has no names."""
    cache: str
    """How images are kept: decoded | encoded | none."""
    train: Split
    valid: Split
    fingerprint: identity.Fingerprint
    skipped: tuple[tables.DataIssue, ...] = ()
    """Issues of the records that dataset.on_bad_record=skip left out of any split."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 [classes], training images of each class."""
        return np.bincount(self.train.table.labels, minlength=len(self.names))

    @property
    def valid_checksum(self) -> str:
        return store.valid_checksum(self.valid.table.ids, self.valid.table.labels.tolist())


def load_data(dataset: Dataset, logger: RunLogger,
              all_gather: workers.AllGather = workers.single_process, train_on: str = "train"
              ) -> Data:
    """Finds and reads the labelled splits, decoded if dataset.memory_gb allows it."""
    source = photo_cache.find(dataset, logger, all_gather)
    logger.info(source.reason)
    found = splits.load(source, dataset, dataset.cache != "none", all_gather, train_on)
    for sentence in found.sentences:
        logger.info(sentence)
    labelled, names = (found.train, found.valid), found.names
    decoded_bytes = sum(len(each.labels) for each in labelled) * source.image_size**2 * 3
    cache = dataset.cache
    if source.arrays or source.listing is not None:
        if cache == "none":
            raise UserError("dataset.cache=none streams files, and this data set is arrays in "
                            "memory: leave it out")
        cache = "decoded"
    elif cache == "auto":
        cache = "decoded" if decoded_bytes <= dataset.memory_gb * GIB else "encoded"
    train, valid = (as_images(each, source, dataset, cache, logger) for each in labelled)
    kept = {"decoded": f"decoded images in memory ({decoded_bytes / GIB:.2f} GiB)",
            "encoded": "encoded images in memory", "none": "images streamed from the files"}[cache]
    resized = "" if found.train.plain and found.valid.plain else f" (resized: {dataset.resize})"
    logger.info(f"data: {train.count} training and {valid.count} validation images of "
                f"{source.image_size}x{source.image_size} pixels{resized}, {len(names)} classes, "
                f"in {source.folder}; {kept}")
    skips = dataset.on_bad_record == "skip"
    logger.record(data={"folder": source.folder, "kind": source.kind, "cache": cache,
                        "image_size": source.image_size, "classes": len(names),
                        "train": train.count, "val": valid.count},
                  warnings=[each for each in found.sentences if each.startswith(remarks.WARNING)],
                  skipped=tables.skipped_status(found.issues) if skips else None)
    if skips:
        logger.info(tables.skipped_sentence(found.issues))
    return Data(source, names, cache, train, valid, found.fingerprint, found.issues)


def as_images(split: tables.Table, source: sources.Source, dataset: Dataset, cache: str,
              logger: RunLogger) -> Split:
    """A labelled split as the pipeline feeds it; its images are decoded if `cache` is decoded."""
    split = photo_cache.decoded(split, source, dataset, logger)
    images = Split(split, source.image_size, dataset.memory_gb * GIB, dataset.resize, dataset.exif)
    if cache != "decoded" or not images.count:
        return images
    with bad_records_named(images):
        return pipeline.cache_decoded(images)


@contextlib.contextmanager
def bad_records_named(images: Split, strategy: Any = None) -> Iterator[None]:
    """Raises UserError for an error of TensorFlow that a bad record of the split caused.

    Under a strategy, only records that this process reads are checked.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if not images.table.issues:  # else bad records were left out: not the cause
            files = pipeline.files_here(strategy, images) if strategy else images.table.files
            spec = images.table.spec
            if spec and (issue := records.first_issue(files, spec)):
                raise UserError(issue) from error
        raise


def load_test(dataset: Dataset, data: Data, all_gather: workers.AllGather = workers.single_process
              ) -> tables.Table | None:
    """The test split, decoded during prediction, or None if the data set has none."""
    if "test" not in data.source.splits:
        return None
    return photo_cache.decoded(splits.read_split(
        data.source, "test", data.cache != "none", dataset.on_bad_record, all_gather),
        data.source, dataset)


# Training

def build_trainer(config: Config, strategy: Any, plan: batching.Plan, data: Data, logger: RunLogger
                  ) -> Trainer:
    """Model, optimizer and loss under the strategy."""
    with strategy.scope():
        model = build.build(config.model, data.source.image_size, len(data.names),
                            config.hardware.precision, config.seed)
        rates = schedules.learning_rates(config.schedule, plan.updates, config.loop.lr_scaling)
        optimizer = optimizers.build(config.optimizer.algorithm, rates, config.hardware.precision)
    everything, trained = build.parameter_counts(model)
    backbone = config.model.backbone
    logger.info(f"model: {backbones.name_of(backbone)}, {everything:,} parameters, {trained:,} of "
                f"them trainable; weights {parts.plain(backbone).get('weights')}, input scaling "
                f"{config.model.input_scaling}")
    if config.model.summary:
        model.summary(expand_nested=True, print_fn=lambda text, **_: logger.info(text))
    return Trainer(strategy, model, optimizer, losses.bind(config.loss, data.counts), plan,
                   sampling.class_weights(data.counts, config.sampling), config.seed,
                   config.optimizer.clip_norm, config.hardware.jit_compile)


def train(state: RunState, checkpointer: Checkpointer, callbacks: Callbacks, data: Data,
          augment: base.Augment | None, stop: Callable[[], int]) -> int:
    """Trains the remaining epochs; returns the code from `stop` if it ended them, else 0.

    A callback can end the run after fewer epochs.
    """
    config, plan, logger, trainer = state.config, state.plan, state.logger, checkpointer.trainer
    batches = pipeline.training_batches(trainer.strategy, data.train, config.sampling, plan,
                                        config.seed, augment)
    callbacks("on_train_begin", state)
    agree_on_stop(state, trainer)
    with bad_records_named(data.train, trainer.strategy), logger.progress(
            plan.updates * plan.update_size, state.update * plan.update_size) as advance:
        while (epoch := len(state.history)) < plan.epochs and not state.stopped:
            title, end = f"epoch {epoch + 1}/{plan.epochs}", (epoch + 1) * plan.updates_per_epoch
            left = end - state.update
            if left == plan.updates_per_epoch:
                trainer.start_epoch()
            for done in trainer.train(batches(epoch, plan.updates_per_epoch - left), left,
                                      config.loop.steps_per_execution):
                raise_bad_loss(state, trainer)
                advance(title, done * plan.update_size, trainer.scores)
                state.update += done
                callbacks("on_update", state)
                code = stop()
                # Every worker must call is_due, unless all stop.
                if (code or checkpointer.is_due()) and state.update < end:
                    checkpointer.save(state.history)
                    if code:
                        return code
            end_epoch(state, checkpointer, callbacks, data)
            last = epoch + 1 == plan.epochs or bool(state.stopped)
            shown = (last or epoch == 0 or (epoch + 1) % config.loop.log_interval == 0
                     or not logger.is_interactive)
            (logger.info if shown else logger.debug)(
                f"epoch {epoch + 1} of {plan.epochs}: {metrics.describe(state.history[-1])}")
            if (code := stop()) and not last:
                return code
    if state.stopped:
        logger.debug(state.stopped)  # printed with the summary
    return 0


def raise_bad_loss(state: RunState, trainer: Trainer) -> None:
    """Raises UserError, with the user's own parts that may be why, if a loss was not finite."""
    update = trainer.first_bad_update()
    if update is None:
        return
    per_epoch = state.plan.updates_per_epoch
    own = " or ".join(str(part) for part in filter(parts.is_own, identity.all_parts(state.config))
                      if part.group.partition(".")[0] in ("model", "loss", "optimizer"))
    raise UserError(
        f"the loss is NaN or infinite from update {update} on (epoch {update // per_epoch + 1}, "
        f"update {update % per_epoch} of {per_epoch}, counted from 0): "
        f"{f'correct {own}, ' if own else ''}lower schedule.max_lr or set optimizer.clip_norm; "
        f"what was saved before stays in {state.folder}")


def end_epoch(state: RunState, checkpointer: Checkpointer, callbacks: Callbacks, data: Data
              ) -> None:
    """Validates, writes the epoch's results, calls the callbacks, and saves the checkpoint.

    A run that is killed between the two repeats what follows its last checkpoint.
    """
    trainer = checkpointer.trainer
    loss, confusion, seconds = trainer.progress()
    logits = predict_logits(trainer, data.valid)
    state.history.append({**metrics.epoch_scores("train", loss, confusion),
                          **valid_scores(trainer, data, logits, state.config.metrics),
                          "train timing": seconds})
    state.predictions.append(logits.argmax(-1).tolist())
    state.logger.check_in_place()
    if state.is_chief:
        store.write_history(state.folder, state.history)
        store.write_predictions(state.folder, state.predictions, data.valid_checksum)
    callbacks("on_epoch_end", state)
    agree_on_stop(state, trainer)
    state.logger.record(stopped_early=state.stopped)  # a resumed run must stop there as well
    checkpointer.save(state.history)
    state.logger.record(epochs_done=len(state.history), epochs=state.plan.epochs)


def agree_on_stop(state: RunState, trainer: Trainer) -> None:
    """Stops every worker where a callback of one has; every worker must call it."""
    if trainer.greatest(bool(state.stopped)):
        state.stop("stopped by a callback of another worker")


# Validation and prediction

def predict_logits(trainer: Trainer, images: Split) -> npt.NDArray[np.float32]:
    """Logits of a split, float32 [images, classes]."""
    if not images.count:
        return np.zeros((0, trainer.confusion.shape[0]), np.float32)
    batches, rows = pipeline.evaluation_batches(trainer.strategy, images, trainer.plan)
    with bad_records_named(images, trainer.strategy):
        return trainer.logits(batches, rows)


def valid_scores(trainer: Trainer, data: Data, logits: npt.NDArray[np.float32],
                 further: Mapping[str, Any]) -> Scores:
    """Loss and scores of the validation set, and further metrics by name; empty without images."""
    labels = data.valid.table.labels
    if not len(labels):
        return {}
    loss = float(np.mean(trainer.loss(tf.constant(labels), tf.constant(logits)).numpy(),
                         dtype=np.float64))
    matrix = metrics.confusion_matrix(labels, logits.argmax(-1), len(data.names))
    return metrics.epoch_scores("valid", loss, matrix) | metrics.further(
        further, matrix, labels, softmax(logits.astype(np.float64), axis=-1))


def predict(state: RunState, checkpointer: Checkpointer, data: Data, all_gather: workers.AllGather
            ) -> None:
    """Writes predictions, probabilities and the model, with the weights chosen by `results.use`."""
    config, trainer, last = state.config, checkpointer.trainer, len(state.history) - 1
    used = metrics.best_epoch(state.history) if config.results.use == "best" else last
    assert used is not None
    if used != last:
        checkpointer.load_epoch(used)
    state.probabilities = softmax(predict_logits(trainer, data.valid), axis=-1)
    test = load_test(config.dataset, data, all_gather)
    test_logits = predict_logits(trainer, replace(data.valid, table=test)) if test else None
    if not state.is_chief:
        return
    store.write_array(state.folder / store.VALID_PROBABILITIES,
                      state.probabilities.astype(np.float16))
    top = {"valid": (data.valid.table.ids, state.probabilities)}
    if test is not None and test_logits is not None:
        probabilities, predicted = test_rows(test, test_logits, data.counts)
        store.write_array(state.folder / store.TEST_PROBABILITIES, probabilities)
        store.write_json(state.folder / store.TEST_PREDICTIONS, predicted)
        store.write_submission(state.folder, test.all_ids, predicted)
        top["test"] = (test.all_ids, probabilities)
        state.logger.info(f"predictions: {len(predicted)} test images in {store.SUBMISSION}, by "
                          f"the weights of epoch {used + 1} ({config.results.use})")
    else:
        state.logger.info("no test predictions: the data set has no test split")
    store.write_top_classes(state.folder, data.names, top)
    try:
        with store.atomic_write(state.folder / store.MODEL) as partial:
            layers.portable(trainer.model).save(partial)
    except (RuntimeError, tf.errors.OpError) as error:  # h5py and TensorFlow on a full disk
        raise UserError(f"{state.folder / store.MODEL} cannot be written ({error}): make room, "
                        "then rerun the command") from error


def test_rows(test: tables.Table, logits: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]
              ) -> tuple[npt.NDArray[np.float16], list[int]]:
    """Probabilities float16 [records, classes] and class ids of the test split, from the logits
    float32 [readable records, classes] and the training images of each class, int64 [classes].

    An unreadable record gets the most common class of the training set, with probability 1.
    """
    commonest = np.eye(len(counts), dtype=np.float16)[counts.argmax()]
    probabilities = np.tile(commonest, (len(test.kept), 1))
    probabilities[test.kept] = softmax(logits, axis=-1)
    predicted = np.full(len(test.kept), counts.argmax())
    predicted[test.kept] = logits.argmax(-1)
    return probabilities, predicted.tolist()

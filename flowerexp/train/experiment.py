"""One run from top to bottom: data, plan, model, epochs, predictions."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import softmax

from flowerexp import identity, metrics
from flowerexp.augment import base
from flowerexp.config import Config, Dataset
from flowerexp.data import batching, issues, pipeline, records, sampling, sources
from flowerexp.data.batching import Plan
from flowerexp.data.issues import DataIssue, Labels
from flowerexp.data.pipeline import Split
from flowerexp.data.records import ReadSpec, Table
from flowerexp.data.sources import Source
from flowerexp.errors import UserError, counted
from flowerexp.models import backbones, build, layers, losses, optimizers, schedules
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.runs.store import Scores
from flowerexp.strategy import factory, workers
from flowerexp.strategy.workers import AllGather
from flowerexp.train import checkpoint, pictures
from flowerexp.train.checkpoint import Checkpointer, CompletedEpochs
from flowerexp.train.events import Events
from flowerexp.train.trainer import Trainer

GIB = 2**30


@dataclass(frozen=True)
class Data:
    """The labelled splits of a run, as its pipeline feeds them."""

    source: Source
    names: tuple[str, ...]
    """Of the classes, in label order; numbers where the data set has no names."""
    cache: str
    """decoded | encoded | none"""
    train: Split
    valid: Split
    skipped: tuple[DataIssue, ...] = ()
    """Of every split, what dataset.on_bad_record=skip left out."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 [classes], training images of each class."""
        return np.bincount(self.train.table.labels, minlength=len(self.names))


def run(config: Config, folder: Path, logger: RunLogger, stop: Callable[[], int]) -> int:
    """Trains, validates and predicts, going on from the folder's last checkpoint.

    Args:
        config: of the run.
        folder: of the run; only the chief writes it.
        journal: the run's voice.
        stop: asked between calls of the compiled loop; the exit code to save and end with, or 0.
            Of several workers' codes the greatest ends them all.

    Returns:
        0 where the run is finished, else the code that `stop` ended it with.

    Raises:
        UserError: for data, weights or sizes that do not fit, or a loss that is not finite.
    """
    strategy, sentence = factory.build_strategy(config.hardware)
    logger.info(f"hardware: {sentence}")
    logger.record(hardware=sentence)
    # With a table every worker keeps all; without one it reads its own files, here as in training.
    all_gather = (workers.for_hardware(config.hardware, strategy) if config.dataset.cache == "none"
                  else workers.single_process)
    data = load_data(config.dataset, logger, all_gather)
    numbers, augment = derive(config, data.source, data.counts, pipeline.count_workers(strategy),
                              strategy.num_replicas_in_sync)
    provenance = {**asdict(numbers),
                 "data": sources.fingerprint(data.source, data.counts.tolist(), data.skipped)}
    checkpoint.check_provenance(folder, logger, provenance)
    for line in batching.sentences(config, numbers, data.counts):
        logger.info(line)
    logger.info(augment.sentence if augment else "augmentation: none")
    trainer = build_trainer(config, strategy, numbers, data, logger)
    checkpointer = Checkpointer(folder, logger, trainer,
                                identity.keys(identity.plain(config)) | provenance,
                                config.loop.checkpoint_minutes)
    completed = checkpointer.restore_latest(data.valid.count, len(data.names))
    checkpointer.check_workers_in_sync()
    code = train(config, checkpointer, lambda: int(trainer.greatest(stop())), data, augment,
                 completed)
    if code == 0:
        predict(config, checkpointer, data, completed, all_gather)
    return code


def derive(config: Config, source: Source, counts: npt.NDArray[np.integer], worker_count: int,
           replicas: int) -> tuple[Plan, base.Augment | None]:
    """The numbers and the augmentation that follow; raises UserError where they do not fit.

    Args:
        counts: int [classes], training images of each class.
    """
    numbers = batching.derive(config, counts, worker_count, replicas)
    augment = base.build(config.augmentation, config.seed, numbers.batch_size)
    if augment is not None:
        augment.check(numbers.per_replica_batch, source.image_size)
    return numbers, augment


def load_data(dataset: Dataset, logger: RunLogger,
              all_gather: AllGather = workers.single_process) -> Data:
    """Finds and reads the labelled splits, decoded where the config's memory allows it."""
    source = sources.find(dataset, all_gather)
    logger.info(source.reason)
    labelled, names, skipped = sources.read_labelled(source, dataset.cache != "none",
                                                      dataset.on_bad_record, all_gather)
    images = sum(len(table.labels) for table in labelled)
    decoded_bytes = images * source.image_size**2 * 3
    cache = dataset.cache
    if source.arrays:
        if cache == "none":
            raise UserError("dataset.cache=none streams files, and this data set is arrays in "
                            "memory: leave it out")
        cache = "decoded"
    elif cache == "auto":
        cache = "decoded" if decoded_bytes <= dataset.memory_gb * GIB else "encoded"
    train, valid = (as_images(table, source, dataset, cache) for table in labelled)
    kept = {"decoded": f"decoded images in memory ({decoded_bytes / GIB:.2f} GiB)",
            "encoded": "encoded images in memory", "none": "images streamed from the files"}[cache]
    logger.info(f"data: {train.count} training and {valid.count} validation images of "
                f"{source.image_size}x{source.image_size} pixels, {len(names)} classes, in "
                f"{source.folder}; {kept}")
    logger.record(data={"folder": source.folder, "kind": source.kind, "cache": cache,
                         "image_size": source.image_size, "classes": len(names),
                         "train": train.count, "val": valid.count})
    skips = dataset.on_bad_record == "skip"
    logger.record(skipped=issues.skipped_status(skipped) if skips else None)
    if skips:
        logger.info(issues.skipped_sentence(skipped))
    return Data(source, names, cache, train, valid, skipped)


def as_images(table: Table, source: Source, dataset: Dataset, cache: str) -> Split:
    """A labelled split as the pipeline feeds it, decoded if the cache says so."""
    images = Split(table, source.image_size, shuffle_bytes=dataset.memory_gb * GIB)
    if cache != "decoded":
        return images
    try:
        return pipeline.cache_decoded(images)
    except tf.errors.OpError as error:
        raise_fault(images, True, error)
        raise


def raise_fault(images: Split, labelled: bool, error: Exception, strategy: Any = None) -> None:
    """Raises UserError if the error comes of a record of this split.

    Under a strategy, of one that this process reads.
    """
    if images.table.skipped is not None:  # its bad records were left out: it comes of another thing
        return
    files = pipeline.files_here(strategy, images) if strategy else images.table.files
    spec = ReadSpec(images.image_size, Labels.REQUIRED if labelled else Labels.ABSENT)
    if issue := records.first_issue(files, spec):
        raise UserError(issue) from error


def build_trainer(config: Config, strategy: Any, numbers: Plan, data: Data,
                  logger: RunLogger) -> Trainer:
    """Model, optimizer and loss under the strategy."""
    with strategy.scope():
        model = build.build(config.model, data.source.image_size, len(data.names),
                             config.hardware.precision, config.seed)
        rates = schedules.learning_rates(config.schedule, numbers.updates, config.loop.lr_scaling)
        optimizer = optimizers.build(config.optimizer.algorithm, rates, config.hardware.precision)
    everything, trained = build.parameter_counts(model)
    backbone = config.model.backbone
    logger.info(f"model: {backbones.name_of(backbone)}, {everything:,} parameters, {trained:,} of "
                f"them trainable; weights {backbones.weights_of(backbone)}, input scaling "
                f"{config.model.input_scaling}")
    if config.model.summary:
        model.summary(expand_nested=True, print_fn=lambda text, **_: logger.info(text))
    return Trainer(strategy, model, optimizer, losses.bind(config.loss, data.counts), numbers,
                   sampling.class_weights(data.counts, config.sampling), config.seed,
                   config.optimizer.clip_norm, config.hardware.jit_compile)


def train(config: Config, checkpointer: Checkpointer, stop: Callable[[], int], data: Data,
          augment: base.Augment | None, completed: CompletedEpochs) -> int:
    """The epochs that are left, added to the past; the code where `stop` ended them, else 0.

    Fewer than planned where validation F1 has not risen for `loop.patience` epochs.
    """
    folder, logger, trainer = checkpointer.folder, checkpointer.logger, checkpointer.trainer
    numbers, patience = trainer.plan, config.loop.patience
    if logger.is_chief:
        store.write_classes(folder, data.names, data.counts.tolist())
        store.write_json(folder / store.VALID_LABELS, data.valid.table.labels.tolist())
        store.write_json(folder / store.VALID_IDS, list(data.valid.table.ids))
    events = Events(folder, config, numbers, data.valid.table.labels, len(data.names), completed
                    ) if logger.is_chief else None
    batches = pipeline.training_batches(trainer.strategy, data.train, config.sampling, numbers,
                                        config.seed, augment)
    with logger.progress(numbers.updates * numbers.update_size,
                          int(trainer.update.numpy()) * numbers.update_size) as advance:
        # Patience is asked of the history alone, so that a run that goes on ends where it would.
        while (epoch := len(completed.history)) < numbers.epochs and not metrics.should_stop_early(
                completed.history, patience):
            for done in train_epoch(config, folder, trainer, data, batches, epoch):
                advance(f"epoch {epoch + 1}/{numbers.epochs}", done * numbers.update_size,
                        lambda: scores_so_far(trainer))
                if code := stop():
                    break
                inside = int(trainer.update.numpy()) % numbers.updates_per_epoch
                if checkpointer.is_due() and inside:
                    checkpointer.save(completed)
            if int(trainer.update.numpy()) < (epoch + 1) * numbers.updates_per_epoch:
                checkpointer.save(completed)
                return code
            row = end_epoch(checkpointer, data, completed)
            last = (epoch + 1 == numbers.epochs
                    or metrics.should_stop_early(completed.history, patience))
            if events:
                events.write(epoch, row, completed.predictions[-1])
            sentence = f"epoch {epoch + 1} of {numbers.epochs}: {describe(row)}"
            shown = ((epoch + 1) % config.loop.log_interval == 0 or epoch == 0 or last
                     or not logger.is_interactive)
            (logger.info if shown else logger.debug)(sentence)
            if (code := stop()) and not last:
                return code
    if events:
        events.close()
    if len(completed.history) < numbers.epochs:
        early = (f"stopped early after epoch {len(completed.history)} of {numbers.epochs}: "
                 f"validation F1 has not risen for {counted(patience or 0, 'epoch')} "
                 "(loop.patience)")
        logger.debug(early)
        logger.record(stopped_early=early)  # said with the summary
    return 0


def scores_so_far(trainer: Trainer) -> tuple[float, float]:
    """Training loss and accuracy of the epoch so far."""
    progress = trainer.progress()
    return progress.loss, float(progress.confusion.trace() / progress.confusion.sum())


def train_epoch(config: Config, folder: Path, trainer: Trainer, data: Data,
                batches: Callable[[int, int], Any], epoch: int) -> Iterator[int]:
    """The updates of an epoch that are left; yields their number after each call of the loop."""
    numbers = trainer.plan
    start = int(trainer.update.numpy()) - epoch * numbers.updates_per_epoch
    if start == 0:
        trainer.start_epoch()
    try:
        for done in trainer.train(batches(epoch, start), numbers.updates_per_epoch - start,
                                  config.loop.steps_per_execution):
            raise_bad_loss(trainer, folder)
            yield done
    except tf.errors.InvalidArgumentError as error:
        raise_fault(data.train, True, error, trainer.strategy)
        raise


def end_epoch(checkpointer: Checkpointer, data: Data, completed: CompletedEpochs) -> Scores:
    """Validates, and writes the epoch's results and then its checkpoint; returns its row.

    In this order, a run that is killed between the two does the epoch once more.
    """
    folder, logger, trainer = checkpointer.folder, checkpointer.logger, checkpointer.trainer
    progress = trainer.progress()
    row = metrics.epoch_scores("train", progress.loss, progress.confusion)
    logits = predict_logits(trainer, data.valid, True)
    row |= valid_scores(trainer, data, logits)
    row["train timing"] = progress.seconds
    completed.history.append(row)
    completed.predictions.append(logits.argmax(-1).tolist())
    if logger.is_chief:
        store.write_history(folder, completed.history)
        store.write_predictions(folder, completed.predictions)
    checkpointer.save(completed)
    logger.record(epochs_done=len(completed.history), epochs=trainer.plan.epochs)
    return row


def raise_bad_loss(trainer: Trainer, folder: Path) -> None:
    update = trainer.first_bad_update()
    if update is not None:
        epoch, inside = divmod(update, trainer.plan.updates_per_epoch)
        raise UserError(
            f"the loss is NaN or infinite from update {update} on (epoch {epoch + 1}, update "
            f"{inside} of {trainer.plan.updates_per_epoch}, counted from 0): lower schedule.max_lr "
            f"or set optimizer.clip_norm; what was saved before stays in {folder}")


def predict_logits(trainer: Trainer, images: Split, labelled: bool) -> npt.NDArray[np.float32]:
    """float32 [images, classes] of a split."""
    batches, rows = pipeline.evaluation_batches(trainer.strategy, images, trainer.plan)
    try:
        return trainer.logits(batches, rows)
    except tf.errors.InvalidArgumentError as error:
        raise_fault(images, labelled, error, trainer.strategy)
        raise


def valid_scores(trainer: Trainer, data: Data, logits: npt.NDArray[np.float32]) -> Scores:
    """Loss and scores of the validation set."""
    labels = data.valid.table.labels
    loss = float(np.mean(trainer.loss(tf.constant(labels), tf.constant(logits)).numpy(),
                         dtype=np.float64))
    matrix = metrics.confusion_matrix(labels, logits.argmax(-1), len(data.names))
    return metrics.epoch_scores("valid", loss, matrix)


def predict(config: Config, checkpointer: Checkpointer, data: Data, completed: CompletedEpochs,
            all_gather: AllGather) -> None:
    """Predictions, probabilities, pictures and the model, of the weights that `results.use` says.
    """
    folder, logger, trainer = checkpointer.folder, checkpointer.logger, checkpointer.trainer
    history = completed.history
    best = metrics.best_epoch(history)
    assert best is not None
    used = best if config.results.use == "best" else len(history) - 1
    if used != len(history) - 1:
        checkpointer.load_epoch(used)
    logits = predict_logits(trainer, data.valid, True)
    test = load_test(config.dataset, data, all_gather)
    test_logits = predict_logits(trainer, Split(test, data.source.image_size),
                                 False) if test else None
    labels, chances = data.valid.table.labels, softmax(logits.astype(np.float64), axis=-1)
    mistaken = pipeline.pick(data.valid, pictures.worst_mistakes(labels, chances), all_gather)
    if not logger.is_chief:
        return
    store.write_array(folder / store.VALID_PROBABILITIES, metrics.softmax(logits))
    if test is not None and test_logits is not None:
        probabilities, predicted = test_rows(test, test_logits, data.counts)
        store.write_array(folder / store.TEST_PROBABILITIES, probabilities)
        store.write_json(folder / store.TEST_PREDICTIONS, predicted)
        store.write_submission(folder, test.all_ids, predicted)
        logger.info(f"predictions: {len(predicted)} test images in {store.SUBMISSION}, by the "
                    f"weights of epoch {used + 1} ({config.results.use})")
    else:
        logger.info("predictions: none, for the data set has no test folder")
    try:
        with store.atomic_write(folder / store.MODEL) as partial:
            layers.portable(trainer.model).save(partial)
    except (RuntimeError, tf.errors.OpError) as error:  # h5py and TensorFlow on a full disk
        raise UserError(f"{folder / store.MODEL} cannot be written ({error}): make room and run "
                        "the same command again") from error
    pictures.draw(folder, logger, history, data.names, data.counts, labels, chances, mistaken)


def load_test(dataset: Dataset, data: Data, all_gather: AllGather = workers.single_process
              ) -> Table | None:
    """The test split, which is decoded as it is read, or None where the data set has none."""
    if "test" not in data.source.splits:
        return None
    return sources.read_split(data.source, "test", data.cache != "none", dataset.on_bad_record,
                               all_gather)


def test_rows(test: Table, logits: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]
              ) -> tuple[npt.NDArray[np.float16], list[int]]:
    """Probabilities float16 [test records, classes] and class ids of every test record.

    One that could not be read is the commonest class of the training set, with probability 1.

    Args:
        logits: float32 [readable records, classes].
        counts: int64 [classes], training images of each class.
    """
    commonest = np.eye(len(counts), dtype=np.float16)[counts.argmax()]
    probabilities = records.scatter_rows(metrics.softmax(logits), test.kept, commonest)
    predicted = records.scatter_rows(logits.argmax(-1), test.kept, counts.argmax())
    return probabilities, predicted.tolist()


def describe(row: Scores) -> str:
    """An epoch's metrics in a line."""
    def of(prefix: str) -> str:
        return ", ".join(f"{name} {'undefined' if value is None else format(value, '.4f')}"
                         for name in ("loss", *metrics.NAMES)
                         for value in [row[f"{prefix} {name}"]])

    return f"train {of('train')}; valid {of('valid')}; {row['train timing']:.1f} s"

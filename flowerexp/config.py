"""The typed schema of a run: one dataclass per config group, every value checked with a sentence.

`Config` is the whole; a group's fields are its keys on the command line. No TensorFlow here.
"""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Union

from omegaconf import MISSING

from flowerexp.errors import UserError

# OmegaConf reads these annotations at run time and knows typing.Union, not X | Y, of primitives.
IntegerOrText = Union[int, str]  # noqa: UP007

MOST_EPOCHS = 100_000
"""So that the table of learning rates fits in memory."""
LONGEST_NAME = 200
"""Bytes of a run's name; file systems take 255, and `fresh` adds a number."""


@dataclass
class Hardware:
    kind: str = "auto"
    """auto | cpu | gpu | tpu | workers"""
    replicas: int | None = None
    """How many replicas; null: one on the CPU, every GPU there is."""
    precision: str = "float32"
    """float32 | mixed_bfloat16 | mixed_float16"""
    jit_compile: bool = False
    """Compile forward, loss and backward with XLA (on a TPU everything always is)."""
    tpu_name: str | None = None
    """Name of the TPU, or `local` on a TPU VM; null: the one the environment names."""
    tpu_zone: str | None = None
    tpu_project: str | None = None

    def __post_init__(self) -> None:
        one_of("hardware.kind", self.kind, ("auto", "cpu", "gpu", "tpu", "workers"))
        one_of("hardware.precision", self.precision,
               ("float32", "mixed_bfloat16", "mixed_float16"))
        if self.replicas is not None:
            at_least("hardware.replicas", self.replicas, 1)
            if self.kind in ("tpu", "workers"):
                raise UserError(f"hardware.replicas has no meaning with hardware={self.kind}, "
                                "which takes every core it is given: leave it out")
        for key in ("tpu_name", "tpu_zone", "tpu_project"):
            if getattr(self, key) is not None and self.kind not in ("auto", "tpu"):
                raise UserError(f"hardware.{key} has no meaning with hardware={self.kind}: "
                                "choose hardware=tpu or leave it out")


@dataclass
class Dataset:
    kind: str = "auto"
    """auto | sample | flowers | tfrecords"""
    root: str | None = None
    """Folder (local or gs://) with train, val and test, or with tfrecords-jpeg-SxS folders."""
    image_size: int | None = None
    """Height and width in pixels; null: the only size that the root holds."""
    num_classes: int | None = None
    """Number of classes; null: that of class_names, else the greatest label and one."""
    class_names: Any = None
    """List of names in label order, or the path of a text file with one a line; null: numbers."""
    cache: str = "auto"
    """auto | decoded | encoded | none: what is kept in memory."""
    memory_gb: float = 4.0
    """Memory for images: decoded ones up to it in `auto`, the shuffle buffer in `none`."""
    on_bad_record: str = "stop"
    """stop | skip: whether a record that is wrong ends the run or is left out of it."""

    def __post_init__(self) -> None:
        one_of("dataset.kind", self.kind, ("auto", "sample", "flowers", "tfrecords"))
        one_of("dataset.cache", self.cache, ("auto", "decoded", "encoded", "none"))
        one_of("dataset.on_bad_record", self.on_bad_record, ("stop", "skip"))
        if self.image_size is not None:
            at_least("dataset.image_size", self.image_size, 1)
        if self.num_classes is not None:
            at_least("dataset.num_classes", self.num_classes, 1)
        finite("dataset.memory_gb", self.memory_gb)
        if self.memory_gb <= 0:
            raise UserError(f"dataset.memory_gb must be greater than 0, not {self.memory_gb}")
        names = self.class_names
        if isinstance(names, list):
            if not all(isinstance(name, str) for name in names) or not names:
                raise UserError("dataset.class_names must be a list of texts in label order")
            if self.num_classes not in (None, len(names)):
                raise UserError(f"dataset.class_names holds {len(names)} names where "
                                f"dataset.num_classes says {self.num_classes}")
        elif not isinstance(names, str | None):
            raise UserError("dataset.class_names must be a list of texts or the path of a text "
                            "file")
        if self.kind == "tfrecords" and self.root is None:
            raise UserError("dataset.root must say where the TFRecords are: dataset=tfrecords "
                            "dataset.root=FOLDER")


@dataclass
class Model:
    name: str = MISSING
    """The backbone's name in its library, for example EfficientNetB7."""
    source: str = "keras"
    """flowerexp | keras | efficientnet: the library that builds it."""
    weights: str | None = None
    """imagenet | noisy-student (EfficientNet) | null for random ones | path of a weight file."""
    input_scaling: str = "unit"
    """raw | unit | symmetric | imagenet | preprocess_input: what the backbone is fed."""
    dropout: float = 0.05
    """Dropout between the backbone and the head."""
    trainable: bool = True
    """false freezes the backbone, BatchNorm included."""
    summary: bool = False
    """Print Keras' table of layers."""
    alpha: float | None = None
    """Width multiplier of MobileNet."""
    learning_rate: float = 1e-5
    """The rate that suits this model; schedule.max_lr takes it unless told otherwise."""

    def __post_init__(self) -> None:
        one_of("model.source", self.source, ("flowerexp", "keras", "efficientnet"))
        one_of("model.input_scaling", self.input_scaling,
               ("raw", "unit", "symmetric", "imagenet", "preprocess_input"))
        finite("model.dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout must be at least 0 and under 1, not {self.dropout}")
        if self.alpha is not None and not self.name.startswith("MobileNet"):
            raise UserError(f"model.alpha has no meaning for {self.name}: leave it out or choose "
                            "model=mobilenet")
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise UserError(f"model.alpha must be greater than 0, not {self.alpha}")
        if self.source != "efficientnet" and self.weights == "noisy-student":
            raise UserError(f"model.weights=noisy-student exists for EfficientNet only, not for "
                            f"{self.name}: choose imagenet, null or a path")
        if self.source == "flowerexp" and self.weights == "imagenet":
            raise UserError(f"model.weights=imagenet does not exist for {self.name}: choose null "
                            "or a path")
        if self.source != "keras" and self.input_scaling == "preprocess_input":
            raise UserError("model.input_scaling=preprocess_input exists for models of "
                            "keras.applications only: choose raw, unit, symmetric or imagenet")
        positive("model.learning_rate", self.learning_rate)


@dataclass
class Sampling:
    kind: str = "original"
    """original | oversample | class_weight"""
    target_count: int | None = None
    """N: how often a class with fewer images is seen in an epoch (oversample only)."""

    def __post_init__(self) -> None:
        one_of("sampling.kind", self.kind, ("original", "oversample", "class_weight"))
        if self.kind == "oversample":
            if self.target_count is None:
                raise UserError("sampling.target_count must say to how many images a class is "
                                "raised: sampling=oversample sampling.target_count=200")
            at_least("sampling.target_count", self.target_count, 1)
        elif self.target_count is not None:
            raise UserError(f"sampling.target_count has no meaning with sampling={self.kind}: "
                            "choose sampling=oversample")


@dataclass
class Loop:
    epochs: int = 30
    batch_size_per_replica: int = 16
    """Images in a micro-batch of one replica."""
    eval_batch_size_per_replica: int = 64
    gradient_accumulation_steps: int = 1
    """Micro-batches in an update of one replica."""
    steps_per_execution: IntegerOrText = "epoch"
    """Updates in a call of the compiled loop: a number, or `epoch` for slices of ten seconds."""
    lr_scaling: float = 1.0
    """Factor of every learning rate."""
    keep_example_budget: bool = False
    """Fewer epochs where sampling makes them longer: about as many images seen in all."""
    log_interval: int = 10
    """Metrics are printed at the first, the last and every log_interval-th epoch."""
    checkpoint_minutes: float | None = None
    """Minutes after which a checkpoint is made inside an epoch; null: at the end of epochs only."""
    max_minutes: float | None = None
    """Minutes after which a run, or a sweep as a whole, stops and can go on later; null: never."""
    patience: int | None = None
    """Stop when validation F1 has not risen for so many epochs; null: never."""

    def __post_init__(self) -> None:
        for key in ("checkpoint_minutes", "max_minutes"):
            if getattr(self, key) is not None:
                positive(f"loop.{key}", getattr(self, key))
        if self.patience is not None:
            at_least("loop.patience", self.patience, 1)
        for key in ("epochs", "batch_size_per_replica", "eval_batch_size_per_replica",
                    "gradient_accumulation_steps", "log_interval"):
            at_least(f"loop.{key}", getattr(self, key), 1)
        if self.epochs > MOST_EPOCHS:
            raise UserError(f"loop.epochs must be at most {MOST_EPOCHS}, not {self.epochs}")
        positive("loop.lr_scaling", self.lr_scaling)
        if self.steps_per_execution != "epoch":
            if isinstance(self.steps_per_execution, str):
                raise UserError("loop.steps_per_execution must be a number of updates or `epoch`, "
                                f"not '{self.steps_per_execution}'")
            at_least("loop.steps_per_execution", self.steps_per_execution, 1)


@dataclass
class Schedule:
    kind: str = "constant"
    """constant | exponential | linear | cosine: the way from max_lr to end_lr."""
    start_lr: float | None = None
    """Learning rate of the first update; null: a hundredth of max_lr."""
    max_lr: float = 1e-5
    """Learning rate at the end of the warm-up."""
    end_lr: float | None = None
    """Learning rate towards which the schedule decays; null: max_lr."""
    warmup: float = 0.2
    """Share of the updates in which the rate rises linearly from start_lr to max_lr."""

    def __post_init__(self) -> None:
        one_of("schedule.kind", self.kind, ("constant", "exponential", "linear", "cosine"))
        positive("schedule.max_lr", self.max_lr)
        for key in ("start_lr", "end_lr"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"schedule.{key} must be at least 0, not {value}")
        finite("schedule.warmup", self.warmup)
        if not 0 <= self.warmup <= 1:
            raise UserError(f"schedule.warmup is a share of the updates, from 0 to 1, not "
                            f"{self.warmup}")
        if self.kind == "constant" and self.end_lr not in (None, self.max_lr):
            raise UserError(f"schedule.end_lr={self.end_lr:g} contradicts schedule=constant, which "
                            f"ends at schedule.max_lr={self.max_lr:g}: leave it out or choose "
                            "schedule=exponential, linear or cosine")
        if self.kind == "exponential" and self.end_lr == 0:
            raise UserError("schedule.end_lr must be greater than 0 with schedule=exponential, "
                            "which never reaches 0: choose schedule=linear or cosine")


@dataclass
class Optimizer:
    kind: str = "adam"
    """adam | adamw | sgd"""
    beta_1: float | None = None
    beta_2: float | None = None
    epsilon: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    weight_decay: float | None = None
    """Decoupled weight decay: a weight loses this share times the learning rate in an update."""
    clip_norm: float | None = None
    """Greatest global norm of the gradient of an update, summed over micro-batches and replicas."""

    def __post_init__(self) -> None:
        of_adam = ("beta_1", "beta_2", "epsilon")
        meaning = {"adam": of_adam, "adamw": of_adam, "sgd": ("momentum", "nesterov")}
        one_of("optimizer.kind", self.kind, tuple(meaning))
        check_supported_keys("optimizer", self, (*meaning[self.kind], "weight_decay", "clip_norm"))
        for key in ("beta_1", "beta_2", "momentum"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"optimizer.{key} must be at least 0 and under 1, not {value}")
        for key in ("epsilon", "clip_norm"):
            if getattr(self, key) is not None:
                positive(f"optimizer.{key}", getattr(self, key))
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise UserError(f"optimizer.weight_decay must be at least 0, not {self.weight_decay}")


@dataclass
class Loss:
    kind: str = "cross_entropy"
    """cross_entropy | focal | logit_adjusted"""
    label_smoothing: float | None = None
    """Share of a label spread over all classes (cross_entropy)."""
    gamma: float | None = None
    """How much less an easy example counts (focal)."""
    tau: float | None = None
    """How much a rare class is favoured (logit_adjusted)."""

    def __post_init__(self) -> None:
        meaning = {"cross_entropy": "label_smoothing", "focal": "gamma", "logit_adjusted": "tau"}
        one_of("loss.kind", self.kind, tuple(meaning))
        check_supported_keys("loss", self, (meaning[self.kind],))
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise UserError("loss.label_smoothing must be at least 0 and under 1, not "
                            f"{self.label_smoothing}")
        for key in ("gamma", "tau"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"loss.{key} must be at least 0, not {value}")


@dataclass
class ResultsOptions:
    use: str = "last"
    """last | best: whose weights make test_preds.json, submission.csv and model.keras."""

    def __post_init__(self) -> None:
        one_of("results.use", self.use, ("last", "best"))


@dataclass
class Config:
    seed: int = 0
    """Changes order, initial weights, augmentation and dropout, and nothing else."""
    name: str | None = None
    """Folder below outputs/; null: made of the experiment or the changed keys, and the seed."""
    fresh: bool = False
    """Start anew beside an existing folder: name.2, name.3 and so on."""
    compared_with: list[str] = field(default_factory=list)
    """Experiments that this one is to be held against."""
    dry_run: bool = False
    """Print what would be run, with its numbers, and stop."""
    on_failure: str = "continue"
    """continue | stop: what a sweep does after a job that failed."""
    hardware: Hardware = field(default_factory=Hardware)
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: dict[str, Any] = field(default_factory=dict)
    """Transforms in the order they are applied, each with its parameters."""
    loop: Loop = field(default_factory=Loop)
    schedule: Schedule = field(default_factory=Schedule)
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Loss = field(default_factory=Loss)
    results: ResultsOptions = field(default_factory=ResultsOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed must be from 0 to {2**31 - 1}, not {self.seed}")
        if self.name is not None:
            check_name(self.name)
        one_of("on_failure", self.on_failure, ("continue", "stop"))


def check_name(name: str) -> None:
    """Raises UserError for a name that cannot be a folder below outputs/."""
    if not name.strip() or name in (".", "..") or re.search(r"[\\/\x00-\x1f]", name):
        raise UserError(f"name must be a folder name without slashes, not '{name}': use "
                        "hydra.run.dir=PATH for another place")
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"name must be of {LONGEST_NAME} bytes or fewer, as file systems allow, "
                        f"not {len(name.encode())}")


def one_of(key: str, value: str, options: tuple[str, ...]) -> None:
    """Raises UserError with the nearest of `options` where `value` is none of them."""
    if value not in options:
        raise UserError(f"{key} must be one of {', '.join(options)}, not '{value}'"
                        + nearest(value, options))


def at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{key} must be at least {least}, not {value}")


def finite(key: str, value: float) -> None:
    if not math.isfinite(value):
        raise UserError(f"{key} must be a finite number, not {value}")


def positive(key: str, value: float) -> None:
    finite(key, value)
    if value <= 0:
        raise UserError(f"{key} must be greater than 0, not {value}")


def check_supported_keys(group: str, options: Any, meaningful: tuple[str, ...]) -> None:
    """Raises UserError for a key that is set and that the group's kind does not use."""
    for key, value in vars(options).items():
        if key != "kind" and key not in meaningful and value is not None:
            raise UserError(f"{group}.{key} has no meaning with {group}={options.kind}, which uses "
                            f"{', '.join(meaningful)}: leave it out")


def nearest(value: str, options: Iterable[str]) -> str:
    """`; did you mean X?` for the option nearest to `value`, or an empty text."""
    close = difflib.get_close_matches(str(value), [str(option) for option in options], 1, 0.5)
    return f"; did you mean '{close[0]}'?" if close else ""

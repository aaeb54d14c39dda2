"""The typed schema of a run: one dataclass per config group, which validates its values.

`Config` is the whole config; a group's fields are its keys on the command line. No TensorFlow here.
"""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, Union

from flowerexp.errors import UserError
from flowerexp.hints import nearest

# OmegaConf reads these annotations at run time and knows typing.Union, not X | Y, of primitives.
IntegerOrText = Union[int, str]  # noqa: UP007

MOST_EPOCHS = 100_000
"""The most epochs, so that the table of learning rates fits in memory."""
LONGEST_NAME = 200
"""The most bytes of a run's name; file systems allow 255, and `fresh` adds a number."""


def key(default: Any, *options: str, **bounds: float) -> Any:
    """A field whose value is one of the options, or within the bounds of `check_range`."""
    return field(default=default, metadata={"options": options, "bounds": bounds})


class Checked:
    """Base of a dataclass that checks each `key`; a group's class has its name in the config."""

    def __post_init__(self) -> None:
        this: Any = self
        is_group = type(self).__module__ == __name__ and not isinstance(self, Common)
        group = f"{type(self).__name__.lower()}." if is_group else ""
        for each in fields(this):
            if options := each.metadata.get("options"):
                one_of(f"{group}{each.name}", getattr(self, each.name), options)
            if bounds := each.metadata.get("bounds"):
                check_range(f"{group}{each.name}", getattr(self, each.name), **bounds)


@dataclass
class Hardware(Checked):
    kind: str = key("auto", "auto", "cpu", "gpu", "tpu", "workers")
    replicas: int | None = key(None, least=1)
    """The number of replicas; null: one on the CPU, all available GPUs."""
    precision: str = key("float32", "float32", "mixed_bfloat16", "mixed_float16")
    """The Keras policy."""
    jit_compile: bool = False
    """Compile forward, loss and backward with XLA (always the case on a TPU)."""
    tpu_name: str | None = None
    """Name of the TPU, or `local` on a TPU VM; null: the one the environment names."""
    tpu_zone: str | None = None
    tpu_project: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replicas is not None and self.kind in ("tpu", "workers"):
            raise UserError(f"hardware.replicas has no meaning with hardware={self.kind}, which "
                            "takes every core it is given: leave it out")
        for name in ("tpu_name", "tpu_zone", "tpu_project"):
            if getattr(self, name) is not None and self.kind not in ("auto", "tpu"):
                raise UserError(f"hardware.{name} has no meaning with hardware={self.kind}: "
                                "choose hardware=tpu or leave it out")


@dataclass
class Dataset(Checked):
    """How a data set is divided, cached and fed; all other keys of the group belong to its source.
    """

    source: Any = None
    """The part that `dataset._target_` names: it finds the data."""
    cache: str = key("auto", "auto", "decoded", "encoded", "none")
    """What is kept in memory."""
    memory_gb: float = key(4.0, above=0)
    """Memory for images: decoded ones up to it in `auto`, the shuffle buffer in `none`."""
    on_bad_record: str = key("stop", "stop", "skip")
    """Whether a bad record ends the run or is left out."""
    resize: str = key("crop", "crop", "pad", "stretch")
    """How images of another size or shape become squares of dataset.image_size."""
    exif: bool = True
    """Rotate and mirror photos as the orientation in their EXIF data says."""
    validation: float | None = key(None, above=0, below=1)
    """Share of train to validate with; null: the data's own validation split, else 0.15."""
    folds: int | None = key(None, least=2)
    """The number of stratified folds of the pooled images; null: no folds."""
    fold: int | None = key(None, least=0)
    """The fold to validate with, from 0; the others are trained on."""
    pool: str = key("train", "train", "train+val")
    """The splits that are divided."""
    split_seed: int = key(0, least=0, most=2**31 - 1)
    """Seed of validation, folds and long_tail."""
    group_pattern: str | None = None
    """A regular expression on ids; its first group (else its match) names what an image shows, and
    images of one such thing stay on one side of every division."""
    groups: str | None = None
    """A CSV with the columns id and group, as `data check --near` writes it, for the same."""
    long_tail: float | None = key(None, above=1)
    """Keep an exponential profile of the training images: the largest class over the smallest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds is None and self.fold is not None:
            raise UserError(f"dataset.fold={self.fold} needs dataset.folds, the number of folds")
        if self.folds is not None:
            if self.validation is not None:
                raise UserError("dataset.folds and dataset.validation exclude each other: a fold "
                                "is the validation split")
            every = ",".join(map(str, range(min(self.folds, 10))))
            if self.fold is None:
                raise UserError(f"dataset.folds={self.folds} needs dataset.fold, the fold to "
                                f"validate with, or all of them: -m dataset.fold={every}")
            if self.fold >= self.folds:
                raise UserError(f"dataset.fold={self.fold} does not exist: with dataset.folds="
                                f"{self.folds} it is one of {every}")
        elif self.pool != "train" and self.validation is None:
            raise UserError(f"dataset.pool={self.pool} needs dataset.folds or dataset.validation, "
                            "which divide it")
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise UserError(f"dataset.group_pattern={self.group_pattern} is no regular expression: "
                            f"{error}") from error


@dataclass
class Model(Checked):
    """The network around a backbone; all other keys of the group belong to the backbone."""

    backbone: Any = None
    """The part that `model._target_` names: image_size -> Keras model, images -> feature map."""
    head: Any = None
    """The part that `model.head._target_` names: (features, num_classes) -> logits."""
    input_scaling: str = key("unit", "raw", "unit", "symmetric", "imagenet", "preprocess_input")
    """Scaling of the backbone's inputs."""
    dropout: float = key(0.05, least=0, below=1)
    """Dropout between the backbone and the head."""
    trainable: bool = True
    """false freezes the backbone, BatchNorm included."""
    summary: bool = False
    """Print Keras' table of layers."""
    learning_rate: float = key(1e-5, above=0)
    """The learning rate that suits this model, the default of schedule.max_lr."""


@dataclass
class Optimizer(Checked):
    """An optimizer and its gradient clipping; all other keys of the group are the optimizer's."""

    algorithm: Any = None
    """The part that `optimizer._target_` names: learning_rate -> Keras optimizer."""
    clip_norm: float | None = key(None, above=0)
    """Maximum global norm of an update's gradient, summed over micro-batches and replicas."""


@dataclass
class Loop(Checked):
    epochs: int = key(30, least=1)
    batch_size_per_replica: int = key(16, least=1)
    """Images in a micro-batch of one replica."""
    eval_batch_size_per_replica: int = key(64, least=1)
    gradient_accumulation_steps: int = key(1, least=1)
    """Micro-batches per update of one replica."""
    steps_per_execution: IntegerOrText = "epoch"
    """Updates per call of the compiled loop: a number, or `epoch` for slices of ten seconds."""
    lr_scaling: float = key(1.0, above=0)
    """Factor of every learning rate."""
    keep_example_budget: bool = False
    """Train fewer epochs if sampling makes them longer, so that about as many images are seen."""
    log_interval: int = key(10, least=1)
    """Epochs between printed metrics on a terminal, which also shows those of the first and the
    last epoch. A pipe and run.log get the metrics of every epoch."""
    checkpoint_minutes: float | None = key(None, above=0)
    """Minutes between checkpoints within an epoch; null: checkpoints at the end of epochs only."""
    max_minutes: float | None = key(None, above=0)
    """Minutes after which a run, or a whole sweep, stops and can be resumed; null: never."""
    patience: int | None = key(None, least=1)
    """Epochs without a higher validation F1 after which training stops; null: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("loop.epochs", self.epochs, most=MOST_EPOCHS)
        if isinstance(self.steps_per_execution, int):
            check_range("loop.steps_per_execution", self.steps_per_execution, 1)
        elif self.steps_per_execution != "epoch":
            raise UserError("loop.steps_per_execution must be a number of updates or `epoch`, not "
                            f"'{self.steps_per_execution}'")


@dataclass
class Results(Checked):
    use: str = key("last", "last", "best")
    """The epoch whose weights give test_preds.json, submission.csv and model.keras."""


@dataclass
class Common(Checked):
    """The keys of a run whose types are fixed."""

    seed: int = key(0, least=0, most=2**31 - 1)
    """Seed of the order, initial weights, augmentation and dropout, and of nothing else."""
    name: str | None = None
    """Folder below outputs/; null: built from the experiment or the changed keys, and the seed."""
    fresh: bool = False
    """Start a new run next to an existing folder: name.2, name.3 and so on."""
    compared_with: list[str] = field(default_factory=list)
    """Experiments that are the baselines of this one."""
    dry_run: bool = False
    """Print the plan of the run or sweep, with its numbers, and exit."""
    train_on: str = key("train", "train", "all")
    """What is trained on; `all` includes the validation images, and validates with none."""
    on_failure: str = key("continue", "continue", "stop")
    """What a sweep does after a failed job."""
    hardware: Hardware = field(default_factory=Hardware)
    loop: Loop = field(default_factory=Loop)
    results: Results = field(default_factory=Results)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is not None:
            checked_name(self.name)


@dataclass
class Schema(Common):
    """What Hydra composes; groups of parts are open, because every part has keys of its own."""

    dataset: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass
class Config(Common):
    """A checked config. Parts are objects, or `parts.Part` if they are imported later."""

    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    sampling: Any = None
    augmentation: dict[str, Any] = field(default_factory=dict)
    """Transforms by name, in the order in which they are applied."""
    schedule: Any = None
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Any = None
    callbacks: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    """Further validation metrics, by their name in the history."""


PARTS = ("sampling", "schedule", "loss")
"""Groups that are one part."""
TYPED = {"dataset": (Dataset, "source"), "model": (Model, "backbone"),
         "optimizer": (Optimizer, "algorithm")}
"""Groups of typed keys around a part: the class, and its field for the part, which takes all other
keys of the group."""
NAMED_PARTS = ("augmentation", "callbacks", "metrics")
"""Groups of several parts, each under its name."""


def checked_name(name: str) -> str:
    """The name; raises UserError for one that cannot be a folder below outputs/."""
    if not name.strip() or name in (".", "..") or re.search(r"[\\/\x00-\x1f]", name):
        raise UserError(f"name must be a folder name without slashes, not '{name}': use "
                        "hydra.run.dir=PATH for another place")
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"name must be of {LONGEST_NAME} bytes or fewer, as file systems allow, "
                        f"not {len(name.encode())}")
    return name


def one_of(key: str, value: str, options: tuple[str, ...]) -> None:
    """Raises UserError, with the nearest option, for a `value` that is not in `options`."""
    if value not in options:
        raise UserError(f"{key} must be one of {', '.join(options)}, not '{value}'"
                        + nearest(value, options))


def check_range(key: str, value: float | None, least: float = -math.inf, most: float = math.inf, *,
                above: float = -math.inf, below: float = math.inf) -> None:
    """Raises UserError for a number that is not finite or out of the bounds; None passes."""
    if value is None:
        return
    if not -math.inf < value < math.inf:
        raise UserError(f"{key} must be a finite number, not {value}")
    if not (least <= value <= most and above < value < below):
        bounds = {"at least": least, "greater than": above, "at most": most, "under": below}
        texts = [f"{words} {bound}" for words, bound in bounds.items() if math.isfinite(bound)]
        if {least, most}.isdisjoint((-math.inf, math.inf)):
            texts = [f"from {least} to {most}"]
        raise UserError(f"{key} must be {' and '.join(texts)}, not {value}")

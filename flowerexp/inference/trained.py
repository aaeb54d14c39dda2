"""Finished runs as models: which weights they predict with, and the Keras model that holds them.

Code that a file or a folder names runs only if it is trusted. TensorFlow is imported on first use.
"""

import contextlib
import itertools
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowerexp import identity, metrics, parts
from flowerexp.config import Config, Hardware, one_of
from flowerexp.errors import UserError, first_line
from flowerexp.lazy import tf
from flowerexp.runs import reader, store
from flowerexp.runs.status import RunStatus
from flowerexp.strategy import factory

HARMLESS = ("math.", "nn.", "__operators__.", "cast")
"""TensorFlow functions that legacy Keras backbones call by name; others may access files."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run and its chosen weights.

    provenance: the numbers of its plan and the fingerprint of its data.
    names: the class names in label order.
    image_size: height and width in pixels; None if only the saved model tells.
    weights: the chosen epoch: best | last
    epoch: the epoch of the weights, counted from 0.
    saved: whether the folder's model.keras holds these weights; otherwise a checkpoint does.
    trust_code: whether the user's own code that the run names may be imported.
    """

    folder: Path
    config: Config
    provenance: dict[str, Any]
    names: tuple[str, ...]
    image_size: int | None
    weights: str
    epoch: int
    saved: bool
    trust_code: bool = False

    def __str__(self) -> str:
        return f"{self.folder}, weights of epoch {self.epoch + 1} ({self.weights})"


def find(folder: Path, weights: str | None = None, trust_code: bool = False) -> TrainedRun:
    """Finds a finished run and the weights to predict with.

    Args:
        folder: the run folder.
        weights: best | last; None for the run's `results.use`.
        trust_code: whether code that the run names may be imported, if its model needs it.

    Raises:
        UserError: for a folder that holds no run, a run that is not finished, or a missing
            model.keras that should hold the weights.
    """
    if weights is not None:
        one_of("weights", weights, reader.EPOCHS)
    config = store.read_config(folder)
    status = RunStatus.load(folder)
    state, history = reader.state_of(folder, status), store.read_history(folder)
    if state != "done":
        planned = status.epochs or config.loop.epochs
        raise UserError(f"the run {folder} is not finished ({state}, {len(history)} of {planned} "
                        f"epochs): resume it with `python -m flowerexp resume {folder}`")
    names = store.read_classes(folder)[0]
    best = metrics.best_epoch(history)
    if not names or not history or not status.provenance:
        raise UserError(f"{folder} is incomplete: {store.CLASSES}, {store.HISTORY} or the "
                        f"provenance in {store.STATUS} is missing; restore it, or train again "
                        "with fresh=true")
    wanted = weights or config.results.use
    if best is None and wanted == "best":
        raise UserError(f"{folder} has no best epoch, because it was trained on all images and "
                        "validated with none: leave weights=best out")
    epochs = {"best": best or 0, "last": len(history) - 1}
    saved = epochs[wanted] == epochs[config.results.use]
    if saved and not (folder / store.MODEL).is_file():
        raise UserError(f"{folder / store.MODEL} is missing, which holds the run's weights: "
                        "restore it, or train again with fresh=true")
    if trust_code:
        parts.add_import_paths(status.code_path)
    return TrainedRun(folder, config, status.provenance, tuple(names), status.image_size, wanted,
                      epochs[wanted], saved, trust_code)


def find_all(folders: Sequence[Path], weights: str | None = None, trust_code: bool = False
             ) -> list[TrainedRun]:
    """Finds runs that can predict together: of the same classes, of any image sizes.

    Raises:
        UserError: see `find`; also for runs of different classes.
    """
    if not folders:
        raise UserError("no run folder is given: name at least one")
    found = [find(folder, weights, trust_code) for folder in folders]
    first = found[0]
    for other in found[1:]:
        pairs = itertools.zip_longest(first.names, other.names, fillvalue="none")
        for label, (one, another) in enumerate(pairs):
            if one != another:
                raise UserError(f"{first.folder} and {other.folder} cannot be averaged, because "
                                f"class {label} is {one} in the first and {another} in the second: "
                                "give runs of the same classes")
    return found


def load(run: TrainedRun) -> tuple[Any, int]:
    """Loads the model of a run with its chosen weights, and its image size in pixels.

    It is on the first GPU, whose memory grows on demand as in training, or on the CPU.

    Returns:
        A Keras model, images [n, size, size, 3], 0 to 255 -> float32 logits [n, classes], made of
        Keras layers only.

    Raises:
        UserError: for a model that cannot be read or contains code, or a missing checkpoint.
    """
    factory.prepare(Hardware("cpu"))
    with contextlib.suppress(RuntimeError):  # this process has used them, and keeps its own rule
        factory.growing_gpus()
    model = (load_model(run.folder / store.MODEL, run.trust_code) if run.saved
             else load_checkpoint(run))
    shape, outputs = model.input_shape, model.output_shape[-1]
    if len(shape) != 4 or None in shape[1:] or shape[1] != shape[2] or outputs != len(run.names):
        raise UserError(f"{run.folder / store.MODEL} takes {shape} and gives {outputs} classes, "
                        f"where {store.CLASSES} names {len(run.names)}: it is of another run")
    return model, int(shape[1])


def load_model(path: Path, trust_code: bool = False) -> Any:
    """Loads a Keras model from a .keras file, without running code that the file contains.

    Args:
        path: the .keras file.
        trust_code: whether the classes of other packages that the model names may be imported.

    Raises:
        UserError: for any other file, or one that contains or names code.
    """
    try:
        # Legacy Keras reads any other file of this name by paths without a safe mode.
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            version = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a model saved by Keras ({error}): restore the file that "
                        "the run wrote, or train again with fresh=true") from error
    objects: dict[str, Any] = {}
    for code in foreign_code(config):
        module, _, name = code.rpartition(".")
        foreign = f"{path} asks for code that is not of Keras ({code})"
        # A Lambda, or an operation of TensorFlow that may write files.
        if not module or module.partition(".")[0] == "tf":
            raise UserError(f"{foreign}, which is never run: restore the file that the run wrote")
        if not trust_code:
            raise UserError(f"{foreign}: look at it, and give --trust-code (in Python "
                            "trust_code=True) to run it")
        objects[name] = parts.locate("model", code)
    legacy = tf.keras.Model.__module__.startswith("tf_keras")
    if version.startswith("2.") != legacy:
        raise UserError(f"{path} was saved by Keras {version}: "
                        + ("leave TF_USE_LEGACY_KERAS out of the environment" if legacy else
                           "set TF_USE_LEGACY_KERAS=1, with the package tf_keras installed"))
    try:
        return tf.keras.models.load_model(path, custom_objects=objects, compile=False,
                                          safe_mode=True)
    except Exception as error:  # Keras, h5py and each layer raise their own
        raise UserError(f"{path} cannot be loaded ({first_line(error)}): restore the "
                        "file that the run wrote, or train again with fresh=true") from error


def foreign_code(config: Any) -> Iterator[str]:
    """Yields the code in a saved model's config that is neither Keras' nor a registered layer.

    Keras' own safe mode refuses a Lambda of Python code; legacy Keras accepts functions of any
    module that can be imported (CVE-2025-1550).
    """
    if isinstance(config, list):
        yield from itertools.chain.from_iterable(map(foreign_code, config))
    if not isinstance(config, dict):
        return
    name, inner = str(config.get("class_name")), config.get("config")
    module, registered = str(config.get("module") or "keras"), str(config.get("registered_name"))
    ours = name != "function" and tf.keras.utils.get_registered_object(registered) is not None
    if module.partition(".")[0] not in ("keras", "tf_keras", "builtins") and not ours:
        yield f"{module}.{inner if name == 'function' else name}"
    if name in ("Lambda", "__lambda__"):
        yield "a Lambda layer"
    if name.endswith("OpLambda") and isinstance(inner, dict):
        function = str(inner.get("function", ""))
        if not function.startswith(HARMLESS):
            yield f"tf.{function}"
    yield from itertools.chain.from_iterable(map(foreign_code, config.values()))


def load_checkpoint(run: TrainedRun) -> Any:
    """Loads the model of a run with the weights of a checkpoint."""
    from flowerexp.models import build, layers  # these import TensorFlow
    from flowerexp.train import checkpoint

    config, update = run.config, (run.epoch + 1) * int(run.provenance["updates_per_epoch"])
    if damage := checkpoint.find_damage(run.folder, update):
        other = "last" if run.weights == "best" else "best"
        raise UserError(f"the checkpoint {checkpoint.folder_of(run.folder, update)} of the "
                        f"{run.weights} epoch, {run.epoch + 1}, cannot be read ({damage}): "
                        f"{store.MODEL} holds the {other} epoch's weights, which "
                        f"--weights {other} takes")
    size = run.image_size
    if size is None:
        size = load_model(run.folder / store.MODEL, run.trust_code).input_shape[1]
    parts.check_trusted((config.model.backbone, config.model.head), run.trust_code)
    # The code of the model may have changed since; other parts are not of interest.
    now = identity.sources(config) if run.trust_code else {}
    expected = identity.keys(identity.plain(config)) | run.provenance | {
        key: value for key, value in now.items() if key.startswith("source of model")}
    backbone = parts.replace(config.model.backbone, weights=None)
    model = build.build(replace(config.model, backbone=backbone), size, len(run.names),
                        config.hardware.precision, config.seed)
    checkpoint.restore(tf.train.Checkpoint(model=model), run.folder, update, expected)
    return layers.portable(model)

"""Loads the Keras model of a finished run; code in a file runs only if it is trusted."""

import itertools
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from flowerexp import identity, parts
from flowerexp.errors import UserError, first_line
from flowerexp.inference import trained
from flowerexp.inference.trained import TrainedRun
from flowerexp.models import build, layers
from flowerexp.runs import store
from flowerexp.train import checkpoint

HARMLESS = ("math.", "nn.", "__operators__.", "cast")
"""TensorFlow functions that legacy Keras backbones call by name; others may access files."""


def load(run: TrainedRun) -> tuple[Any, int]:
    """Loads the model of a run with its chosen weights, and its image size in pixels.

    Returns:
        A Keras model, images [n, size, size, 3], 0 to 255 -> float32 logits [n, classes], made of
        Keras layers only.

    Raises:
        UserError: for a model that cannot be read or contains code, or a missing checkpoint.
    """
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
        # A Lambda, or an operation of TensorFlow that may write files.
        if not module or module.partition(".")[0] == "tf":
            raise UserError(f"{path} asks for code that is not of Keras ({code}), which is never "
                            "run: restore the file that the run wrote")
        if not trust_code:
            raise UserError(f"{path} asks for code that is not of Keras ({code}): look at it, and "
                            "give --trust-code (in Python trust_code=True) to run it")
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
    update = (run.epoch + 1) * int(run.provenance["updates_per_epoch"])
    damage = checkpoint.find_damage(run.folder, update)
    if damage:
        other = "last" if run.weights == "best" else "best"
        raise UserError(f"the checkpoint {checkpoint.folder_of(run.folder, update)} of the "
                        f"{run.weights} epoch, {run.epoch + 1}, cannot be read ({damage}): "
                        f"{store.MODEL} holds the {other} epoch's weights, which "
                        f"--weights {other} takes")
    size = run.image_size
    if size is None:
        size = load_model(run.folder / store.MODEL, run.trust_code).input_shape[1]
    config = run.config
    parts.check_trusted((config.model.backbone, config.model.head), run.trust_code)
    now = identity.sources(config) if run.trust_code else {}  # code may have changed since
    backbone = parts.replace(config.model.backbone, weights=None)
    model = build.build(replace(config.model, backbone=backbone), size, len(run.names),
                         config.hardware.precision, config.seed)
    checkpoint.restore(tf.train.Checkpoint(model=model), run.folder, update,
                       trained.identity_of(run) | {
                           key: value for key, value in now.items()
                           if key.startswith("source of model")})
    return layers.portable(model)

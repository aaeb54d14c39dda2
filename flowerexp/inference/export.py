"""Export of a finished run: a SavedModel from JPEG bytes to classes, and a .keras file."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowerexp.data import resizing
from flowerexp.errors import UserError, first_line
from flowerexp.inference import trained
from flowerexp.inference.trained import TrainedRun
from flowerexp.lazy import tf
from flowerexp.runs import store

SAVED_MODEL = "saved_model"
CONTENTS = {SAVED_MODEL, store.MODEL, store.CLASSES}
"""The file names in an export."""
STEPS = 3
"""The number of steps that `write` reports."""


def classifier(model: Any, size: int, names: tuple[str, ...], exif: bool = True,
               resize: str = "crop") -> Any:
    """The tf.Module to save: the weights, and functions of TensorFlow's own operations.

    Args:
        model: Keras model, images [n, size, size, 3], 0 to 255 -> logits [n, classes].
        size: height and width in pixels.
        names: the class names in label order.
        exif: whether JPEGs are turned as the orientation in their EXIF data says.
        resize: how images become squares, see `resizing.square`.
    """
    def class_names() -> dict[str, Any]:
        return {"class_names": tf.constant(names)}

    def classify(jpeg: Any) -> dict[str, Any]:
        images = tf.map_fn(
            lambda data: resizing.square(resizing.decode(data, exif), size, resize), jpeg,
            fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))
        logits = model(images, training=False)
        probabilities = tf.nn.softmax(logits)
        class_id = tf.argmax(logits, -1)
        return {"class_id": class_id, "class_name": tf.gather(tf.constant(names), class_id),
                "probability": tf.reduce_max(probabilities, -1), "probabilities": probabilities}

    saved = tf.Module("classifier")
    # Only the variables: a Keras model would be saved with all of its Keras objects.
    saved.weights = [weight if callable(weight.value) else weight.value  # tf_keras, Keras 3
                     for weight in model.weights]
    saved.classify = tf.function(classify, input_signature=[
        tf.TensorSpec([None], tf.string, name="jpeg")])
    saved.class_names = tf.function(class_names, input_signature=[])
    return saved


def check_folder(out: Path) -> None:
    """Raises UserError unless `out` does not exist, is empty, or holds an earlier export."""
    if out.is_dir():
        names = {each.name for each in out.iterdir()}
        others = sorted(names - CONTENTS)
        if names and names != CONTENTS:
            problem = (f"holds {others[0]}, which is not part of an export" if others
                       else f"is not a whole export, since {min(CONTENTS - names)} is missing")
            raise UserError(f"{out} {problem}: give a folder that does not exist, is empty, or is "
                            "an earlier export")
        if out.resolve() == Path.cwd() or out.is_mount():
            raise UserError(f"{out} is the current folder or a mount point, which cannot be "
                            "replaced: give a folder in it")
    elif out.exists() or out.is_symlink():
        raise UserError(f"{out} is a file: give a folder that does not exist")


def write(run: TrainedRun, out: Path, advance: Callable[[], object] = lambda: None) -> None:
    """Writes a folder with `saved_model`, `model.keras` and `classes.json`, whole or not at all.

    The SavedModel's signature serving_default takes `jpeg`, string [n]: images of any size, in a
    format that `resizing.decode` reads (JPEGs are turned as their EXIF orientation says, unless the
    run has dataset.exif=false). It returns `class_id` int64 [n], `class_name` string [n],
    `probability` float32 [n] and `probabilities` float32 [n, classes]; the signature class_names
    takes no arguments and returns `class_names` string [classes].

    Args:
        run: a finished run with its chosen weights.
        out: a folder that is new, empty, or an earlier export, which is replaced.
        advance: called after each of STEPS steps.

    Raises:
        UserError: for a folder of anything else, for a full disk, and see `trained.load`.
    """
    check_folder(out)
    out = out.resolve()  # a link to an earlier export is kept
    model, size = trained.load(run)
    advance()
    out.parent.mkdir(parents=True, exist_ok=True)
    # Next to the final folder, so that two renames publish the export.
    place = Path(tempfile.mkdtemp(prefix=f".partial-{out.name}-", dir=out.parent))
    try:
        partial = place / "new"
        partial.mkdir()
        dataset = run.config.dataset
        saved = classifier(model, size, run.names, dataset.exif, dataset.resize)
        tf.saved_model.save(saved, str(partial / SAVED_MODEL), signatures={
            "serving_default": saved.classify, "class_names": saved.class_names})
        advance()
        model.save(partial / store.MODEL)
        shutil.copyfile(run.folder / store.CLASSES, partial / store.CLASSES)
        assert {each.name for each in partial.iterdir()} == CONTENTS
        if out.exists():
            out.rename(place / "old")
        try:
            partial.rename(out)
        except BaseException:
            if (place / "old").exists():
                (place / "old").rename(out)
            raise
        advance()
    except (RuntimeError, tf.errors.OpError) as error:  # h5py and TensorFlow on a full disk
        raise UserError(f"{out} cannot be written ({first_line(error)}): make room and "
                        "rerun the command") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)

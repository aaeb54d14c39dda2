"""Proof: every backbone of conf/model is built, has the published size, takes a training step, and
is saved so that it loads with Keras alone, to the same logits.

Run it from the checkout: python tests/proofs/backbones.py [OPTION ... | all]. Without an option,
the smallest of each family does all of it, and the others are built and counted; with `all`, every
one does. Each in a process of its own, for memory, and two at a time. No weights are downloaded.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import forked

ROOT = Path(__file__).parents[2]
SIZE, CLASSES = 96, 5
# Parameters without the top, of keras.io/api/applications and of the package efficientnet.
PUBLISHED = {
    "xception": 20_861_480, "densenet121": 7_037_504, "densenet169": 12_642_880,
    "densenet201": 18_321_984, "resnet50v2": 23_564_800, "resnet101v2": 42_626_560,
    "resnet152v2": 58_331_648, "inceptionv3": 21_802_784, "inceptionresnetv2": 54_336_736,
    "efficientnet_b0": 4_049_564, "efficientnet_b1": 6_575_232, "efficientnet_b2": 7_768_562,
    "efficientnet_b3": 10_783_528, "efficientnet_b4": 17_673_816, "efficientnet_b5": 28_513_520,
    "efficientnet_b6": 40_960_136, "efficientnet_b7": 64_097_680, "mobilenet": 3_228_864,
    "keras_application": 23_587_712,  # with model.name=ResNet50
}
SMALLEST = ("inceptionresnetv2", "densenet121", "efficientnet_b0", "inceptionv3", "xception",
            "resnet50v2", "keras_application", "mobilenet")
LOADER = """
import sys
sys.modules["flowerexp"] = sys.modules["efficientnet"] = None  # importing them now fails
import numpy as np, tensorflow as tf
model = tf.keras.models.load_model("model.keras", compile=False, safe_mode=True)
np.testing.assert_array_equal(model(np.load("images.npy")), np.load("logits.npy"))
"""


def prove(option: str, place: str) -> None:
    """Builds one backbone and holds its size; with a place, its logits and its gradient too."""
    import numpy as np
    import tensorflow as tf

    from flowerexp import composition
    from flowerexp.models import build, layers

    composition.register()
    overrides = [f"model={option}", "model.weights=null"]
    overrides += ["model.name=ResNet50"] * (option == "keras_application")
    config = composition.check(composition.compose(overrides))
    model = build.build(config.model, SIZE, CLASSES)
    features = model.get_layer("pool").output.shape[-1]
    everything, _ = build.parameter_counts(model)
    head = features * CLASSES + CLASSES
    assert everything - head == PUBLISHED[option], (option, everything - head)
    if not place:
        return
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    with layers.dropout_key(0, tf.constant(0, tf.int64)), tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_sum(logits**2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert logits.shape == (2, CLASSES)
    assert logits.dtype == tf.float32
    assert all(gradient is not None and np.isfinite(gradient.numpy()).all()
               for gradient in gradients)
    assert any(abs(gradient.numpy()).max() > 0 for gradient in gradients[:2])
    layers.portable(model).save(Path(place, "model.keras"))
    np.save(Path(place, "images.npy"), images)
    np.save(Path(place, "logits.npy"), model(images))


def start(option: str, whole: bool) -> str:
    """Proves a backbone in processes of its own, and says so."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        done = [forked.run([__file__, "--one", option, place if whole else ""], ROOT,
                           timeout=900)]
        if whole and not done[0].returncode:
            done.append(forked.run(["-c", LOADER], place))
    if done[-1].returncode:
        raise SystemExit(f"{option}: {done[-1].stderr}")
    return (f"{option}: {PUBLISHED[option]:,} parameters{', one step, saved' * whole}, "
            f"{time.monotonic() - begun:.0f} s")


def main(options: list[str]) -> None:
    there = {path.stem for path in (ROOT / "conf/model").glob("*.yaml")} - {"small_cnn"}
    assert there == set(PUBLISHED), there ^ set(PUBLISHED)
    whole = [*PUBLISHED] if options == ["all"] else options or [*SMALLEST]
    counted = [] if options else [option for option in PUBLISHED if option not in SMALLEST]
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(start, whole + counted, [True] * len(whole) + [False] * len(counted)):
            print(line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        prove(*sys.argv[2:])
    else:
        main(sys.argv[1:])

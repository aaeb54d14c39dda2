"""Proof: plain, accumulated, replicated, mixed and resumed runs agree, under either Keras.

Run it from the checkout: python tests/proofs/kerases.py. Whole runs as processes on a small drawn
data set, with Keras 3 and with TF_USE_LEGACY_KERAS=1: a frozen MobileNet (pretrained where
../shared is there), which has neither BatchNorm in training nor dropout, ends within 1e-5 in
everything on one, two and four replicas and accumulated; a network with both has the same trainable
weights on one, two and four; runs on four replicas, and on two in mixed_float16, that are stopped
and executed again end bit for bit as if they had not been; EfficientNetB0 of the package trains in
mixed_bfloat16, and the tests of precision hold. The 13 validation and 3 test images divide by no
step. Both Kerases at a time; four minutes on two cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import forked
from tests.processes import command, history_of, read, write_tiny

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT.parent / "shared/weights/mobilenet_2_5_224_tf_no_top.h5"
PIXELS, TOLERANCE = 32, 1e-5
LEGACY, PRECISION = "tf_keras", "tests/strategy/test_precision.py"
STOPPED = 75
"""The exit code of a run whose loop.max_minutes are over."""
# Adam would magnify rounding.
SGD = ("loop.epochs=2", "optimizer=sgd", "schedule.max_lr=0.01", "schedule.start_lr=0.01")
FROZEN = (*SGD, "model=mobilenet", "model.alpha=0.25", "model.trainable=false", "model.dropout=0",
          f"model.weights={WEIGHTS if WEIGHTS.exists() else 'null'}")
# Masks and pairs are those of a micro-batch, which is therefore of two images everywhere.
BOTH = (*SGD, "model=small_cnn", "model.dropout=0.5", "augmentation=[flip,cutmix]",
        "loop.steps_per_execution=1")


def layout(replicas: int, batch: int, accumulation: int = 1) -> tuple[str, ...]:
    return ("hardware=cpu", f"hardware.replicas={replicas}",
            f"loop.batch_size_per_replica={batch}", f"loop.eval_batch_size_per_replica={batch}",
            f"loop.gradient_accumulation_steps={accumulation}", "callbacks=none")


FOUR = (*BOTH, *layout(4, 2))
FLOAT16 = ("loop.epochs=2", "model.dropout=0.5", "loop.steps_per_execution=1", *layout(2, 4),
           "hardware.precision=mixed_float16")
RUNS = {
    "efficientnet": ("loop.epochs=1", *layout(1, 8), "model=efficientnet_b0", "model.weights=null",
                     "hardware.precision=mixed_bfloat16"),
    "float16 resumed": FLOAT16, "four resumed": FOUR,
    "float16": FLOAT16, "norm four": FOUR, "norm two": (*BOTH, *layout(2, 2, 2)),
    "norm accumulated": (*BOTH, *layout(1, 2, 4)),
    "plain": (*FROZEN, *layout(1, 8)), "accumulated": (*FROZEN, *layout(1, 4, 2)),
    "two": (*FROZEN, *layout(2, 4)), "four": (*FROZEN, *layout(4, 2)),
}


class Runs:
    """The runs of one Keras, as folders."""

    def __init__(self, place: Path, title: str) -> None:
        self.place, self.title, self.folder = place, title, place / title

    def run(self, name: str) -> None:
        words = command(self.place / "data", *RUNS[name], f"hydra.run.dir={self.folder / name}")
        begun = 0
        if name.endswith("resumed"):  # the first update is far from the last
            self.process([*words, "loop.max_minutes=0.0001"], STOPPED)
            begun = 1
        output = self.process(words, 0)
        assert output.count("resuming from") == begun, output

    def process(self, words: list[str], code: int) -> str:
        done = forked.run(words[1:], self.place, timeout=900)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def rows(self, name: str) -> dict[str, dict[str, float]]:
        return history_of(self.folder / name)

    def array(self, name: str, file: str) -> np.ndarray:
        return np.load(self.folder / name / file)


def sane(runs: Runs, name: str) -> None:
    """The run ends well, and every result is there, of the right size, and a number."""
    runs.run(name)
    run = runs.folder / name
    rows = runs.rows(name)
    assert all(np.isfinite(value) for row in rows.values() for value in row.values())
    assert [len(row) for row in read(run, "valid_preds.json").values()] == [13] * len(rows)
    for split, count in (("valid", 13), ("test", 3)):
        probabilities = runs.array(name, f"{split}_probs.npy")
        assert probabilities.shape == (count, 3)
        np.testing.assert_allclose(probabilities.sum(1, dtype=float), 1, atol=2e-3)
    assert read(run, "test_preds.json") == runs.array(name, "test_probs.npy").argmax(1).tolist()
    assert read(run, "status.json")["state"] == "done"


def equal(runs: Runs, *names: str) -> None:
    """Every metric within the tolerance, predictions the same, and every variable."""
    for name in names[1:]:
        for epoch, row in runs.rows(names[0]).items():
            other = runs.rows(name)[epoch]
            assert other == pytest.approx(row, rel=TOLERANCE, abs=TOLERANCE), (name, other, row)
        for split in ("valid", "test"):  # in steps of float16
            np.testing.assert_allclose(runs.array(name, f"{split}_probs.npy"),
                                       runs.array(names[0], f"{split}_probs.npy"), atol=1e-3)
        same_variables(runs, names[0], name)


def trained_equal(runs: Runs, *names: str) -> None:
    """The training metrics and all that is trained; statistics of BatchNorm are others."""
    for name in names[1:]:
        for epoch, row in runs.rows(names[0]).items():
            other = {key: runs.rows(name)[epoch][key] for key in row if key.startswith("train ")}
            assert other == pytest.approx({key: row[key] for key in other}, rel=TOLERANCE,
                                          abs=TOLERANCE), name
        same_variables(runs, names[0], name, statistics=False)


def resumed(runs: Runs, straight: str, again: str) -> None:
    """Bit for bit."""
    assert runs.rows(straight) == runs.rows(again)
    for file in ("valid_preds.json", "test_preds.json", "submission.csv", "valid_probs.npy",
                 "test_probs.npy"):
        assert (runs.folder / straight / file).read_bytes() == (
            runs.folder / again / file).read_bytes(), file
    same_variables(runs, straight, again, tolerance=0)


def same_variables(runs: Runs, one: str, other: str, statistics: bool = True,
                   tolerance: float = TOLERANCE) -> None:
    """The variables of the last checkpoints: model, optimizer, loss scale, confusion matrix."""
    left, right = (variables_of(runs.folder / name, statistics) for name in (one, other))
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], rtol=0, atol=tolerance, err_msg=name)


def variables_of(run: Path, statistics: bool) -> dict[str, np.ndarray]:
    last = tf.train.load_checkpoint(str(max((run / "checkpoints").glob("update-*")) / "state"))
    variables = {name.partition("/.ATTRIBUTES")[0]: last.get_tensor(name)
                 for name in last.get_variable_to_shape_map() if "VARIABLE_VALUE" in name}
    del variables["seconds"]
    assert "confusion" in variables
    kept = {name: value for name, value in variables.items() if statistics or not any(
        word in name for word in ("moving_", "non_trainable"))}
    assert statistics or len(variables) - len(kept) == 8, sorted(variables)  # two a BatchNorm
    return kept


CLAIMS = {
    "one, two and four replicas and accumulation are equal within 1e-5":
        (equal, "plain", "accumulated", "two", "four"),
    "with BatchNorm and dropout, what is trained is":
        (trained_equal, "norm accumulated", "norm two", "norm four"),
    "four replicas are resumed bit for bit": (resumed, "norm four", "four resumed"),
    "mixed_float16 on two replicas is resumed bit for bit": (resumed, "float16",
                                                             "float16 resumed"),
}


def prove(title: str) -> int:
    """Proves the claims with the Keras of this process; returns the number of failures."""
    assert tf.keras.Model.__module__.startswith("tf_keras") == (title == LEGACY)
    failures = 0

    def told(what: str, check: Callable[..., Any], *arguments: Any) -> None:
        nonlocal failures
        try:
            check(*arguments)
            print(f"{title}: {what}", flush=True)
        except Exception as error:
            failures += 1
            print(f"FAILED: {title}: {what}: {error!r}", flush=True)

    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        write_tiny(data, PIXELS)
        max((data / "test").iterdir()).unlink()  # leaves three, fewer than four replicas
        runs = Runs(Path(place), title)
        for name in RUNS:
            told(name, sane, runs, name)
        for what, (compare, *names) in CLAIMS.items():
            told(what, compare, runs, *names)
    if title == LEGACY:
        told(PRECISION, subprocess.check_output, [
            sys.executable, "-m", "pytest", "-q", "-n", "0", str(ROOT / PRECISION)])
    return failures


def main() -> int:
    begun = time.monotonic()
    with subprocess.Popen([sys.executable, __file__, LEGACY],
                          env={**os.environ, "TF_USE_LEGACY_KERAS": "1"}) as legacy:
        failures = prove("Keras 3")
    failures += legacy.returncode
    print(f"{failures} failures; {time.monotonic() - begun:.0f} s")
    return failures > 0


if __name__ == "__main__":
    sys.exit(prove(LEGACY) if sys.argv[1:] == [LEGACY] else main())

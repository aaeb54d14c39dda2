"""Real commands as processes, for the tests of runs and sweeps, and a run in this process."""

import csv
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from typer.testing import CliRunner

from flowerexp import composition
from flowerexp.cli import main
from flowerexp.data import tfrecord
from flowerexp.train import launch
from tests import forked

RUN = Path(__file__).parents[1] / "run.py"
TIMES = ("train timing",)
OTHER_CLOCK = """
import runpy, sys, time
clock = time.perf_counter
time.perf_counter = lambda: {speed} * clock()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a command whose clock goes at another speed, as on a machine that is busier."""


def write_tiny(root, size=16):
    """Writes a data set of three blurred colours: 40 train, 13 val and 7 test images."""
    random = np.random.default_rng(0)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    labels = {"train": np.repeat([0, 1, 2], [24, 11, 5]), "val": np.arange(13) % 3,
              "test": np.arange(7) % 3}
    for split, ids in labels.items():
        noise = random.integers(-60, 55, (len(ids), size, size, 3))
        images = (colours[ids][:, None, None] + noise).astype(np.uint8)
        encoded = [tf.io.encode_jpeg(image, quality=95).numpy() for image in images]
        half = len(ids) // 2
        (root / split).mkdir()
        for number, part in enumerate((slice(None, half), slice(half, None))):
            names = [f"{split}{index}" for index in range(len(ids))[part]]
            file = root / split / f"{number:02d}-{size}x{size}-{len(names)}.tfrec"
            tfrecord.write(file, encoded[part], None if split == "test" else ids[part].tolist(),
                          names)
    return root


def command(root, *overrides):
    """A run of 4 epochs of 10 updates on the tiny data set (without a root, on that of the
    overrides); later overrides win."""
    chosen = {"dataset": "tfrecords", "dataset.root": str(root)} if root else {}
    chosen |= {"loop.epochs": "4", "loop.batch_size_per_replica": "4",
               "loop.eval_batch_size_per_replica": "8", "loop.log_interval": "2"}
    flags = [override for override in overrides if override.startswith("-")]
    chosen |= dict(override.split("=", 1) for override in overrides if override not in flags)
    return [sys.executable, str(RUN), *flags, *(f"{key}={value}" for key, value in chosen.items())]


def has_plugin(overrides):
    """Whether a launcher of Hydra, with a pool of its own, needs a new interpreter."""
    return bool({"hydra/launcher=joblib", "hydra/launcher=submitit_local"} & {*overrides})


def execute(folder, root, *overrides, env=None):
    folder.mkdir(exist_ok=True)
    words = command(root, *overrides)
    if has_plugin(overrides):
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=240,
                              env=env)
    return forked.run(words[1:], folder, env)


def train(folder, root, *overrides):
    """Executes a run in this process; its probabilities are soft, and its F1 falls at its end."""
    composition.register()
    overrides = ["dataset=tfrecords", f"dataset.root='{root}'", "hardware=cpu", "loop.epochs=4",
                 "dataset.class_names=[red,green,blue]", "loop.batch_size_per_replica=4",
                 "loop.eval_batch_size_per_replica=4", "optimizer=sgd", "schedule.max_lr=0.03",
                 "loss.label_smoothing=0.5", *overrides]
    assert launch.execute(folder, composition.compose(overrides), overrides) == 0
    return folder


def command_here(*words):
    """A command in this process: its exit code and all that it printed, a sentence too."""
    done = CliRunner().invoke(main.app, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def begin(place, tiny, *overrides):
    words = command(tiny, *overrides)
    if has_plugin(overrides):
        return subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)
    return forked.Command(words[1:], place)


def read(run, name):
    return json.loads((run / name).read_text())


def history_of(run):
    return {epoch: {key: value for key, value in row.items() if key not in TIMES}
            for epoch, row in read(run, "history.json").items()}


def weights_of(run):
    model = tf.keras.models.load_model(run / "model.keras", compile=False)
    return [variable.numpy() for variable in model.weights]


def same_results(one, other):
    assert history_of(one) == history_of(other)
    for name in ("valid_preds.json", "test_preds.json", "submission.csv", "valid_probs.npy",
                 "test_probs.npy"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for left, right in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(left, right)


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def wait_for_epochs(run, epochs, process):
    wait_for(lambda: process.poll() is not None or (
        (run / "history.json").exists() and len(read(run, "history.json")) >= epochs))


def rows_of(folder):
    """comparison.csv by run, without what is measured in seconds."""
    with (folder / "comparison.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if "second" not in key}
                for row in csv.DictReader(file)]


def free_port():
    """One below those that the system gives to connections, so that none of them takes it."""
    while True:
        port = random.randrange(15000, 30000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def begin_workers(places, root, *overrides, own=((), ()), clocks=(1, 1)):
    """Two workers on the loopback.

    places: working directory of each. own: overrides of each. clocks: speed of each one's clock.
    """
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    workers = []
    for index in range(2):
        words = command(root, "hardware=workers", *overrides, *own[index])[1:]
        if clocks[index] != 1:
            words[:0] = ["-c", OTHER_CLOCK.format(speed=clocks[index])]
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(forked.Command(words, places[index],
                                      {**os.environ, "TF_CONFIG": json.dumps(task)}))
    return workers


def end_workers(workers, seconds=300):
    """[(exit code, output, errors)] of each; kills them if they take longer."""
    end, late = time.monotonic() + seconds, False
    for worker in workers:
        try:
            worker.wait(max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = True
            worker.kill()
    ends = [(worker.wait(), *worker.communicate()) for worker in workers]
    assert not late, f"still running after {seconds} s: {ends}"
    return ends

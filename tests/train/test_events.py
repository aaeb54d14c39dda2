"""What TensorBoard reads of a sweep's folder: a real server, asked over HTTP."""

import itertools
import json
import re
import subprocess
import sys
import threading
import urllib.request
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np
import pytest
import tensorflow as tf

from flowerexp import composition, metrics
from flowerexp.models import schedules
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.train import callbacks, checkpoint, experiment
from tests.processes import wait_for

NAMES = ("straight", "resumed")


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Two runs of 3 epochs of 10 updates, the second of which was stopped in its second epoch.

    Returns the folder above their sweep, and the config by run.
    """
    root = tmp_path_factory.mktemp("outputs")
    configs = {}
    composition.register()
    for seed, name in enumerate(NAMES):
        configs[name] = config = composition.check(composition.compose([
            "dataset=tfrecords", f"dataset.root='{tiny}'", "loop.epochs=3", "hardware=cpu",
            "loop.batch_size_per_replica=4", "loop.steps_per_execution=1", f"seed={seed}",
            "schedule=cosine", "schedule.warmup=0.2", "schedule.end_lr=1e-5",
            "augmentation=[flip]", "callbacks=tensorboard"]))
        run = root / "sweep" / name
        run.mkdir(parents=True)
        for stops in ((16, 0) if name == "resumed" else (0,)):
            asked = iter([False] * stops + [True]) if stops else itertools.repeat(False)
            code = experiment.run(config, run, RunLogger(run), lambda asked=asked: next(asked))
            assert (code == 0) == (stops == 0)
            assert checkpoint.saved_updates(run)[-1] == (stops or 30)
    return root, configs


@pytest.fixture(scope="module")
def ask(runs):
    """A function that asks a real server for JSON, or for bytes where that is no JSON."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs[0]), "--port", "0",
         "--samples_per_plugin", "images=100"], stderr=subprocess.PIPE, text=True)
    said = []
    reader = threading.Thread(target=lambda: said.extend(iter(server.stderr.readline, "")))
    reader.start()

    def address():
        return re.search(r"http://\S+:\d+/", "".join(said))

    def get(path, body=None, **arguments):
        url = f"{address().group()}data/{path}?{urlencode(arguments, quote_via=quote)}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if "json" in answer.headers["Content-Type"] else content

    try:
        wait_for(lambda: address() or server.poll() is not None)
        assert server.poll() is None, said
        wait_for(lambda: set(get("runs")) == {f"sweep/{name}" for name in NAMES})
        wait_for(lambda: all(len(get("plugin/scalars/tags").get(f"sweep/{name}", ())) == 13
                             for name in NAMES))
        yield get
    finally:
        server.terminate()
        server.wait(30)
        reader.join(30)


@pytest.mark.parametrize("name", NAMES)
def test_scalars_are_those_of_the_history_and_no_step_is_doubled(runs, ask, name):
    root, configs = runs
    run, config = f"sweep/{name}", configs[name]
    history = store.read_history(root / run)
    expected = {key.replace(" ", "/"): [row[key] for row in history] for key in history[0]}
    rates = schedules.learning_rates(config.schedule, 30)
    expected["learning_rate"] = [rates[9], rates[19], rates[29]]
    expected["images_per_second"] = [40 / row["train timing"] for row in history]
    assert set(ask("plugin/scalars/tags")[run]) == set(expected)
    for tag, values in expected.items():
        points = ask("plugin/scalars/scalars", run=run, tag=tag)  # wall time, step, value
        assert [step for _, step, _ in points] == [0, 1, 2], tag
        np.testing.assert_allclose([value for *_, value in points], values, rtol=1e-6)


def test_resumed_run_has_one_event_file_without_doubled_steps(runs):
    """TensorBoard would hide them, others that read event files do not."""
    file, = (runs[0] / "sweep/resumed").glob("events.out.tfevents.*")
    steps = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    assert steps.pop("_hparams_/session_start_info") == [0]
    assert steps.pop("_hparams_/session_end_info") == [0]
    assert len(steps) == 14
    assert all(of_tag == [0, 1, 2] for of_tag in steps.values())


@pytest.mark.parametrize("name", NAMES)
def test_picture_of_every_epoch_is_its_confusion_matrix(runs, ask, name):
    folder = runs[0] / "sweep" / name
    entries = ask("plugin/images/images", run=f"sweep/{name}", tag="confusion", sample=0)
    assert [entry["step"] for entry in entries] == [0, 1, 2]
    labels = np.array(store.read_json(folder / store.VALID_LABELS))
    every = store.read_predictions(folder, len(labels))
    for entry, predictions in zip(entries, every, strict=True):
        png = ask("plugin/images/individualImage", **dict(parse_qsl(entry["query"])))
        matrix = metrics.confusion_matrix(labels, predictions, 3)
        np.testing.assert_array_equal(tf.io.decode_png(png), callbacks.confusion_image(matrix))


def test_hparams_are_the_keys_of_each_run_beside_its_final_metrics(runs, ask):
    root, configs = runs
    groups = ask("plugin/hparams/session_groups", body={
        "startIndex": 0, "sliceSize": 10, "allowedStatuses": ["STATUS_SUCCESS"]})["sessionGroups"]
    assert {group["name"] for group in groups} == {f"sweep/{name}" for name in NAMES}
    for group in groups:
        config = configs[group["name"].removeprefix("sweep/")]
        assert group["hparams"] == callbacks.hyperparameters(config)
        assert group["hparams"]["seed"] == config.seed
        assert group["hparams"]["augmentation"] == "['flip']"
        assert group["hparams"]["loop.patience"] == "None"
        assert "name" not in group["hparams"]
        final = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        last = store.read_history(root / group["name"])[-1]
        assert {key: final[key.replace(" ", "/")] for key in last} == pytest.approx(last, rel=1e-6)


def test_the_key_that_differs_is_marked(ask):
    found = ask("plugin/hparams/experiment", body={})["hparamInfos"]
    assert [info["name"] for info in found if info.get("differs")] == ["seed"]
    assert len(found) > 30


# Pixels

def test_image_of_a_matrix_has_a_square_for_every_cell():
    image = callbacks.confusion_image(np.array([[4, 0, 0], [1, 3, 0], [0, 0, 0]]))
    assert image.shape == (300, 300, 3)
    cells = image.reshape(3, 100, 3, 100, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    blue = 255 - cells[:, 0, :, 0].mean(-1)
    assert blue[0, 0] > blue[1, 1] > blue[1, 0] > blue[0, 1]
    assert len({*blue[2].tolist(), blue[0, 1], blue[0, 2], blue[1, 2]}) == 1, "none is white"
    assert callbacks.confusion_image(np.eye(104)).shape == (312, 312, 3)
    assert callbacks.confusion_image(np.eye(1)).shape == (300, 300, 3)

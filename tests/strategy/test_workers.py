"""Two workers as real processes on the loopback (how they end: proofs/workers.py)."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from flowerexp.data import pipeline, records, tfrecord
from flowerexp.data.features import Labels, ReadSpec
from flowerexp.inference import trained
from tests.data.test_records import example, jpeg, write_serialized
from tests.data.test_skipping import flip
from tests.processes import (
    begin_workers,
    end_workers,
    execute,
    history_of,
    read,
    weights_of,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("work place")


@pytest.fixture(scope="module")
def whole(place, tiny):
    """An uninterrupted run of two workers: (its folder, how each ended)."""
    ends = end_workers(begin_workers([place] * 2, tiny, "name=workers"))
    assert [code for code, *_ in ends] == [0, 0], ends
    return place / "outputs/workers", ends


def files_of(run):
    return {path.name for path in run.rglob("*") if "events" not in path.name}


def test_two_workers_are_two_replicas_and_the_first_writes(whole, place, tiny):
    one = execute(place, tiny, "name=replicas", "hardware=cpu", "hardware.replicas=2")
    assert one.returncode == 0, one.stderr
    run, ends = whole
    assert "worker 0 of 2 from TF_CONFIG, 2 replicas" in ends[0][1]
    assert ends[1][1:] == ("", "")
    other = place / "outputs/replicas"
    assert files_of(run) == files_of(other)
    assert len(list(run.glob("events*"))) == 1
    for row, same in zip(*(history_of(each).values() for each in (run, other)), strict=True):
        assert row == pytest.approx(same, abs=1e-5)
    for left, right in zip(weights_of(run), weights_of(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-5)
    for name in ("valid_preds.json", "test_preds.json", "submission.csv"):
        assert (run / name).read_bytes() == (other / name).read_bytes()


def folders_of_their_own(root, place):
    """A working directory for each worker, whose `data` has rubbish for every file of the other's.

    The rubbish has the file's size, and begins with a record of another size of image.
    """
    head = write_serialized(place / "head", [example(image=jpeg(0, 24, 24), class_=0)])
    for number in range(2):
        data = shutil.copytree(root, place / f"worker {number}" / "data", dirs_exist_ok=True)
        for split in ("train", "val", "test"):
            foreign = sorted((data / split).iterdir())[1 - number]
            size = foreign.stat().st_size
            foreign.write_bytes(head.read_bytes().ljust(size, b"\x01"))
            assert foreign.stat().st_size == size
    return [place / "worker 0", place / "worker 1"]


def stream(places, *overrides):
    return end_workers(begin_workers(places, "data", "name=stream", "dataset.cache=none",
                                     "loop.epochs=1", "schedule.max_lr=1e-5", *overrides))


def check_rows(run, root):
    """What the run predicts is what its model says here of each image, in the data set's order."""
    model, size = trained.load(trained.find(run))
    for split, known in (("val", "valid_probs.npy"), ("test", "test_probs.npy")):
        left = records.read(tfrecord.list_files(str(root / split)),
                            ReadSpec(16, Labels.of(split), skip_bad=True))
        images = pipeline.decode_all(pipeline.Split(left, size), left.images)
        expected = softmax(model(tf.cast(images, tf.float32)).numpy(), axis=-1)
        rows = np.load(run / known)
        if split == "val":
            assert read(run, "valid_labels.json") == left.labels.tolist()
            assert read(run, "valid_preds.json") == {"0": rows.argmax(1).tolist()}
        else:
            submitted = (run / "submission.csv").read_text().splitlines()[1:]
            assert submitted == [f"{identifier},{label}" for identifier, label
                                 in zip(left.all_ids, rows.argmax(1), strict=True)]
            rows = rows[left.kept]
        np.testing.assert_allclose(rows, expected, atol=2e-3)  # of float16


def test_streaming_workers_read_their_own_files_and_know_the_bad_records_of_all(tiny, tmp_path):
    """Records that are left out; without bad ones, or refused: tests/proofs/workers.py."""
    root = shutil.copytree(tiny, tmp_path / "bad")
    flip(root / "train/00-16x16-20.tfrec", 5)
    flip(root / "val/01-16x16-7.tfrec", 2)
    flip(root / "test/01-16x16-4.tfrec", 1)
    places = folders_of_their_own(root, tmp_path)
    ends = stream(places, "dataset.on_bad_record=skip")
    assert [code for code, *_ in ends] == [0, 0], ends
    assert [path for path in (places[1] / "outputs").rglob("*") if path.is_file()] == []
    run = places[0] / "outputs/stream"
    assert (run / "mistakes.png").exists(), "val images of both workers"
    listed = read(run, "status.json")["skipped"]
    assert [(each["file"], each["record"]) for each in listed["records"]] == [
        ("data/train/00-16x16-20.tfrec", 5), ("data/val/01-16x16-7.tfrec", 2),
        ("data/test/01-16x16-4.tfrec", 1)]
    assert listed["count"] == 3
    check_rows(run, root)

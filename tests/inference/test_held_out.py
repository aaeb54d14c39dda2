"""evaluate matches classes by name, and keeps what it found where compare shows it."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import flowerexp
from flowerexp.errors import UserError
from flowerexp.inference import held_out
from flowerexp.runs import evaluations, store
from tests.data.test_records import write_serialized


@pytest.fixture
def run(copied):
    """A copy of a run whose classes have names."""
    path = copied / store.CLASSES
    path.write_text(json.dumps(json.loads(path.read_text()) | {"names": ["red", "green", "blue"]}))
    return copied


@pytest.fixture
def reordered(tiny, tmp_path):
    """The same data set with its classes in another order, and their names beside it."""
    root = shutil.copytree(tiny, tmp_path / "reordered")
    (root / "classes.txt").write_text("blue\nred\ngreen\n")
    for path in sorted((root / "val").iterdir()):
        examples = [tf.train.Example.FromString(each.numpy())
                    for each in tf.data.TFRecordDataset(str(path))]
        for example in examples:
            label = example.features.feature["class"].int64_list.value
            label[0] = (label[0] + 1) % 3
        write_serialized(path, [each.SerializeToString() for each in examples])
    return root


def test_classes_in_another_order_are_matched_by_name(run, tiny, reordered, capsys):
    expected = flowerexp.evaluate(run, tiny)
    found = flowerexp.evaluate(run, reordered)
    assert found == expected
    assert expected["acc"] == store.read_history(run)[-1]["valid acc"]
    np.testing.assert_array_equal(found.confusion, expected.confusion)


def test_other_classes_are_a_mistake_or_left_out(run, reordered):
    (reordered / "classes.txt").write_text("blue\nred\nviolet\n")
    with pytest.raises(UserError, match=r"1 class that the run does not know: violet.*common"):
        flowerexp.evaluate(run, reordered)
    found = flowerexp.evaluate(run, reordered, common=True)
    labels = store.read_valid(run)[1]
    assert found.confusion.sum(1).tolist() == [(labels == 0).sum(), 0, (labels == 2).sum()]
    (reordered / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(UserError, match="is this its data set"):
        flowerexp.evaluate(run, reordered, common=True)


def test_an_evaluation_is_kept_and_compared(run, tiny, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    for each in (run, other):
        scores = flowerexp.evaluate(each, tiny / "val")
    [kept] = evaluations.read(run)
    assert kept.scores == dict(scores)
    assert kept.trained_on == {"images": 0, "images of groups": 0}
    assert kept.ids == store.read_valid(run)[0]
    assert list(kept.predictions) == store.read_predictions(run, 13)[-1].tolist()
    config = other / ".hydra/config.yaml"
    config.write_text(config.read_text().replace("dropout: 0.05", "dropout: 0.1"))
    compared = flowerexp.compare(run, other, pairs=f"{other.name}:{run.name}")
    assert compared.table["test f1"].tolist() == [scores["f1"]] * 2
    differences = compared.differences.set_index("metric")
    for metric in ("acc", "recall", "precision", "f1"):
        assert differences.loc[f"test {metric}", ["difference", "low", "high"]].tolist() == [0] * 3


def test_runs_with_classes_in_another_order_are_evaluated_on_the_same_data(run, tiny, tmp_path):
    """Both columns of the table are one, and their difference is that of the same predictions."""
    flowerexp.evaluate(run, tiny)
    [kept] = evaluations.read(run)
    order = np.array([2, 0, 1])  # old id -> new id
    other = shutil.copytree(run, tmp_path / "other")
    shutil.rmtree(other / evaluations.FOLDER)
    names = tuple(np.array(kept.names)[np.argsort(order)].tolist())
    renamed = evaluations.Evaluated(**vars(kept) | {
        "names": names, "labels": tuple(order[list(kept.labels)].tolist()),
        "predictions": tuple(order[list(kept.predictions)].tolist())})
    table = held_out.Judged(kept.ids, np.array(renamed.labels), np.zeros(13, np.uint64),
                            np.array(renamed.predictions))
    assert held_out.content(names, table) == held_out.content(
        kept.names, table._replace(labels=np.array(kept.labels)))
    evaluations.write(other, renamed)
    config = other / ".hydra/config.yaml"
    config.write_text(config.read_text().replace("dropout: 0.05", "dropout: 0.1"))
    compared = flowerexp.compare(run, other, pairs=f"{other.name}:{run.name}")
    assert compared.differences.set_index("metric").loc["test f1", "difference"] == 0


@pytest.mark.parametrize(("groups", "expected"), [
    ("id,group\nval0,plant\nval1,other\n", 1), ("id,group\nelsewhere,plant\n", None), (None, None)])
def test_images_of_groups_that_were_trained_on_are_counted(run, tiny, tmp_path, groups, expected):
    """A file of groups that is gone, or of other images, ends no evaluation."""
    store.write_train_images(run, [1, 2], ["plant", ""])
    path = tmp_path / "groups.csv"
    if groups:
        path.write_text(groups)
    config = run / ".hydra/config.yaml"
    config.write_text(config.read_text().replace("  groups: null", f"  groups: {path}"))
    assert str(path) in config.read_text()
    flowerexp.evaluate(run, tiny)
    assert evaluations.read(run)[0].trained_on.get("images of groups") == expected


def test_images_that_were_trained_on_are_said(run, tiny):
    """Whatever their file is named; the checksums of the images tell."""
    flowerexp.evaluate(run, tiny / "train")
    [kept] = evaluations.read(run)
    assert kept.trained_on["images"] == 40
    assert any("40 of its images were trained on" in note for note in flowerexp.compare(run).notes)


@pytest.mark.parametrize("change", [
    lambda kept: kept | {"predictions": kept["labels"][::-1]}, lambda kept: kept | {"ids": []},
    lambda kept: kept | {"labels": [9] * 13}, lambda kept: {**kept, "more": 1}, lambda kept: []])
def test_a_changed_evaluation_makes_a_folder_unreadable(run, tiny, change):
    flowerexp.evaluate(run, tiny)
    [path] = (run / evaluations.FOLDER).iterdir()
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    [failure] = flowerexp.compare(run).failures
    assert str(path) in failure.error

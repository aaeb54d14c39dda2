"""Confusion matrix and scores against the golden vector, scikit-learn and cases by hand."""

import json

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerexp import metrics


def scores_of(labels, predictions, classes):
    return metrics.scores(metrics.confusion_matrix(np.array(labels), np.array(predictions),
                                                   classes))


def test_scores_are_the_reference(shared):
    reference = json.loads((shared / "reference/metrics.json").read_text())
    found = scores_of(reference["labels"], reference["predictions"], reference["classes"])
    for name, key in (("acc", "accuracy"), ("recall", "recall"), ("precision", "precision"),
                      ("f1", "f1")):
        assert found[name] == pytest.approx(reference[key], abs=1e-9, rel=0)


def test_by_hand():
    matrix = metrics.confusion_matrix(np.array([0, 0, 0, 1, 3]), np.array([0, 0, 1, 1, 2]), 5)
    assert matrix.tolist() == [[2, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0],
                               [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    by_class = metrics.class_scores(matrix)
    np.testing.assert_allclose(by_class["recall"], [2 / 3, 1, 0, 0, np.nan])
    np.testing.assert_allclose(by_class["precision"], [1, 1 / 2, 0, 0, np.nan])
    np.testing.assert_allclose(by_class["f1"], [4 / 5, 2 / 3, 0, 0, np.nan])
    # Class 4 is neither label nor prediction, so four classes are averaged.
    assert metrics.scores(matrix) == pytest.approx(
        {"acc": 3 / 5, "recall": (2 / 3 + 1) / 4, "precision": 1.5 / 4, "f1": (4 / 5 + 2 / 3) / 4})


pairs = st.integers(1, 12).flatmap(lambda classes: st.tuples(
    st.just(classes), st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)),
                               min_size=1, max_size=80)))


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None)
@given(pairs)
def test_scores_are_those_of_sklearn(case):
    classes, both = case
    labels, predictions = map(list, zip(*both, strict=True))
    matrix = metrics.confusion_matrix(np.array(labels), np.array(predictions), classes)
    assert (matrix == sklearn.metrics.confusion_matrix(labels, predictions,
                                                       labels=range(classes))).all()
    found = metrics.scores(matrix)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, average="macro", zero_division=0)
    assert found == pytest.approx(
        {"acc": sklearn.metrics.accuracy_score(labels, predictions), "recall": recall,
         "precision": precision, "f1": f1}, abs=1e-12)
    by_class = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(classes), zero_division=0)
    present = matrix.sum(0) + matrix.sum(1) > 0
    for name, wanted in zip(("precision", "recall", "f1"), by_class, strict=False):
        np.testing.assert_allclose(metrics.class_scores(matrix)[name],
                                   np.where(present, wanted, np.nan), atol=1e-12)


def test_scores_are_plain_floats_that_json_takes():
    found = scores_of([0, 1], [0, 0], 2)
    assert list(found) == list(metrics.NAMES)
    assert all(type(value) is float for value in found.values())
    assert json.loads(json.dumps(found)) == found


def test_narrow_integers_do_not_overflow():
    labels = np.full(3, 103, np.uint8)
    matrix = metrics.confusion_matrix(labels, np.array([103, 5, 103], np.uint8), 104)
    assert matrix[103, 103] == 2
    assert matrix[103, 5] == 1
    assert matrix.sum() == 3


def test_epoch_scores():
    confusion = metrics.confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    found = metrics.epoch_scores("valid", 0.75, confusion)
    assert list(found) == ["valid loss", "valid acc", "valid recall", "valid precision", "valid f1"]
    assert found == pytest.approx({"valid loss": 0.75, "valid acc": 2 / 3, "valid recall": 0.75,
                                   "valid precision": 0.75, "valid f1": 2 / 3})


@pytest.mark.parametrize(("f1", "best"), [
    ([], None), ([0.0], 0), ([0.1, 0.3, 0.2], 1), ([0.2, 0.5, 0.5, 0.5], 1), ([0.0, 0.0], 0),
    ([0.5, 0.4, 0.5], 0)])
def test_best_epoch_is_the_earliest_of_the_highest_f1(f1, best):
    assert metrics.best_epoch([{"valid f1": value} for value in f1]) == best

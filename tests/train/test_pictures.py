"""The pictures of a finished run: which are drawn, which mistakes, and what is said instead."""

import numpy as np
import pytest

from flowerexp.plots import confusion
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger
from flowerexp.train import callbacks
from tests.plots.test_confusion import FLOWERS
from tests.plots.test_history import epochs

ALL = {"history.png", "confusion.png", "mistakes.png", "classes.png"}


def probabilities_of(predicted, classes, confidence):
    """float64 [images, classes]: `confidence` for the predicted class, the rest equal."""
    values = np.repeat((1 - np.array(confidence))[:, None] / max(classes - 1, 1), classes, 1)
    values[np.arange(len(predicted)), predicted] = confidence
    return values


def state_of(folder, labels, probabilities):
    """As much of a run's state as figures need; image i has the value i everywhere."""
    classes = probabilities.shape[1]
    return callbacks.RunState(
        folder, None, None, tuple(FLOWERS[label % 104] for label in range(classes)),
        np.arange(1, classes + 1), np.array(labels), None, RunLogger(folder),
        lambda indices: np.full((len(indices), 8, 8, 3), indices[:, None, None, None], np.uint8),
        epochs(2), probabilities=probabilities)


def draw(folder, labels, predicted, classes):
    probabilities = probabilities_of(predicted, classes, np.linspace(0.9, 0.6, len(labels)))
    callbacks.Figures().on_train_end(state_of(folder, labels, probabilities))
    log = folder / store.LOG
    return {path.name for path in folder.glob("*.png")}, log.read_text() if log.exists() else ""


def test_mistakes_are_those_of_the_highest_probability_first():
    labels, predicted = np.array([0, 1, 2, 0, 1]), [0, 2, 1, 1, 1]
    probabilities = probabilities_of(predicted, 3, [0.99, 0.6, 0.8, 0.6, 0.9])
    assert callbacks.mistakes(labels, probabilities).tolist() == [2, 1, 3]


def test_grid_shows_each_mistake_with_its_names_and_probability(tmp_path):
    labels, predicted = np.array([0, 1, 2, 0]), [0, 2, 1, 1]
    state = state_of(tmp_path, labels, probabilities_of(predicted, 3, [0.99, 0.6, 0.8125, 0.7]))
    shown = np.array([2, 3])
    figure = callbacks.grid_of_mistakes(state, np.array([2, 3, 1]), state.images(shown))
    assert [(int(axis.images[0].get_array().max()), axis.get_title(loc="left"))
            for axis in figure.axes if axis.images] == [
        (2, f"true: {FLOWERS[2]}\npred: {FLOWERS[1]}\nprobability 0.812"),
        (3, f"true: {FLOWERS[0]}\npred: {FLOWERS[1]}\nprobability 0.700")]
    assert " ".join(figure.get_suptitle().split()) == (
        "Misclassified among 4 validation images: the 2 most confident of 3")


def test_a_run_of_104_classes_has_all_pictures_and_nothing_to_say(tmp_path):
    labels = np.arange(208) % 104
    drawn, said = draw(tmp_path, labels, (labels + np.arange(208) % 2) % 104, 104)
    assert drawn == ALL
    assert said == ""


@pytest.mark.parametrize("classes", [1, 3])
def test_no_mistake_is_no_grid_and_that_is_said(tmp_path, classes):
    drawn, said = draw(tmp_path, np.arange(9) % classes, np.arange(9) % classes, classes)
    assert drawn == ALL - {"mistakes.png"}
    assert "mistakes.png is not drawn: every validation image is classified correctly" in said


def test_too_many_classes_are_no_matrix_and_that_is_said(tmp_path):
    labels = np.arange(5000)
    drawn, said = draw(tmp_path, labels, np.minimum(labels + 1, 4999), 5000)
    assert drawn == ALL - {"confusion.png"}
    assert ("confusion.png and TensorBoard's confusion matrices are not drawn: 5000 classes are "
            f"more than {confusion.MOST_CLASSES}") in said

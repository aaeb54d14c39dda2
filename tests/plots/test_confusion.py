"""The confusion matrix, read back from the figures."""

import json

import numpy as np
import pytest

from flowerexp import metrics
from flowerexp.data import sources
from flowerexp.plots import confusion

FLOWERS = json.loads(sources.CLASSES_FILE.read_text())


def matrix_of(classes, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, 30 * classes)
    predictions = np.where(random.random(len(labels)) < 0.7, labels,
                           random.integers(0, classes, len(labels)))
    return metrics.confusion_matrix(labels, predictions, classes), labels, predictions


@pytest.mark.parametrize("classes", [3, 104])
def test_confusion_shows_shares_of_the_true_class(classes):
    matrix, _, _ = matrix_of(classes)
    matrix[1] = 0  # a class without validation images
    figure = confusion.draw(matrix, FLOWERS[:classes], runs=3)
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image.sum(1), np.arange(classes) != 1)
    assert image[2, 0] == matrix[2, 0] / matrix[2].sum()
    right = int(np.trace(matrix))
    assert figure.axes[0].get_title() == (
        f"Validation: {right} of {matrix.sum()} images correct, sum of 3 runs")


def test_few_classes_are_named_and_of_many_the_most_frequent_mistakes():
    few = confusion.draw(matrix_of(40)[0], FLOWERS[:40]).axes[0]
    assert [label.get_text() for label in few.get_yticklabels()] == FLOWERS[:40]
    assert not few.texts
    matrix, _, _ = matrix_of(104)
    matrix[7, 50], matrix[50, 7] = 90, 80
    words = confusion.draw(matrix, FLOWERS).axes[0].texts[0].get_text().split("\n\n")
    assert words[0] == "Most frequent errors"
    assert words[1] == (f"90 of {matrix[7].sum()}: {FLOWERS[7]} (7)\n"
                        f"     predicted {FLOWERS[50]} (50)")
    assert words[2].startswith("80 of ")
    assert len(words) == 1 + confusion.LISTED


def test_no_mistakes_list_none():
    words = confusion.draw(np.diag(np.arange(1, 51)), FLOWERS[:50]).axes[0].texts[0].get_text()
    assert words == "Most frequent errors"

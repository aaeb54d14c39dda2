"""Predictions are compared image by image and class by class, whatever the order of a folder."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from flowerexp.comparison import comparison
from flowerexp.comparison.alignment import Predicted, align
from flowerexp.errors import UserError
from tests.folders import LABELS, PREDICTIONS, write_run

IDS = tuple(f"photo {number}" for number in range(len(LABELS)))
NAMES = ("rose", "tulip", "daisy", "poppy")


def predicted(where="one", ids=IDS, labels=LABELS, predictions=PREDICTIONS[2], names=NAMES):
    return Predicted(where, tuple(ids), np.array(labels), np.array(predictions), tuple(names))


def shuffled(other, images, classes):
    """The same predictions with images and classes in another order."""
    place = np.argsort(classes)  # old id -> new id
    return Predicted("shuffled", tuple(other.ids[image] for image in images),
                     place[other.labels[images]], place[other.predictions[images]],
                     tuple(other.names[each] for each in classes))


@hypothesis.given(st.permutations(range(len(LABELS))), st.permutations(range(len(NAMES))))
def test_no_order_of_images_or_classes_changes_a_comparison(images, classes):
    one, other = predicted(), predicted("other", predictions=PREDICTIONS[0])
    expected = align([one, other])
    found = align([one, shuffled(other, np.array(images), np.array(classes))])
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    assert found.names == NAMES
    same_order = images == sorted(images) and classes == sorted(classes)
    assert [("matched by id and name" in note) for note in found.notes] == [True] * (not same_order)


def test_an_id_that_occurs_twice_is_matched_by_its_occurrence():
    ids = ("a", "a", "b", *IDS[3:])
    one = predicted(ids=ids)
    other = shuffled(one, np.array([2, 0, 1, *range(3, 10)]), np.arange(4))
    np.testing.assert_array_equal(*align([one, other]).predictions)


def test_other_images_are_refused_or_left_out():
    one = predicted()
    other = predicted("other", ids=("new", *IDS[2:]), labels=[0, *LABELS[2:]],
                      predictions=[3, *PREDICTIONS[0][2:]])
    with pytest.raises(UserError, match=r"one and other were not judged on the same data \(8 "
                                        r"images in common of 10 and 9\): give --common"):
        align([one, other])
    found = align([one, other], common=True)
    assert found.labels.tolist() == LABELS[2:]
    assert found.predictions.tolist() == [PREDICTIONS[2][2:], PREDICTIONS[0][2:]]
    assert found.notes == ("compared on 8 common images of 4 classes: 8 images in common of 10 and "
                           "9",)


def test_other_labels_are_refused_or_left_out():
    other = predicted("other", labels=[1, *LABELS[1:]])
    with pytest.raises(UserError, match="1 image with different labels"):
        align([predicted(), other])
    assert align([predicted(), other], common=True).labels.tolist() == LABELS[1:]


def test_other_classes_are_refused_or_left_out():
    """Predictions of a class that is not common count as wrong."""
    other = predicted("other", names=("rose", "tulip", "daisy", "orchid"))
    with pytest.raises(UserError, match="2 classes not in all: orchid, poppy"):
        align([predicted(), other])
    found = align([predicted(), other], common=True)
    assert found.names == ("rose", "tulip", "daisy")
    assert found.labels.tolist() == LABELS[:9]  # the last is a poppy in one and an orchid in other


def test_nothing_in_common_is_a_mistake():
    with pytest.raises(UserError, match="no image in common"):
        align([predicted(), predicted(ids=[f"other {each}" for each in IDS])], common=True)


def test_two_runs_on_reordered_data_compare_as_the_same_images(tmp_path):
    order = np.random.default_rng(0).permutation(len(LABELS))
    for name, at in (("original", np.arange(len(LABELS))), ("optimized_loop", order)):
        write_run(tmp_path / name, [f"experiment={name}"], np.array(LABELS)[at].tolist(),
                  np.array(PREDICTIONS)[:, at].tolist(), names=NAMES, data=f"content-{name}",
                  ids=[IDS[each] for each in at])
    compared = comparison.compare(tmp_path, pairs="optimized_loop:original")
    assert compared.pairs[0].agreement == 1
    assert compared.pairs[0].differences["acc"].value == 0
    assert any("matched by id and name" in note for note in compared.notes)


def test_runs_of_one_experiment_on_several_data_are_several_rows(tmp_path):
    """Also if only labels differ, so that files, sizes and class counts are the same."""
    for name in ("clean", "noisy", "larger"):
        write_run(tmp_path / f"original+dataset.root={name}+seed=0",
                  ["experiment=original", f"dataset.root={name}"], LABELS, PREDICTIONS,
                  data=f"content-{name}", ids=IDS)
    compared = comparison.compare(tmp_path)
    assert [row.name for row in compared.rows] == [
        f"original+dataset.root={name}" for name in ("clean", "larger", "noisy")]
    assert compared.notes == ()

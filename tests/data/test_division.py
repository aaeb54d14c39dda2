"""Divisions of images: what they promise for any labels, ids, groups and seed."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerexp.data import division

IMAGES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "", "a", "b", "c", "d", "e"])),
                  min_size=2, max_size=60)
"""Labels and groups, most images in none."""
SEEDS = st.integers(0, 3)


def columns(images):
    labels, groups = zip(*images, strict=True)
    return np.array(labels), [f"photo {row}" for row in range(len(images))], list(groups)


def fold_shares(number):
    return [Fraction(1, number)] * number


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.integers(2, 6), SEEDS, st.randoms(use_true_random=False))
def test_parts_do_not_depend_on_the_order_of_images(images, number, seed, random):
    labels, keys, groups = columns(images)
    parts = division.deal(labels, keys, groups, fold_shares(number), seed, "fold", False)
    order = list(range(len(keys)))
    random.shuffle(order)
    again = division.deal(labels[order], [keys[row] for row in order],
                          [groups[row] for row in order], fold_shares(number), seed, "fold", False)
    assert again.tolist() == parts[order].tolist()
    assert set(parts.tolist()) <= set(range(number))


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.sampled_from(["1/2", "3/20", "1/100"]), SEEDS)
def test_no_group_is_in_two_parts(images, share, seed):
    labels, keys, groups = columns(images)
    shares = [1 - Fraction(share), Fraction(share)]
    parts = division.deal(labels, keys, groups, shares, seed, "validation")
    of_group = {}
    for name, part in zip(groups, parts.tolist(), strict=True):
        assert not name or of_group.setdefault(name, part) == part


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(2, 6), SEEDS)
def test_folds_without_groups_are_as_even_as_those_of_scikit_learn(labels, number, seed):
    """Sizes of folds, and of each class in them, differ by one at most (StratifiedKFold)."""
    keys = [f"photo {row}" for row in range(len(labels))]
    parts = division.deal(np.array(labels), keys, (), fold_shares(number), seed, "fold", False)
    table = np.zeros((5, number), int)
    np.add.at(table, (labels, parts), 1)
    assert (np.ptp(table, axis=1) <= 1).all()
    assert np.ptp(table.sum(0)) <= 1


def test_a_share_is_that_of_every_class_and_small_classes_add_up():
    """102 classes of 3 images: 0.45 each are 46 in all, and one of each is trained on."""
    labels = np.repeat(np.arange(102), 3)
    keys = [str(row) for row in range(len(labels))]
    parts = division.deal(labels, keys, (), [Fraction(17, 20), Fraction(3, 20)], 0, "validation")
    assert abs(parts.sum() - 45.9) < 1
    assert set(labels[parts == 0].tolist()) == set(range(102))
    assert np.bincount(labels[parts == 1]).max() == 1


def test_groups_are_as_even_as_those_of_scikit_learn():
    """200 groups of 1 to 9 images of one or two of 10 classes, in five folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    random = np.random.default_rng(0)
    group = np.repeat(np.arange(200), random.integers(1, 10, 200))
    labels = (group * 7 + random.integers(0, 2, len(group))) % 10
    groups, keys = [f"plant {each}" for each in group], [str(row) for row in range(len(group))]
    parts = division.deal(labels, keys, groups, fold_shares(5), 0, "fold", False)
    theirs = np.zeros(len(labels), int)
    for fold, (_, rows) in enumerate(StratifiedGroupKFold(5).split(labels, labels, group)):
        theirs[rows] = fold

    def unevenness(found):
        table = np.zeros((5, 10))
        np.add.at(table, (found, labels), 1)
        return (table / np.bincount(labels)).std(axis=0).mean()

    assert unevenness(parts) < 1.1 * unevenness(theirs) < 0.1


def test_one_group_larger_than_a_share_is_trained_on():
    labels, groups = np.zeros(100, int), ["big"] * 80 + ["small"] * 10 + ["other"] * 10
    parts = division.deal(labels, list(map(str, range(100))), groups,
                          [Fraction(17, 20), Fraction(3, 20)], 0, "validation")
    assert np.bincount(parts).tolist() == [90, 10]
    assert parts[:80].sum() == 0


def test_another_seed_is_another_division():
    labels, keys = np.zeros(100, int), list(map(str, range(100)))
    one, other, same = (division.deal(labels, keys, (), fold_shares(5), seed, "fold", False)
                        for seed in (0, 1, 0))
    assert (one == same).all()
    assert (one != other).sum() > 50


def test_keys_tell_images_apart_wherever_they_are():
    digests = np.array([1, 2, 3, 4, 5], np.uint64)
    assert division.unique_keys(["a", "b", "a", "", ""], digests) == [
        "a\0001", "b", "a\0003", "\0004", "\0005"]


def test_namings_merge_where_they_share_an_image():
    """Plant x has images 0 and 1, and image 1 is nearly 2, as 3 is nearly 4."""
    merged = division.merge_groups([["x", "x", "", "", "", "y"], ["", "n", "n", "m", "m", ""]])
    assert merged == ["0:x", "0:x", "0:x", "1:m", "1:m", "0:y"]
    assert division.merge_groups([["", "x", "x"]]) == ["", "x", "x"]
    assert division.merge_groups([["", ""]]) == ["", ""]


@pytest.mark.parametrize(("ratio", "sizes"), [
    (100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
    (10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500])])
def test_the_long_tail_of_cifar_10_is_the_published_one(ratio, sizes):
    labels = np.tile(np.arange(10), 5000)
    kept = division.long_tail(labels, list(map(str, range(50_000))), range(10), ratio, 0)
    assert np.bincount(labels[kept]).tolist() == sizes


def test_a_steeper_tail_keeps_a_part_of_a_flatter_one():
    labels = np.repeat(np.arange(5), 40)
    keys = list(map(str, range(200)))
    flat, steep = (division.long_tail(labels, keys, range(5), ratio, 3) for ratio in (2, 20))
    assert np.bincount(labels[steep]).tolist() == [40, 18, 8, 4, 2]
    assert (steep <= flat).all()
    order = np.random.default_rng(0).permutation(200)
    again = division.long_tail(labels[order], [keys[row] for row in order], range(5), 20, 3)
    assert (again == steep[order]).all()


def test_a_tail_starts_where_every_class_has_enough():
    """Class 1 has 30 of the 50 that a profile from 100 would need."""
    labels = np.repeat([0, 1, 2], [100, 30, 25])
    kept = division.long_tail(labels, list(map(str, range(155))), [0, 1, 2], 4, 0)
    assert np.bincount(labels[kept]).tolist() == [60, 30, 15]

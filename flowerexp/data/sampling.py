"""Which images an epoch shows, and in what order: a pure function of labels, policy, seed, epoch.

Oversampling repeats indices, never images. NumPy only.
"""

import numpy as np
import numpy.typing as npt

from flowerexp.config import Sampling

Labels = npt.NDArray[np.integer]


def class_repeats(counts: Labels, policy: Sampling) -> npt.NDArray[np.float64]:
    """How often an image of each class is seen in an epoch, on average.

    Args:
        counts: int [classes], training images of each class; 0 is allowed.
        policy: `oversample` repeats the images of a class with c < N images N / c times.

    Returns:
        float64 [classes]; 1 for every class that is not repeated.
    """
    if policy.kind != "oversample":
        return np.ones(len(counts))
    assert policy.target_count is not None
    return np.where(counts > 0, np.maximum(policy.target_count / np.maximum(counts, 1), 1.0), 1.0)


def examples_per_epoch(counts: Labels, policy: Sampling) -> int:
    """The number of examples to plan an epoch for: int(sum of c * repeats).

    A class that is repeated contributes its target N exactly, so the sum is one of integers.
    """
    if policy.kind != "oversample":
        return int(counts.sum())
    assert policy.target_count is not None
    return int(np.maximum(counts, policy.target_count)[counts > 0].sum())


def example_repeats(labels: Labels, policy: Sampling, seed: int, epoch: int,
                    draw: int = 0) -> npt.NDArray[np.int64]:
    """How often each image is seen in one draw of an epoch.

    The whole part of its class's repeats always, the fraction with that probability.

    Returns:
        int64 [images].
    """
    counts = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    repeats = class_repeats(counts, policy)[labels]
    whole = np.floor(repeats)
    chance = np.random.default_rng((seed, epoch, draw, 0)).random(len(labels))
    return (whole + (chance < repeats - whole)).astype(np.int64)


def epoch_order(labels: Labels, policy: Sampling, seed: int, epoch: int,
                draw: int = 0) -> npt.NDArray[np.int64]:
    """The indices of one epoch, repeated by the policy and shuffled.

    Args:
        labels: int [images], class ids of the training set.
        policy: original, oversample or class_weight (which shows every image once).
        seed: of the run.
        epoch: from 0.
        draw: further draws of the same epoch differ as epochs do.

    Returns:
        int64 [examples], indices into `labels`; the length varies with the draw by the fractions.
    """
    repeats = example_repeats(labels, policy, seed, epoch, draw)
    order = np.repeat(np.arange(len(labels)), repeats)
    return np.random.default_rng((seed, epoch, draw, 1)).permutation(order)


def epoch_indices(labels: Labels, policy: Sampling, seed: int, epoch: int,
                  count: int) -> npt.NDArray[np.int64]:
    """The first `count` indices of an epoch, filled from further draws where one is shorter.

    Returns:
        int64 [count].
    """
    assert len(labels) > 0, "an epoch of no images"
    order = epoch_order(labels, policy, seed, epoch)
    draw = 1
    while len(order) < count:
        order = np.concatenate([order, epoch_order(labels, policy, seed, epoch, draw)])
        draw += 1
    return order[:count]


def class_weights(counts: Labels, policy: Sampling) -> npt.NDArray[np.float32]:
    """The weight of an example's loss by its class, with mean 1 over the training set.

    total / (classes * c) for `class_weight`, where classes without images are left out (their
    weight is 0 and never used); 1 for the other policies.

    Returns:
        float32 [classes].
    """
    if policy.kind != "class_weight":
        return np.ones(len(counts), np.float32)
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)


def class_occurrences(labels: Labels, repeats: npt.NDArray[np.integer], num_classes: int
                      ) -> npt.NDArray[np.float64]:
    """Mean, least and greatest occurrences of the images of each class.

    Args:
        labels: int [images].
        repeats: int [images], how often each is seen.

    Returns:
        float64 [classes, 3]; NaN for a class without images.
    """
    spread = np.full((num_classes, 3), np.nan)
    images = np.bincount(labels, minlength=num_classes)
    totals = np.bincount(labels, repeats, num_classes)
    present = images > 0
    spread[present, 0] = totals[present] / images[present]
    np.fmin.at(spread[:, 1], labels, repeats)
    np.fmax.at(spread[:, 2], labels, repeats)
    return spread

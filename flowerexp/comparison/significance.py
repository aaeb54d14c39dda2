"""Significance of the difference between two classifiers on the same images.

A two-level bootstrap of accuracy and macro scores, and McNemar's exact test. Arrays in, numbers
out, independent of runs and folders.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerexp import metrics

DRAWS = 10_000
SEED = 20_070
"""The seed of every bootstrap, so that the same files give the same interval."""
CHUNK = 2**20
"""The most numbers in one array; it bounds the memory and does not change the draws."""

Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def bootstrap(labels: Integers, candidate: Integers, baseline: Integers, draws: int = DRAWS
              ) -> dict[str, tuple[float, float, float]]:
    """Differences of the scores, candidate minus baseline, with their 95% intervals.

    Each draw resamples the seeds, the same for both sides, and the images, the same for every seed
    and side, both with replacement. Every seed predicts every image, so the two levels are crossed
    (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122). With one seed it is the plain
    bootstrap of images. Classes absent from a draw do not count in its macro averages, as in
    `metrics.scores`.

    Args:
        labels: int [images], at least one.
        candidate, baseline: int [seeds, images], class ids; each row of both has the same seed.
        draws: the number of draws.

    Returns:
        (difference, low, high) by metric: the observed difference averaged over the seeds, and the
        2.5 and 97.5 percentiles of the draws.
    """
    assert candidate.shape == baseline.shape == (len(candidate), len(labels)), "other images"
    assert labels.size > 0, "a bootstrap of no images"
    patterns, group = np.unique(np.vstack([labels[None], candidate, baseline]), axis=1,
                                return_inverse=True)
    group, scores = group.ravel(), PatternScores(patterns)
    found = scores.differences(np.bincount(group)[None].astype(np.float64)).mean(axis=1)[:, 0]
    chunk = max(1, CHUNK // max(len(labels), scores.cells))
    parts = []
    for seeds, images in resamples(len(candidate), len(labels), draws, chunk):
        # Images with equal labels and predictions are interchangeable and counted together.
        cells = group[images] + scores.patterns * np.arange(len(images))[:, None]
        drawn = np.bincount(cells.ravel(), minlength=scores.patterns * len(images))
        differences = scores.differences(drawn.reshape(len(images), -1).astype(np.float64))
        weights = np.stack([(seeds == seed).mean(axis=1) for seed in range(len(candidate))])
        parts.append((differences * weights).sum(axis=1))
    low, high = np.quantile(np.concatenate(parts, axis=1), (0.025, 0.975), axis=1)
    return {name: (float(found[index]), float(low[index]), float(high[index]))
            for index, name in enumerate(metrics.NAMES)}


def resamples(seeds: int, images: int, draws: int, chunk: int
              ) -> Iterator[tuple[Integers, Integers]]:
    """The draws of `bootstrap`, independent of the chunk size.

    Yields:
        int [chunk, seeds] and int [chunk, images], indices; the last chunk may be smaller.
    """
    of_seeds, of_images = (np.random.default_rng([SEED, level]) for level in (0, 1))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        yield (of_seeds.integers(0, seeds, (size, seeds)),
               of_images.integers(0, images, (size, images)))


class PatternScores:
    """Scores of both sides from how often each pattern is drawn, by sparse products.

    Args:
        patterns: int [1 + 2 * seeds, patterns], distinct columns of a label, the candidate's
            predictions and the baseline's.
    """

    def __init__(self, patterns: Integers) -> None:
        from scipy.sparse import csr_array

        ids = np.unique(patterns, return_inverse=True)[1].reshape(patterns.shape)
        self.classes = int(ids.max()) + 1
        self.rows, self.patterns = len(patterns), patterns[0].size
        block = np.arange(self.rows)[:, None] * self.classes
        columns = np.broadcast_to(np.arange(self.patterns), patterns.shape)
        right = ids[1:] == ids[:1]

        def sums(cells: Integers, of: Integers, blocks: int) -> Any:
            """The matrix that sums the counts of patterns by block and class."""
            return csr_array((np.ones(len(cells)), (cells, of)),
                             shape=(blocks * self.classes, self.patterns))

        self.seen = sums((block + ids).ravel(), columns.ravel(), self.rows)
        self.hits = sums((block[:-1] + ids[1:])[right], columns[1:][right], self.rows - 1)

    @property
    def cells(self) -> int:
        """The numbers that a draw expands to."""
        return self.rows * self.classes

    def differences(self, counts: Floats) -> Floats:
        """float64 [metrics, seeds, draws], the candidate's score minus the baseline's.

        Args:
            counts: float64 [draws, patterns].
        """
        by_pattern = np.ascontiguousarray(counts.T)
        seen = (self.seen @ by_pattern).reshape(self.rows, self.classes, -1)
        hits = (self.hits @ by_pattern).reshape(self.rows - 1, self.classes, -1)
        candidate, baseline = np.split(
            np.stack([macro_scores(seen[0], predicted, right)
                      for predicted, right in zip(seen[1:], hits, strict=True)], axis=1), 2, axis=1)
        return candidate - baseline


def macro_scores(labelled: Floats, predicted: Floats, right: Floats) -> Floats:
    """float64 [metrics, draws], the scores of `metrics.scores` in the order of `metrics.NAMES`.

    Args:
        labelled, predicted, right: float64 [classes, draws], images of a class, images predicted
            as it, and images of both.
    """
    both = labelled + predicted
    present = (both > 0).sum(axis=0)

    def macro(part: Floats, whole: Floats) -> Floats:
        # Where the denominator is zero, the numerator is too.
        average: Floats = (part / np.maximum(whole, 1)).sum(axis=0) / present
        return average

    return np.stack([right.sum(axis=0) / labelled.sum(axis=0), macro(right, labelled),
                     macro(right, predicted), macro(2 * right, both)])


def mcnemar(labels: Integers, candidate: Integers, baseline: Integers) -> float:
    """McNemar's exact two-sided p-value, from the images that only one side classifies correctly.

    Args:
        labels, candidate, baseline: int [images], class ids.
    """
    from scipy.stats import binomtest  # takes a second

    candidate_alone = int(((candidate == labels) & (baseline != labels)).sum())
    baseline_alone = int(((candidate != labels) & (baseline == labels)).sum())
    if candidate_alone + baseline_alone == 0:
        return 1.0
    return float(binomtest(candidate_alone, candidate_alone + baseline_alone, 0.5).pvalue)


def recall_changes(labels: Integers, candidate: Integers, baseline: Integers) -> Floats:
    """float64 [classes], the change of recall averaged over the seeds; NaN without images.

    Args:
        labels: int [images], at least one.
        candidate, baseline: int [seeds, images], class ids.
    """
    # One sum of integers, so that seeds that cancel out leave exactly zero.
    changes = (candidate == labels).sum(axis=0) - (baseline == labels).sum(axis=0)
    counts = np.bincount(labels)
    by_class = np.bincount(labels, weights=changes)
    shares: Floats = np.where(counts > 0, by_class / np.maximum(counts * len(candidate), 1), np.nan)
    return shares

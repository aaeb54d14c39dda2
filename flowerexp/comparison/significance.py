"""Whether a difference between two classifiers on the same images is more than chance.

A two-level bootstrap of accuracy and macro scores, and McNemar's exact test. Arrays in, numbers
out: nothing here knows of runs or folders.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerexp import metrics

DRAWS = 10_000
SEED = 20_070
"""Of every bootstrap, so that the same files give the same interval."""
CHUNK = 2**20
"""Numbers in one array at once; it bounds the memory and does not change the draws."""

Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def bootstrap(labels: Integers, ours: Integers, theirs: Integers, draws: int = DRAWS
              ) -> dict[str, tuple[float, float, float]]:
    """Differences of the scores, ours minus theirs, with their 95 % intervals.

    A draw takes as many seeds as there are, with replacement and on both sides the same, and as
    many images as there are, the same for every seed and side: every seed saw every image, so the
    two levels are crossed (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122). With one
    seed it is the plain bootstrap of images. Classes that a draw leaves out do not count in its
    macro averages, as in `metrics.scores`.

    Args:
        labels: int [images], at least one.
        ours, theirs: int [seeds, images], class ids; row by row of the same seed.
        draws: how many.

    Returns:
        (difference, low, high) by metric: the mean over the seeds of what there is, and the 2.5
        and 97.5 % percentiles of the draws.
    """
    assert ours.shape == theirs.shape == (len(ours), len(labels)), "predictions of other images"
    assert labels.size > 0, "a bootstrap of no images"
    patterns, group = np.unique(np.vstack([labels[None], ours, theirs]), axis=1,
                                return_inverse=True)
    group, counter = group.ravel(), Counter(patterns)
    found = counter.differences(np.bincount(group)[None].astype(np.float64)).mean(axis=1)[:, 0]
    chunk = max(1, CHUNK // max(len(labels), counter.cells))
    parts = []
    for seeds, images in resamples(len(ours), len(labels), draws, chunk):
        # Images on which nobody differs are interchangeable: their draws are counted together.
        cells = group[images] + counter.patterns * np.arange(len(images))[:, None]
        drawn = np.bincount(cells.ravel(), minlength=counter.patterns * len(images))
        differences = counter.differences(drawn.reshape(len(images), -1).astype(np.float64))
        weights = np.stack([(seeds == seed).mean(axis=1) for seed in range(len(ours))])
        parts.append((differences * weights).sum(axis=1))
    low, high = np.quantile(np.concatenate(parts, axis=1), (0.025, 0.975), axis=1)
    return {name: (float(found[index]), float(low[index]), float(high[index]))
            for index, name in enumerate(metrics.NAMES)}


def resamples(seeds: int, images: int, draws: int, chunk: int
              ) -> Iterator[tuple[Integers, Integers]]:
    """The draws of `bootstrap`, the same in chunks of any size.

    Yields:
        int [chunk, seeds] and int [chunk, images], indices; the last chunk is what is left.
    """
    of_seeds, of_images = (np.random.default_rng([SEED, level]) for level in (0, 1))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        yield (of_seeds.integers(0, seeds, (size, seeds)),
               of_images.integers(0, images, (size, images)))


class Counter:
    """Scores of both sides from how often each pattern is drawn, by sparse products.

    Args:
        patterns: int [1 + 2 * seeds, patterns], distinct columns: label, our predictions, theirs.
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
            """The matrix that adds up, by class in blocks, the counts of patterns."""
            return csr_array((np.ones(len(cells)), (cells, of)),
                             shape=(blocks * self.classes, self.patterns))

        self.seen = sums((block + ids).ravel(), columns.ravel(), self.rows)
        self.hits = sums((block[:-1] + ids[1:])[right], columns[1:][right], self.rows - 1)

    @property
    def cells(self) -> int:
        """Numbers that a draw becomes."""
        return self.rows * self.classes

    def differences(self, counts: Floats) -> Floats:
        """float64 [metrics, seeds, draws], our score minus theirs.

        Args:
            counts: float64 [draws, patterns].
        """
        by_pattern = np.ascontiguousarray(counts.T)
        seen = (self.seen @ by_pattern).reshape(self.rows, self.classes, -1)
        hits = (self.hits @ by_pattern).reshape(self.rows - 1, self.classes, -1)
        ours, theirs = np.split(np.stack([macro_scores(seen[0], predicted, right) for
                                          predicted, right in zip(seen[1:], hits, strict=True)],
                                         axis=1), 2, axis=1)
        return ours - theirs


def macro_scores(labelled: Floats, predicted: Floats, right: Floats) -> Floats:
    """float64 [metrics, draws] in the order of `metrics.NAMES`, as `metrics.scores` defines
    them.

    Args:
        labelled, predicted, right: float64 [classes, draws], images of a class, images predicted
            as it, and images of both.
    """
    both = labelled + predicted
    present = (both > 0).sum(axis=0)

    def macro(part: Floats, whole: Floats) -> Floats:
        # Where there is nothing to divide by there is nothing right either.
        average: Floats = (part / np.maximum(whole, 1)).sum(axis=0) / present
        return average

    return np.stack([right.sum(axis=0) / labelled.sum(axis=0), macro(right, labelled),
                     macro(right, predicted), macro(2 * right, both)])


def mcnemar(labels: Integers, ours: Integers, theirs: Integers) -> float:
    """McNemar's exact two-sided p: how surprising the images that one side alone has right are.

    Args:
        labels, ours, theirs: int [images], class ids.
    """
    from scipy.stats import binomtest  # takes a second

    ours_alone = int(((ours == labels) & (theirs != labels)).sum())
    theirs_alone = int(((ours != labels) & (theirs == labels)).sum())
    if ours_alone + theirs_alone == 0:
        return 1.0
    return float(binomtest(ours_alone, ours_alone + theirs_alone, 0.5).pvalue)


def recall_changes(labels: Integers, ours: Integers, theirs: Integers) -> Floats:
    """float64 [classes], recall of ours minus theirs, the mean over the seeds; NaN where no image.

    Args:
        labels: int [images], at least one.
        ours, theirs: int [seeds, images], class ids.
    """
    # One sum of integers, so that seeds that cancel out leave zero and no rounding.
    changes = (ours == labels).sum(axis=0) - (theirs == labels).sum(axis=0)
    counts = np.bincount(labels)
    by_class = np.bincount(labels, weights=changes)
    shares: Floats = np.where(counts > 0, by_class / np.maximum(counts * len(ours), 1), np.nan)
    return shares

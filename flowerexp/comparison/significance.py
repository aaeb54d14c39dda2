"""Significance of the difference between two classifiers: arrays in, numbers out."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from flowerexp import metrics
from flowerexp.metrics import Floats, Ids

DRAWS = 10_000
SEED = 20_070
"""The seed of every bootstrap, so that the same files give the same interval."""
CHUNK = 2**20
"""The most numbers in one array; it bounds the memory and does not change the draws."""


def bootstrap(labels: Ids, candidate: Ids, baseline: Ids, draws: int = DRAWS
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

    Returns:
        (difference, low, high) by metric: the observed difference averaged over the seeds, and the
        2.5 and 97.5 percentiles of the draws.
    """
    assert candidate.shape == baseline.shape == (len(candidate), len(labels)), "other images"
    assert labels.size > 0, "a bootstrap of no images"
    # Images with equal labels and predictions are interchangeable and counted together.
    patterns, group = np.unique(np.vstack([labels[None], candidate, baseline]), axis=1,
                                return_inverse=True)
    group, (rows, count) = group.ravel(), patterns.shape
    seen, hits = class_counters(patterns)
    found = differences(seen, hits, rows, np.bincount(group)[:, None]).mean(axis=1)[:, 0]
    chunk = max(1, CHUNK // max(len(labels), seen.shape[0]))
    parts = []
    for seeds, images in resamples(len(candidate), len(labels), draws, chunk):
        cells = group[images] + count * np.arange(len(images))[:, None]
        drawn = np.bincount(cells.ravel(), minlength=count * len(images)).reshape(len(images), -1)
        weights = np.stack([(seeds == seed).mean(axis=1) for seed in range(len(candidate))])
        parts.append((differences(seen, hits, rows, drawn.T) * weights).sum(axis=1))
    low, high = np.quantile(np.concatenate(parts, axis=1), (0.025, 0.975), axis=1)
    return {name: (float(found[index]), float(low[index]), float(high[index]))
            for index, name in enumerate(metrics.NAMES)}


def resamples(seeds: int, images: int, draws: int, chunk: int
              ) -> Iterator[tuple[Ids, Ids]]:
    """Yields the indices of the draws, int [chunk, seeds] and int [chunk, images].

    The last chunk may be smaller; the draws do not depend on the chunk.
    """
    of_seeds, of_images = (np.random.default_rng([SEED, level]) for level in (0, 1))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        yield (of_seeds.integers(0, seeds, (size, seeds)),
               of_images.integers(0, images, (size, images)))


def class_counters(patterns: Ids) -> tuple[Any, Any]:
    """Sparse [rows * classes, patterns], 1 where a row has a class, and where it has it rightly.

    Args:
        patterns: int [rows, patterns], distinct columns of a label and predictions.
    """
    from scipy.sparse import csr_array

    rows, count = patterns.shape
    ids = np.unique(patterns, return_inverse=True)[1].reshape(rows, count)
    classes = int(ids.max()) + 1
    cells = ids + classes * np.arange(rows)[:, None]
    columns = np.broadcast_to(np.arange(count), (rows, count))
    shape = rows * classes, count
    seen, hits = (csr_array((np.ones(chosen.sum()), (cells[chosen], columns[chosen])), shape=shape)
                  for chosen in (ids >= 0, ids == ids[0]))
    return seen, hits


def differences(seen: Any, hits: Any, rows: int, drawn: Ids) -> Floats:
    """float64 [metrics.NAMES, seeds, draws], the candidate's `metrics.scores` minus the baseline's.

    Args:
        seen, hits: see `class_counters`.
        rows: 1 + 2 * seeds: the label, the candidate's predictions and the baseline's.
        drawn: int [patterns, draws], how often each pattern is drawn.
    """
    counts = np.ascontiguousarray(drawn, np.float64)
    by_row, right = ((counter @ counts).reshape(rows, -1, counts.shape[1])
                     for counter in (seen, hits))
    labelled, predicted, right = by_row[0], by_row[1:], right[1:]
    both = labelled + predicted
    present = (both > 0).sum(axis=1)

    def macro(part: Floats, whole: Floats) -> Floats:
        # Where the denominator is zero, the numerator is too.
        average: Floats = (part / np.maximum(whole, 1)).sum(axis=1) / present
        return average

    scores = np.stack([right.sum(axis=1) / labelled.sum(axis=0), macro(right, labelled),
                       macro(right, predicted), macro(2 * right, both)])
    candidate, baseline = np.split(scores, 2, axis=1)
    found: Floats = candidate - baseline
    return found


def mcnemar(labels: Ids, candidate: Ids, baseline: Ids) -> float:
    """McNemar's exact two-sided p-value, from the images that only one side classifies correctly.

    All arguments are int [images], class ids.
    """
    from scipy.stats import binomtest  # takes a second

    one, other = candidate == labels, baseline == labels
    alone, different = int((one & ~other).sum()), int((one != other).sum())
    return float(binomtest(alone, different, 0.5).pvalue) if different else 1.0


def recall_changes(labels: Ids, candidate: Ids, baseline: Ids) -> Floats:
    """float64 [classes], the change of recall averaged over the seeds; NaN without images.

    Args:
        labels: int [images], at least one.
        candidate, baseline: int [seeds, images], class ids.
    """
    # One sum of integers, so that seeds that cancel out leave exactly zero.
    changes = (candidate == labels).sum(axis=0) - (baseline == labels).sum(axis=0)
    images = np.bincount(labels) * len(candidate)
    sums = np.bincount(labels, weights=changes)
    shares: Floats = np.where(images > 0, sums / np.maximum(images, 1), np.nan)
    return shares

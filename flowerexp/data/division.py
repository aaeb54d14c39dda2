"""Stratified splits that depend only on the seed and the photos' ids.

scikit-learn's train_test_split samples by position and needs two photos of every class.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "val", "test")


def order_of(seed: int, purpose: str, identifier: str) -> bytes:
    """A pseudo-random sort key of an identifier, fixed by seed and purpose."""
    text = f"{seed}\0{purpose}\0{identifier}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def stratify(labels: npt.ArrayLike, ids: Sequence[str], val: Fraction, test: Fraction, seed: int
             ) -> list[str]:
    """The split of every photo.

    Each split gets its share of every class, rounded up or down, and train at least one photo. The
    remainder goes to the split with the largest deficit over the classes so far, so that even many
    small classes add up to the shares.

    Args:
        labels: class of each photo, int [n].
        ids: unique ids of the photos.
        val, test: shares of these splits; train gets the rest, which must be positive.
        seed: decides which photos of a class go to which split.
    """
    splits = np.empty(len(ids), object)
    deficit = [Fraction(0)] * len(SPLITS)
    for label in np.unique(labels):
        drawn = sorted(np.flatnonzero(np.equal(labels, label)).tolist(),
                       key=lambda index: order_of(seed, "split", ids[index]))
        counts = allocate(len(drawn), (1 - val - test, val, test), deficit)
        splits[drawn] = np.repeat(SPLITS, counts)
    assigned: list[str] = splits.tolist()
    return assigned


def allocate(number: int, shares: Sequence[Fraction], deficit: list[Fraction]) -> list[int]:
    """Divides `number` by the shares, each rounded up or down, the first at least 1.

    deficit: how many more each share should have received so far; updated in place.
    """
    exact = [number * share for share in shares]
    counts = [int(part) for part in exact]
    deficit[:] = [before + whole - count
                  for before, whole, count in zip(deficit, exact, counts, strict=True)]
    spare = [part for part, whole in enumerate(exact) if whole > counts[part]]
    spare.sort(key=lambda part: (part == 0 and counts[0] == 0, deficit[part]), reverse=True)
    for part in spare[:number - sum(counts)]:
        counts[part] += 1
        deficit[part] -= 1
    return counts

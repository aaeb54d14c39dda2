"""Divisions of images that depend on their ids, labels and groups and a seed, not on their order.

scikit-learn's splitters go by position, need several images of every class, know no shares of
groups, and StratifiedGroupKFold takes a minute for 100,000 groups. No TensorFlow here.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "val", "test")

Labels = npt.NDArray[np.integer]


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
    parts = deal(np.asarray(labels), ids, (), (1 - val - test, val, test), seed, "split")
    return [SPLITS[part] for part in parts.tolist()]


def deal(labels: Labels, keys: Sequence[str], groups: Sequence[str], shares: Sequence[Fraction],
         seed: int, purpose: str, fill_first: bool = True) -> npt.NDArray[np.int64]:
    """The part of every image, int64 [n]: each part gets its share of every class, and no group is
    in two.

    Groups come first, the largest first (of equal ones, in the order of a hash): each goes to the
    part that lacks most of the group's classes, as in scikit-learn's StratifiedGroupKFold. The
    other images of each class then fill its parts, see `allocate`.

    Args:
        labels: int [n], class of each image.
        keys: n unique keys, which with seed and purpose decide which images of a class go where.
        groups: n names, empty for an image that is in no group; empty if there are no groups.
        shares: shares of the parts, which add up to 1.
        fill_first: whether the first part gets at least one image of each class that has any
            outside of groups.
    """
    parts, totals = np.full(len(keys), -1), np.bincount(labels)
    lacking = np.multiply.outer(np.array(shares, np.float64), totals)
    members: dict[str, list[int]] = {}
    for row, name in enumerate(groups):
        if name:
            members.setdefault(name, []).append(row)
    several = sorted((name for name, rows in members.items() if len(rows) > 1),
                     key=lambda name: (-len(members[name]), order_of(seed, purpose, name)))
    for name in several:
        found, counts = np.unique(labels[members[name]], return_counts=True)
        # Rounded, so that equal needs are a tie, which the part with the fewest images wins.
        needs = (lacking[:, found] @ (counts / totals[found])).round(9)
        part = np.lexsort((-lacking.sum(1).round(9), -needs))[0]
        lacking[part, found] -= counts
        parts[members[name]] = part
    deficit = [Fraction(0)] * len(shares)
    for label in np.unique(labels):
        drawn = sorted(np.flatnonzero((labels == label) & (parts < 0)).tolist(),
                       key=lambda row: order_of(seed, purpose, keys[row]))
        taken = np.bincount(parts[(labels == label) & (parts >= 0)], minlength=len(shares)).tolist()
        left = [max(Fraction(0), int(totals[label]) * share - count)
                for share, count in zip(shares, taken, strict=True)]
        if drawn:
            sizes = allocate(len(drawn), [each / sum(left) for each in left], deficit,
                             fill_first and not taken[0])
            parts[drawn] = np.repeat(np.arange(len(shares)), sizes)
    return parts


def allocate(number: int, shares: Sequence[Fraction], deficit: list[Fraction],
             fill_first: bool = True) -> list[int]:
    """Divides `number` by the shares, each rounded up or down, the first at least 1 if asked.

    deficit: how many more each share should have received so far; updated in place.
    """
    exact = [number * share for share in shares]
    counts = [int(part) for part in exact]
    deficit[:] = [before + whole - count
                  for before, whole, count in zip(deficit, exact, counts, strict=True)]
    spare = [part for part, whole in enumerate(exact) if whole > counts[part]]
    spare.sort(key=lambda part: (fill_first and part == 0 and counts[0] == 0, deficit[part]),
               reverse=True)
    for part in spare[:number - sum(counts)]:
        counts[part] += 1
        deficit[part] -= 1
    return counts


def unique_keys(ids: Sequence[str], digests: npt.NDArray[np.uint64]) -> list[str]:
    """A key of each image that does not depend on its place: its id; where that is missing or
    another's too, with the checksum of its bytes.
    """
    times = Counter(ids)
    return [identifier if identifier and times[identifier] == 1 else f"{identifier}\0{digest}"
            for identifier, digest in zip(ids, digests.tolist(), strict=True)]


def merge_groups(namings: Sequence[Sequence[str]]) -> list[str]:
    """Groups of images that belong together by any of several namings.

    Args:
        namings: lists of n names of groups, empty for an image that is in none.

    Returns:
        n names, the smallest of all that lead to one another; empty for an image in no group.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images, nodes = len(namings[0]), dict[str, int]()
    edges = [(row, images + nodes.setdefault(f"{number}:{name}" if len(namings) > 1 else name,
                                             len(nodes)))
             for number, names in enumerate(namings) for row, name in enumerate(names) if name]
    if not edges:
        return [""] * images
    matrix = coo_array((np.ones(len(edges)), tuple(np.transpose(edges))),
                       shape=(images + len(nodes),) * 2)
    component = connected_components(matrix, directed=False)[1].tolist()
    name_of: dict[int, str] = {}
    for name in sorted(nodes, reverse=True):  # the smallest name remains
        name_of[component[images + nodes[name]]] = name
    return [name_of.get(each, "") for each in component[:images]]


def long_tail(labels: Labels, keys: Sequence[str], order: Sequence[int], ratio: float, seed: int
              ) -> npt.NDArray[np.bool_]:
    """Which images to keep, bool [n], so that the class sizes fall exponentially.

    The profile of CIFAR-LT (Cui et al. 2019, doi:10.1109/CVPR.2019.00949): class i of C keeps
    largest * ratio**(-i / (C - 1)) images, rounded down, where largest is the greatest number for
    which every class has enough.

    Args:
        labels: int [n].
        keys: n unique keys, which with the seed decide which images are kept: those of a greater
            ratio are among those of a smaller one if the largest class is the same.
        order: the classes that are kept, from the largest to the smallest.
        ratio: the largest class over the smallest, more than 1.
    """
    counts = np.bincount(labels, minlength=1 + max(order))[list(order)]
    profile = ratio ** (-np.arange(len(order)) / max(1, len(order) - 1))
    # 1e-9: 5000 * 0.01 must not be 49.
    sizes = np.floor(int((counts / profile).min() + 1e-9) * profile + 1e-9).astype(np.int64)
    kept = np.zeros(len(labels), np.bool_)
    for label, size in zip(order, sizes.tolist(), strict=True):
        drawn = sorted(np.flatnonzero(labels == label).tolist(),
                       key=lambda row: order_of(seed, "long tail", keys[row]))
        kept[drawn[:size]] = True
    return kept

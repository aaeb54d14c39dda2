"""Which photo goes to train, val or test: by class, and by nothing but the seed and the photo's id.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

SPLITS = ("train", "val", "test")


def order_of(seed: int, purpose: str, identifier: str) -> bytes:
    """A key to sort by that is drawn of the seed and the identifier, for one purpose."""
    text = f"{seed}\0{purpose}\0{identifier}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def stratify(labels: Sequence[int], ids: Sequence[str], val: Fraction, test: Fraction, seed: int
             ) -> list[str]:
    """The split of every photo.

    Of each class a split gets its share of the photos rounded up or down, and train one at least.
    What rounding leaves over goes to the split that is furthest behind over the classes so far, so
    that many small classes still give a whole data set its shares.

    Args:
        labels: from 0, one a photo.
        ids: of the photos, unique.
        val, test: shares of these splits; the rest is for train, more than 0.
        seed: draws which photos of a class go where.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    splits = [""] * len(labels)
    shares = (1 - val - test, val, test)
    behind = [Fraction(0)] * len(SPLITS)
    for label in sorted(members):
        drawn = sorted(members[label], key=lambda index: order_of(seed, "split", ids[index]))
        start = 0
        for split, count in zip(SPLITS, allocate(len(drawn), shares, behind), strict=True):
            for index in drawn[start:start + count]:
                splits[index] = split
            start += count
    return splits


def allocate(number: int, shares: Sequence[Fraction], behind: list[Fraction]) -> list[int]:
    """`number` in parts, each its share rounded up or down, the first one at least 1.

    behind: how many more each part should have got so far; brought up to date.
    """
    exact = [number * share for share in shares]
    counts = [int(part) for part in exact]
    spare = [part for part, whole in enumerate(exact) if whole > counts[part]]
    due = [before + whole - count
           for before, whole, count in zip(behind, exact, counts, strict=True)]
    spare.sort(key=lambda part: (part == 0 and counts[0] == 0, due[part]), reverse=True)
    for part in spare[:number - sum(counts)]:
        counts[part] += 1
    for part, whole in enumerate(exact):
        behind[part] += whole - counts[part]
    return counts

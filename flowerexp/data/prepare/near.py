"""Near-duplicates in a data set: pairs of images that are nearly the same, and groups of them.

Two images are near if their perceptual hashes (pHash of the package imagehash: the signs of 64 low
frequencies) differ in few bits and their thumbnails correlate. On 3,857 photos of flowers of 96 px,
that found all copies of lower quality, half the size or another brightness and 90 % of those with
3 % cut off at each side, and 9 of 7.4 million pairs of other photos, nearly all of one plant.
"""

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from flowerexp.data import pipeline, splits
from flowerexp.data.pipeline import Split
from flowerexp.data.source import Source
from flowerexp.errors import UserError, counted, one_line
from flowerexp.plots import gallery, style
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

BITS = 10
"""The most bits in which the hashes of two near images differ."""
CORRELATION = 0.85
"""The least correlation of their thumbnails."""
SIDE = 16
"""Height and width of a thumbnail in pixels."""
CONTRAST = 8.0
"""The least standard deviation of a thumbnail: images of one color are near no other."""
BLOCK = 64
"""Number of images that are decoded, and that are compared with all others, at once."""
MOST_PAIRS = 1_000_000
DRAWN = 24
"""The most pairs in the picture."""
LISTED = 20
"""The most pairs that are logged."""

Thumbnails = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Images:
    """The images of all splits, as far as pairs need them.

    splits: the images by split.
    names: class names in label order.
    places: (split, index) of each image.
    hashes: uint64 [n].
    thumbnails: float32 [n, SIDE * SIDE * 3], their product's mean is the correlation.
    """

    splits: dict[str, Split]
    names: tuple[str, ...]
    places: list[tuple[str, int]]
    hashes: npt.NDArray[np.uint64]
    thumbnails: Thumbnails

    def id(self, row: int) -> str:
        split, index = self.places[row]
        return self.splits[split].table.ids[index]

    def caption(self, row: int) -> str:
        split, index = self.places[row]
        label = int(self.splits[split].table.labels[index])
        title = f"{split}: {self.names[label]}" if label >= 0 else split
        return f"{one_line(title)}\n{one_line(self.id(row) or 'no id')}"

    def pixels(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8 [n, size, size, 3]."""
        return np.stack([np.asarray(pipeline.load(self.splits[split], tf.constant([index])))[0]
                         for split, index in map(self.places.__getitem__, rows)])


def describe(pixels: npt.NDArray[np.uint8]) -> tuple[int, Thumbnails]:
    """Hash and thumbnail of an image, uint8 [height, width, 3]."""
    try:
        import imagehash
    except ImportError:
        raise UserError("near-duplicates need the package imagehash: pip install "
                        '-c constraints.txt -e ".[near]"') from None
    image = Image.fromarray(pixels)
    bits = imagehash.phash(image).hash.ravel()
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    centered = small - small.mean((0, 1))
    thumbnail = (centered / max(float(centered.std()), CONTRAST)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes()), thumbnail


def near_pairs(hashes: npt.NDArray[np.uint64], thumbnails: Thumbnails, bits: int = BITS
               ) -> list[tuple[int, int, int]]:
    """(differing bits, row, later row) of all near pairs, the nearest first.

    Raises:
        UserError: for more than MOST_PAIRS.
    """
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start:start + BLOCK]
        distance = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        rows, columns = np.nonzero(np.triu(distance <= bits, 1))
        alike = np.einsum("ij,ij->i", thumbnails[start + rows], thumbnails[start + columns])
        for row, column in np.transpose([rows, columns])[alike >= CORRELATION * len(
                thumbnails[0])].tolist():
            found.append((int(distance[row, column]), start + row, start + column))
        if len(found) > MOST_PAIRS:
            raise UserError(f"more than {MOST_PAIRS:,} pairs of images are nearly the same: give "
                            f"fewer bits than {bits}")
    return sorted(found)


def read(source: Source, advance: Callable[[int], object] = lambda number: None) -> Images:
    """The images of a data set that can be read, with their hashes and thumbnails."""
    tables, names = splits.with_classes({
        split: splits.read_split(source, split, True, "skip") for split in source.splits}, source)
    found = {split: Split(table, source.image_size) for split, table in tables.items()}
    described: list[tuple[int, Thumbnails]] = []
    for images in found.values():
        for start in range(0, images.count, BLOCK):
            rows = tf.range(start, min(start + BLOCK, images.count), dtype=tf.int64)
            described += map(describe, np.asarray(pipeline.load(images, rows)))
            advance(len(rows))
    return Images(found, names, [(split, index) for split, images in found.items()
                                 for index in range(images.count)],
                  np.array([each for each, _ in described], np.uint64),
                  np.stack([each for _, each in described]))


def groups_of(pairs: Sequence[tuple[int, int, int]], ids: Sequence[str]) -> list[tuple[str, str]]:
    """(id, group) of every image with an id that a chain of pairs leads to another.

    A group has the name of its first id.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, rows, columns = np.transpose(pairs)
    matrix = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(ids),) * 2)
    component = connected_components(matrix, directed=False)[1].tolist()
    members: dict[int, list[str]] = {}
    for row in sorted({*rows.tolist(), *columns.tolist()}):
        if ids[row]:
            members.setdefault(component[row], []).append(ids[row])
    return [(each, f"near {min(group)}") for group in members.values()
            for each in dict.fromkeys(group)]


def run(source: Source, output: Path, logger: RunLogger, bits: int = BITS) -> None:
    """Logs the near pairs of a data set, and writes near.png and groups.csv if there are any.

    Args:
        output: folder for both; dataset.groups takes the second.
        bits: the most bits in which the hashes of two near images differ.

    Raises:
        UserError: without the package imagehash, and see `near_pairs`.
    """
    with logger.steps("near-duplicates", None) as advance:
        images = read(source, advance)
    pairs = near_pairs(images.hashes, images.thumbnails, bits)
    across = [pair for pair in pairs if len({images.places[row][0] for row in pair[1:]}) > 1]
    for distance, one, other in across[:LISTED]:
        logger.info("warning: nearly the same image: " + " and ".join(
            images.caption(row).replace("\n", " ") for row in (one, other))
            + f" ({counted(distance, 'bit')} differ)")
    total = (f"near-duplicates: {counted(len(across), 'pair')} across splits and "
             f"{len(pairs) - len(across)} within one, of {counted(len(images.places), 'image')}")
    if not pairs:
        logger.info(total)
        return
    first = [*across, *(pair for pair in pairs if pair not in set(across))][:DRAWN]
    before, after = ([pair[side] for pair in first] for side in (1, 2))
    style.save(gallery.pairs(images.pixels(before), list(map(images.caption, before)),
                             images.pixels(after), list(map(images.caption, after)),
                             f"{total}: the first {counted(len(first), 'pair')}"),
               output / "near.png")
    rows = groups_of(pairs, [images.id(row) for row in range(len(images.places))])
    with store.atomic_write(output / "groups.csv") as partial, \
            partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(itertools.chain([("id", "group")], rows))
    logger.info(f"{total}; picture: {output / 'near.png'}; to keep {counted(len(rows), 'image')} "
                f"in their groups: dataset.groups={output / 'groups.csv'} with dataset.folds or "
                "dataset.validation")

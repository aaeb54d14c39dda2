"""A source of NumPy arrays."""

from dataclasses import dataclass

import numpy as np

from flowerexp.config import Checked, key
from flowerexp.data.sources import Arrays, Source


@dataclass(frozen=True)
class Disks(Checked):
    """Disks of a class's color on a noisy ground; class c has twice the images of class c + 1."""

    images: int = key(120, least=1)
    """Training images of the first class."""
    image_size: int = key(32, least=1)
    classes: int = key(4, least=1)
    seed: int = 0

    def split(self, stream, counts):
        random = np.random.default_rng((self.seed, stream))
        labels = random.permutation(np.repeat(np.arange(self.classes), counts))
        size, count = self.image_size, len(labels)
        images = random.integers(0, 120, (count, size, size, 3))
        middles = random.uniform(size / 3, 2 * size / 3, (count, 2, 1, 1))
        rows, columns = np.mgrid[:size, :size]
        inside = (rows - middles[:, 0])**2 + (columns - middles[:, 1])**2 < (size / 4)**2
        palette = np.random.default_rng(self.seed).integers(60, 256, (self.classes, 3))
        images = np.where(inside[..., None], (images + palette[labels][:, None, None]) // 2, images)
        return Arrays(images.astype(np.uint8), labels)

    def __call__(self):
        long_tail = np.maximum(self.images // 2 ** np.arange(self.classes), 2)
        even = np.full(self.classes, 8)
        test = self.split(2, even)
        names = [f"disk {number}" for number in range(self.classes)]
        return Source.of_arrays(self.split(0, long_tail), self.split(1, even),
                                Arrays(test.images), names, "dataset: disks drawn in memory")

"""The synthetic data set (dataset=sample): drawn flowers, the same on every machine.

Every image is a pure function of its split, label and index. Only raw random bits and operations
that IEEE 754 rounds exactly (+ - * / sqrt floor) are used, so all machines draw the same pixels.
"""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowerexp.data import tfrecord
from flowerexp.errors import UserError
from flowerexp.lazy import tf

Plane = npt.NDArray[np.float64]
"""One value per sample of the canvas (or three, channels first)."""
Color = tuple[float, float, float]
"""Red, green and blue, from 0 to 255."""

IMAGE_SIZE = 64
"""Height and width in pixels."""
OVERSAMPLING = 2
"""Samples per pixel along each axis; the pixel is their mean."""


@dataclass(frozen=True)
class Kind:
    """What the flowers of one class have in common; lengths are in units of the flower's radius."""

    name: str
    petals: tuple[int, int]             # minimum and maximum
    tip: tuple[Color, Color]          # range of the petals' color
    base: tuple[Color, Color]         # range of their color near the center
    disk: float                         # radius of the center
    disk_color: Color
    waist: float                        # how far out the petals are joined
    point: float = 0.0                  # from round petals (0) to pointed ones (1)
    notch: float = 0.0                  # depth of the notch in the end of a petal
    stripe: float = 0.0                 # how strongly the base color runs along the petals
    eye: float = 0.35                   # how far out the base color reaches
    layers: int = 1                     # rings of petals


WHITE: Color = (248.0, 246.0, 240.0)
YELLOW: Color = (250.0, 206.0, 48.0)

KINDS = (
    Kind("golden daisy", (10, 15), ((250, 196, 24), (255, 226, 110)),
         ((226, 140, 16), (236, 170, 50)), 0.29, (110, 66, 28), 0.40),
    Kind("white daisy", (11, 16), (WHITE, (232, 226, 236)), (WHITE, (214, 212, 190)), 0.27, YELLOW,
         0.38),
    Kind("pink cosmos", (6, 8), ((234, 112, 166), (250, 176, 206)),
         ((186, 48, 112), (224, 96, 156)), 0.16, YELLOW, 0.44, notch=0.13),
    Kind("blue star", (5, 7), ((70, 96, 214), (124, 150, 240)),
         ((200, 196, 246), (226, 232, 250)), 0.14, YELLOW, 0.30, point=0.68),
    Kind("red poppy", (4, 6), ((206, 28, 28), (240, 70, 50)), ((56, 10, 20), (150, 40, 40)), 0.18,
         (44, 46, 36), 0.66, eye=0.43),
    Kind("violet periwinkle", (5, 6), ((112, 84, 204), (166, 126, 228)),
         ((216, 206, 250), (244, 240, 252)), 0.10, YELLOW, 0.42, point=0.15, eye=0.40),
    Kind("yellow trumpet", (6, 7), ((252, 222, 80), (255, 244, 170)),
         ((240, 180, 40), (244, 200, 70)), 0.35, (240, 130, 24), 0.34, point=0.50),
    Kind("striped lily", (6, 6), ((250, 226, 232), (246, 176, 206)),
         ((214, 60, 110), (226, 110, 150)), 0.11, (150, 170, 60), 0.28, point=0.72, stripe=0.8),
    Kind("cream marigold", (10, 14), ((252, 206, 60), (252, 240, 180)),
         ((232, 160, 36), (240, 186, 80)), 0.26, (150, 94, 32), 0.43, notch=0.06, layers=2),
    Kind("rose mallow", (5, 6), ((234, 110, 160), (250, 172, 200)),
         ((166, 30, 84), (206, 72, 128)), 0.15, (246, 220, 120), 0.49, notch=0.07, eye=0.39),
    Kind("indigo clematis", (6, 8), ((74, 80, 196), (132, 126, 232)),
         ((190, 176, 240), (212, 206, 248)), 0.16, (244, 222, 120), 0.30, point=0.65, stripe=0.25),
    Kind("scarlet anemone", (5, 7), ((204, 30, 34), (240, 74, 64)),
         ((186, 96, 90), (252, 222, 210)), 0.19, (40, 34, 50), 0.60, eye=0.42),
)
CLASS_NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
"""Class names in label order, the most common class first."""
TRAIN_COUNTS = (160, 130, 105, 85, 69, 56, 46, 37, 30, 24, 20, 16)
"""Training images of each class: about 0.81 times those of the class before."""
COUNTS = {"train": TRAIN_COUNTS, "val": (24,) * len(KINDS), "test": (24,) * len(KINDS)}
"""Images of each class in each split."""
PIXELS_SHA256 = {
    "train": "5a6c92b5c2a28cbb9657eb77d1af3473649e5b73c07788bbd7f6c76acf1d8ba9",
    "val": "c437728750404775d8e52608a0804a468575473118959974a96eefd7730cfdeb",
    "test": "4220cadcf7892ed834a4471c9810aaa43d9b010de582fa7205b3672728ecc982",
}
"""Hash of each split's pixels, followed by its labels as little-endian 32-bit integers."""


def inside(distance: Plane, softness: float) -> Plane:
    """The coverage of each sample, 0 to 1; `distance` is positive inside the shape."""
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


def multiple_angle(x: Plane, y: Plane, times: int) -> tuple[Plane, Plane]:
    """Cosine and sine of a multiple of the angle whose cosine is x and sine y: (x + iy)^times."""
    if times == 1:
        return x, y
    cosine, sine = multiple_angle(x, y, times // 2)
    cosine, sine = cosine * cosine - sine * sine, 2.0 * (cosine * sine)
    if times % 2:
        cosine, sine = cosine * x - sine * y, cosine * y + sine * x
    return cosine, sine


class Drawing:
    """An image being drawn, and the random numbers that decide what is drawn.

    They are from the raw Philox stream, which NumPy keeps the same in all versions. Lengths are in
    half image sides.
    """

    def __init__(self, key: int) -> None:
        self._stream = np.random.Philox(key=key)
        size = IMAGE_SIZE * OVERSAMPLING
        # The samples' coordinates go from -1 to 1, y pointing down: x [1, size] and y [size, 1].
        axis = (2.0 * np.arange(size, dtype=np.float64) + 1.0 - size) / size
        self.x, self.y = axis[None, :], axis[:, None]
        self.canvas = np.zeros((3, size, size))

    def raw(self, count: int) -> npt.NDArray[np.uint64]:
        """Integers of 64 random bits, uint64 [count]."""
        return np.asarray(self._stream.random_raw(count), np.uint64)

    def between(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * ((int(self.raw(1)[0]) >> 11) / 9007199254740992)

    def integer(self, low: int, high: int) -> int:
        """One integer from low to high, both included."""
        return low + int(self.raw(1)[0]) % (high - low + 1)

    def direction(self) -> tuple[float, float]:
        """One unit vector, from rational points of the circle, without sine and cosine."""
        slope = self.between(-1.0, 1.0)
        side = 1.0 if self.between(0.0, 1.0) < 0.5 else -1.0
        length = 1.0 + slope * slope
        return side * (1.0 - slope * slope) / length, side * 2.0 * slope / length

    def color(self, first: Color, second: Color, jitter: float) -> Plane:
        """A random color [3, 1, 1] between two, each channel changed by up to `jitter`."""
        share = self.between(0.0, 1.0)
        return np.array([one + (two - one) * share + self.between(-jitter, jitter)
                         for one, two in zip(first, second, strict=True)]).reshape(3, 1, 1)

    def paint(self, coverage: Plane, color: Plane) -> None:
        """Blends color [3, rows or 1, columns or 1] into the canvas by coverage, 0 to 1."""
        rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
        if rows.size:  # only the bounding box is computed
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            part = self.canvas[:, *box]
            part += coverage[box] * (np.broadcast_to(color, self.canvas.shape)[:, *box] - part)

    def background(self) -> None:
        """Fills the canvas with a gradient of two greens (or earth, or sky) and blurred spots."""
        dark: Color = (28.0, 62.0, 30.0)
        light = ((120, 160, 80), (150, 130, 96), (140, 176, 200))[self.integer(0, 2)]
        near, far = self.color(dark, light, 18.0), self.color(dark, light, 18.0)
        across, down = self.direction()
        self.canvas[:] = near
        self.paint(np.clip(0.5 + 0.4 * (across * self.x + down * self.y), 0.0, 1.0), far)
        for _ in range(self.integer(2, 4)):
            x, y = self.x - self.between(-1.0, 1.0), self.y - self.between(-1.0, 1.0)
            size = self.between(0.15, 0.5)
            spot = self.color(dark, (196.0, 206.0, 150.0), 20.0)
            self.paint(0.5 * np.clip(1.4 - 1.4 * (x * x + y * y) / (size * size), 0.0, 1.0), spot)

    def leaf(self, width: float) -> None:
        """Draws a pointed leaf with a light rib at a random place."""
        across, down = self.direction()
        x, y = self.x - self.between(-0.8, 0.8), self.y - self.between(-0.8, 0.8)
        along = (across * x + down * y) / self.between(0.45, 0.8)
        aside = across * y - down * x
        green = self.color((40.0, 92.0, 36.0), (112.0, 164.0, 70.0), 14.0)
        light = 0.85 + 0.3 * inside(aside, 0.5 * width) + 0.25 * inside(
            0.012 - np.abs(aside), 0.02)
        self.paint(inside(width * (1.0 - along * along) - np.abs(aside), 0.03), light * green)

    def stem(self, left: float, top: float) -> None:
        """Draws a bent stem from a flower at (left, top) down to the lower edge."""
        below = self.y - top
        middle = left + self.between(-0.35, 0.35) * below * below
        green = self.color((52.0, 104.0, 40.0), (104.0, 150.0, 66.0), 12.0)
        coverage = inside(0.04 - np.abs(self.x - middle), 0.03) * inside(below, 0.05)
        self.paint(coverage, (0.9 + 4.0 * (self.x - middle)) * green)

    def flower(self, kind: Kind, left: float, top: float, radius: float) -> None:
        """Draws a flower at (left, top), randomly rotated and tilted."""
        across, down = self.direction()
        tilt = self.between(1.0, 1.65)
        x, y = self.x - left, self.y - top
        u, v = (across * x + down * y) / radius, (across * y - down * x) * tilt / radius
        distance = np.sqrt(u * u + v * v) + 1e-9
        # Rotated after tilting, or the tilt would always be along a petal.
        turn, other = self.direction()
        u, v = (u * turn - v * other) / distance, (u * other + v * turn) / distance
        petals = self.integer(*kind.petals)
        cosine, sine = multiple_angle(u, v, petals)
        waist = kind.waist + self.between(-0.08, 0.08)
        point = kind.point + self.between(-0.15, 0.15)
        notch = kind.notch * self.between(0.5, 1.4)
        tip, base = self.color(*kind.tip, 16.0), self.color(*kind.base, 16.0)
        whirl = self.between(-0.12, 0.12)
        for layer in range(kind.layers):
            # The next ring is smaller and rotated by half a petal, which only flips the sign.
            sign, size = 1.0 - 2.0 * (layer % 2), 1.0 - 0.28 * layer
            middle = np.sqrt(np.clip(0.5 + 0.5 * sign * cosine, 0.0, 1.0))
            edge = np.sqrt(np.clip(0.5 - 0.5 * sign * cosine, 0.0, 1.0))
            rounded = np.sqrt(middle)
            fourth = middle * middle * middle * middle
            outline = rounded + point * ((1.0 - edge) - rounded) - notch * fourth * fourth
            outline = size * (waist + (1.0 - waist) * outline)
            reach = distance / outline
            shadow = np.array((12.0, 22.0, 14.0)).reshape(3, 1, 1)
            self.paint(0.45 * inside(outline - distance + 0.04, 0.30), shadow)
            near = np.clip((kind.eye - reach) / 0.25 + 0.5, 0.0, 1.0)
            middle_line = np.clip(1.0 - 5.0 * edge, 0.0, 1.0)
            stripe = kind.stripe * middle_line * np.clip(1.3 - reach, 0.0, 1.0)
            color = tip + np.maximum(near, stripe) * (base - tip)
            light = 0.66 + 0.26 * rounded + 0.12 * reach + whirl * sign * sine
            self.paint(inside(outline - distance, 0.03 / radius), light * color)
        # The center: a dome with a frayed edge, darker in the middle.
        disk = kind.disk * self.between(0.85, 1.15) * (1.0 + 0.06 * sine)
        color = self.color(kind.disk_color, kind.disk_color, 20.0)
        height = distance / disk
        light = 0.72 + 0.75 * height * height - 0.55 * height * height * height
        self.paint(inside(disk - distance, 0.06), light * color)

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The canvas, averaged to uint8 [64, 64, 3], under light of a random color, with noise."""
        across, down = self.direction()
        light = self.between(0.66, 1.12) + self.between(0.0, 0.22) * (
            across * self.x + down * self.y)
        cast = self.color((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.10)
        samples = np.floor(np.clip(self.canvas * light * cast, 0.0, 255.0) + 0.5).astype(np.int64)
        blocks = samples.reshape(3, IMAGE_SIZE, OVERSAMPLING, IMAGE_SIZE, OVERSAMPLING)
        pixels = np.moveaxis(blocks.sum(axis=(2, 4)) // (OVERSAMPLING * OVERSAMPLING), 0, -1)
        strength = self.integer(4, 15)
        raw = self.raw(IMAGE_SIZE * IMAGE_SIZE).reshape(IMAGE_SIZE, IMAGE_SIZE)
        octets = [(raw >> np.uint64(8 * place) & np.uint64(255)).astype(np.int64)
                  for place in range(7)]
        # The sum of four bytes, nearly normal, is the noise that all channels share.
        shared = octets[0] + octets[1] + octets[2] + octets[3] - 510
        noise = np.stack([shared + octet - 128 for octet in octets[4:]], -1)
        noisy: npt.NDArray[np.int64] = pixels + noise * strength // 256
        return np.clip(noisy, 0, 255).astype(np.uint8)


def draw_image(split: str, label: int, index: int) -> npt.NDArray[np.uint8]:
    """The uint8 [64, 64, 3] image with this index (from 0) among those of its class in a split."""
    drawing = Drawing(1 + index + 1000 * (label + 100 * list(COUNTS).index(split)))
    between = drawing.between
    drawing.background()
    for _ in range(drawing.integer(1, 4)):
        drawing.leaf(between(0.08, 0.22))
    left, top = between(-0.28, 0.28), between(-0.28, 0.28)
    if between(0.0, 1.0) < 0.25:
        away, up = drawing.direction()
        drawing.flower(KINDS[label], left + 0.75 * away, top + 0.75 * up, between(0.28, 0.45))
    drawing.stem(left, top)
    drawing.flower(KINDS[label], left, top, between(0.40, 0.78))
    if between(0.0, 1.0) < 0.3:
        drawing.leaf(between(0.06, 0.16))
    return drawing.pixels()


def draw_split(split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], list[str]]:
    """The images uint8 [n, 64, 64, 3], labels int32 [n] and ids of train, val or test, shuffled.

    An id contains split, label and index, so that test predictions can be scored as well. Takes
    about 5 ms per image. Raises AssertionError if the pixels differ from the published ones.
    """
    members = [(label, index) for label, count in enumerate(COUNTS[split])
               for index in range(count)]
    # A key above those of images; sorting raw numbers shuffles equally in every NumPy.
    order = np.argsort(Drawing(10**9 + list(COUNTS).index(split)).raw(len(members)), kind="stable")
    members = [members[place] for place in order]
    images = np.stack([draw_image(split, label, index) for label, index in members])
    labels = np.array([label for label, _ in members], np.int32)
    found = hashlib.sha256(images.tobytes() + labels.astype("<i4").tobytes()).hexdigest()
    assert found == PIXELS_SHA256[split], (
        f"the {split} split of the synthetic data set came out with other pixels on this machine "
        f"(NumPy {np.__version__}): SHA-256 {found}, not {PIXELS_SHA256[split]}")
    return images, labels, [f"{split}-{label:02d}-{index:03d}" for label, index in members]


def write(parent: Path) -> Path:
    """Draws the data set and writes it below `parent`, unless it exists; returns its folder.

    The folder's name contains a hash of the pixels, so that every version has its own. The folder
    is created complete or not at all, even if several processes write it at the same time.
    """
    name = f"{IMAGE_SIZE}x{IMAGE_SIZE}"
    folder = parent / f"sample-{PIXELS_SHA256['train'][:8]}"
    records = folder / f"tfrecords-jpeg-{name}"
    if records.is_dir():
        return records
    partial = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".sample-", dir=parent))
        for split in COUNTS:
            images, labels, ids = draw_split(split)
            encoded = [tf.io.encode_jpeg(image, quality=95, chroma_downsampling=False).numpy()
                       for image in images]
            (partial / records.name / split).mkdir(parents=True)
            tfrecord.write(partial / records.name / split / f"00-{name}-{len(ids)}.tfrec", encoded,
                           None if split == "test" else labels.tolist(), ids)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        if not records.is_dir():  # no other process has written it meanwhile
            raise UserError(f"the synthetic sample cannot be written to {parent} "
                            f"({error.strerror}): give dataset.root=FOLDER") from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
    return records

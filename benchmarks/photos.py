"""The images of the benchmarks: photos next to the checkout, otherwise noise of similar detail."""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from flowerexp.data import records, tfrecord
from flowerexp.data.features import ReadSpec

SHARED = Path(__file__).parents[2] / "shared/data/oxford102"


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=SHARED,
                        help="folder of tfrecords-jpeg-SxS (default ../shared/data/oxford102)")


def training_files(folder: Path, size: int) -> Path:
    """The folder of the training set's files, for a benchmark that needs the files themselves.

    Raises:
        SystemExit: if they do not exist.
    """
    files = folder / f"tfrecords-jpeg-{size}x{size}/train"
    if not files.is_dir():
        raise SystemExit(f"{files} is not there: choose the folder with --data")
    return files


def training_set(folder: Path, size: int, most: int) -> tuple[list[bytes], npt.NDArray[np.int32]]:
    """At most `most` JPEGs of the training set and their int32 labels; prints which ones.

    Without a training set they are noise with the detail of photos.
    """
    files = folder / f"tfrecords-jpeg-{size}x{size}/train"
    if not files.is_dir():
        print(f"{files} is not there: {most} noisy JPEGs of {size} px instead")
        return photo_like(most, size), np.arange(most, dtype=np.int32) % 102
    table = records.read(tfrecord.list_files(str(files)), ReadSpec(size))
    assert table.images is not None
    images = table.images.numpy().tolist()[:most]
    print(f"{len(images)} photos of {files.parent.name}, {np.mean([*map(len, images)]):,.0f} bytes "
          "each")
    return images, table.labels[:most]


def photo_like(count: int, size: int) -> list[bytes]:
    """JPEGs with the detail of photos: about 12 kB at 192 px, as in the flower data."""
    rng = np.random.default_rng(1)
    coarse = tf.constant(rng.integers(0, 256, (count, 12, 12, 3)), tf.float32)
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy()
    noisy = np.clip(smooth + rng.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
    return [tf.io.encode_jpeg(image, quality=90).numpy() for image in noisy]

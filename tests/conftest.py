"""What several tests share: golden vectors, two cores as four devices, a tiny data set."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def shared():
    """The folder of golden vectors and photos beside the checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is not here: golden vectors, photos and weights")
    return folder


@pytest.fixture(scope="session", autouse=True)
def logical_devices():
    """Four logical processors, so that tests of this process can distribute."""
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * 4)
    tf.config.list_logical_devices("CPU")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A data set of three blurred colours, 16 px: 40 train, 13 val and 7 test images."""
    import numpy as np
    import tensorflow as tf

    from flowerexp import records

    random = np.random.default_rng(0)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    root = tmp_path_factory.mktemp("tiny data")
    labels = {"train": np.repeat([0, 1, 2], [24, 11, 5]), "val": np.arange(13) % 3,
              "test": np.arange(7) % 3}
    for split, ids in labels.items():
        noise = random.integers(-60, 55, (len(ids), 16, 16, 3))
        images = (colours[ids][:, None, None] + noise).astype(np.uint8)
        encoded = [tf.io.encode_jpeg(image, quality=95).numpy() for image in images]
        half = len(ids) // 2
        (root / split).mkdir()
        for number, part in enumerate((slice(None, half), slice(half, None))):
            names = [f"{split}{index}" for index in range(len(ids))[part]]
            records.write(root / split / f"{number:02d}-16x16-{len(names)}.tfrec", encoded[part],
                          None if split == "test" else ids[part].tolist(), names)
    return root

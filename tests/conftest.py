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
    from tests.processes import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny data"))

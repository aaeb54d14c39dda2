"""What several tests share: golden vectors, two cores as four devices, a tiny data set."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

LONG = ("test_session", "test_launch", "test_own_parts", "test_api", "test_python_docs",
        "test_workers", "test_failures", "test_packaging", "test_convert_stopped")
"""Modules of few and long tests, which come first so that the workers end together."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


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


@pytest.fixture(scope="session", autouse=True)
def forked_previews():
    """The processes that preview runs of this process have no TensorFlow to import."""
    from flowerexp.train import preview
    from tests import forked

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(preview, "multiprocessing",
                        SimpleNamespace(get_context=lambda method: forked.SERVER))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A data set of three blurred colours, 16 px: 40 train, 13 val and 7 test images."""
    from tests.processes import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny data"))


@pytest.fixture(scope="session")
def trained_run(tiny, tmp_path_factory):
    """A finished run on `tiny`, trained in this process; its best epoch is not its last."""
    from tests.processes import train

    return train(tmp_path_factory.mktemp("trained") / "a run", tiny)


@pytest.fixture
def copied(trained_run, tmp_path):
    """A copy of the run that a test may harm."""
    return shutil.copytree(trained_run, tmp_path / "copied")


@pytest.fixture(scope="module")
def hydra_of_the_project():
    """Lets this process compose the project's configs."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from flowerexp import composition

    composition.register()
    with initialize_config_dir(str(composition.conf_folder()), version_base="1.3"):
        yield
    assert not GlobalHydra.instance().is_initialized()


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """Two seeds each of a baseline and a better and shorter run, and runs of hostile names."""
    from tests.html import compare_hostile

    return compare_hostile(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def page(compared, tmp_path_factory):
    """The page of `compared`, with its pictures."""
    from flowerexp.comparison import report

    return report.write(compared, tmp_path_factory.mktemp("comparison of all") / report.PAGE,
                        files=True)

"""Runs without pictures, for the tests of comparisons."""

import pytest
from matplotlib.figure import Figure

from flowerexp.plots import classes, confusion, history
from tests.folders import write_healthy


@pytest.fixture(scope="session")
def healthy(tmp_path_factory):
    return write_healthy(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def empty_pictures(monkeypatch):
    """Pictures of nothing, for tests that do not look into them."""
    for module in (history, confusion, classes):
        monkeypatch.setattr(module, "draw", lambda *_, **options: Figure((1, 1)))

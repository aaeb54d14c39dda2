"""Configs composed in this process, through the same `one_sentence` that `run.py` ends with."""

from pathlib import Path

import pytest
from hydra import compose

from flowerexp import composition

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
RUN = ROOT / "run.py"


def checked(*overrides):
    return composition.check(compose("config", overrides=list(overrides)))


def sentence(*overrides):
    """What run.py ends with for a command."""
    with pytest.raises(SystemExit) as ended, composition.one_sentence():
        checked(*overrides)
    return ended.value.code

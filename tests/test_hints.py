"""What an unknown key is answered with."""

import pytest
from hydra import compose
from omegaconf import OmegaConf

from flowerexp import composition, hints

pytestmark = pytest.mark.usefixtures("hydra_of_the_project")


def test_every_key_and_group_that_is_pointed_at_exists():
    composed = compose("config", ["optimizer=adamw", "loss=cross_entropy"])
    groups = {path.name for path in composition.conf_folder().iterdir() if path.is_dir()}
    for key in {*hints.FOREIGN} - {"hydra.run.dir"} - groups:
        assert OmegaConf.select(composed, key, default=...) is not ..., key


def test_no_foreign_name_has_two_meanings():
    names = [name for line in hints.FOREIGN.values() for name in line.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("key", "meant"), [
    ("loop.epoch", "loop.epochs"),          # a typing error within the group
    ("epochs", "loop.epochs"),              # the only key of this name
    ("trainer.max_epochs", "loop.epochs"),  # another tool's
    ("lop.epochs", "loop.epochs")])
def test_a_key_is_answered_with_the_one_that_was_meant(key, meant):
    valid = ["loop", "loop.epochs", "loop.patience", "loss.kind", "optimizer.kind"]
    assert hints.hint(key, valid) == f"; did you mean '{meant}'?"


@pytest.mark.parametrize("key", ["loop.foo", "kind", "xyz"])
def test_nothing_is_guessed_where_nothing_is_near(key):
    valid = ["loop", "loop.epochs", "loss.kind", "optimizer.kind"]
    assert hints.hint(key, valid) == ""

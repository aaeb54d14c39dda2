"""How long a run will train, by the runs that were measured on this machine."""

import platform

import pytest

from flowerexp import composition, identity
from flowerexp.runs import reader, store
from tests.folders import compose, write_run

pytestmark = pytest.mark.usefixtures("registered")

SMALL = ("dataset=sample", "hardware=cpu")


@pytest.fixture(scope="module")
def registered():
    composition.register()


@pytest.fixture
def measured(tmp_path):
    """Writes runs of 100 images an epoch with these seconds, as this machine would."""
    def write(name, *overrides, seconds, host=None, size=64):
        folder = write_run(tmp_path / name, [*SMALL, *overrides], [0, 1], [[0, 1]] * len(seconds),
                           seconds=seconds)
        status = store.read_json(folder / store.STATUS)
        plan = {"updates_per_epoch": 5, "replicas": 1, "accumulation": 2, "batch_size": 10}
        store.write_json(folder / store.STATUS, status | {
            "host": host or platform.node(), "data": {"image_size": size},
            "provenance": status["provenance"] | plan})
    return write


def estimate(folder, *overrides, size=64):
    config = composition.check(compose((*SMALL, *overrides)))
    return reader.seconds_per_image(folder, identity.plain(config), size)


def test_without_a_measured_run_nothing_is_estimated(tmp_path):
    assert estimate(tmp_path) is None


def test_the_first_epoch_compiles_and_is_left_out_unless_it_is_the_only_one(tmp_path, measured):
    measured("a", seconds=[50.0, 2.0, 4.0, 3.0])
    assert estimate(tmp_path) == pytest.approx(0.03)
    measured("sweep/b", "seed=1", "loop.epochs=3", "sampling=oversample_100", seconds=[5.0])
    assert estimate(tmp_path, "loop.lr_scaling=8") == pytest.approx(0.04)
    assert estimate(tmp_path / "sweep") == pytest.approx(0.04)


@pytest.mark.parametrize(("overrides", "options"), [
    (["model=mobilenet", "model.weights=null"], {}), (["hardware.replicas=2"], {}),
    (["augmentation=perspective"], {}), (["loop.batch_size_per_replica=4"], {}),
    ([], {"size": 96}), ([], {"host": "another machine"})])
def test_a_run_of_another_speed_does_not_count(tmp_path, measured, overrides, options):
    measured("a", *overrides, seconds=[1.0, 1.0], **options)
    assert estimate(tmp_path) is None


def test_damaged_folders_are_passed_over(tmp_path, measured):
    for name, file, text in (("a", store.HISTORY, "{"), ("b", store.STATUS, "[]"),
                             ("c", store.CONFIG, "x: ["), ("d", store.HISTORY, "{}")):
        measured(name, seconds=[1.0, 1.0])
        (tmp_path / name / file).write_text(text)
    assert estimate(tmp_path) is None

"""The commands of python -m flowerexp, as processes."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from typer.testing import CliRunner

from flowerexp.api import results
from flowerexp.augment import Flip, base
from flowerexp.cli import main
from flowerexp.data import pipeline, records, sampling, tfrecord
from flowerexp.data.features import ReadSpec
from flowerexp.strategy import factory
from tests import forked
from tests.processes import command_here


def command(folder, *words):
    return forked.run(["-m", "flowerexp", *words], folder)


def test_eda_augmentation_shows_the_first_images_of_the_first_epoch(tiny, tmp_path, monkeypatch):
    asked = []
    build = factory.build_strategy
    monkeypatch.setattr(factory, "build_strategy", lambda hardware: asked.append(
        hardware.kind) or build(hardware))
    code, said = command_here(
        "eda", "augmentation", "dataset=tfrecords", f"dataset.root='{tiny}'", "augmentation=flip",
        "augmentation.flip.horizontal=1", "--images", "6", "--output", tmp_path / "shown here.png")
    assert code == 0, said
    assert "Flip(horizontal=1.0" in said
    assert asked == ["cpu"], "a picture takes no memory of a GPU"
    picture = matplotlib.image.imread(tmp_path / "shown here.png")
    shown = {tuple(pixel) for pixel in (picture[..., :3] * 255).round().astype(int)
             .reshape(-1, 3).tolist()}
    files = tfrecord.list_files(str(tiny / "train"))
    images = pipeline.cache_decoded(pipeline.Split(records.read(files, ReadSpec(16)), 16))
    order = sampling.epoch_indices(images.table.labels, sampling.Original(), 0, 0, 6)
    for pixels in images.decoded.numpy()[order]:
        # 16 pixels drawn over 200: the middles of most of them stand in the picture as they are.
        found = [tuple(pixel) in shown for pixel in pixels.reshape(-1, 3).tolist()]
        assert np.mean(found) > 0.9
    unseen = np.setdiff1d(np.arange(40), order)[0]
    found = [tuple(pixel) in shown for pixel in
             images.decoded.numpy()[unseen].reshape(-1, 3).tolist()]
    assert np.mean(found) < 0.5


@pytest.mark.parametrize(("words", "message"), [
    (["augmentation=none"], "choose one, for example augmentation=perspective"),
    (["augmentation=flop"], "augmentation=flop does not exist"),
    (["augmentation=[flip,flop]"], "augmentation=flop does not exist"),
    (["augmentation=[cutmix,mixup]"], "leave out one of the two"),
    (["augmentation=flip", "--output", "picture.jpg"], "must end in .png"),
    (["augmentation=flip", "hardware=workers"], "eda runs in one process"),
    (["augmentation=flip", "dataset=tfrecords", "dataset.root=/nowhere"], "/nowhere")])
def test_mistakes_end_in_one_sentence_and_no_picture(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, said = command_here("eda", "augmentation", *words)
    assert code == 1
    assert message in said
    assert said.startswith("flowerexp: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_names_every_command():
    for words, expected in (([], ["compare", "eda", "data", "resume"]),
                            (["eda"], ["--output", "OVERRIDES", "augmentation", "--images"])):
        code, page = command_here(*words, "--help")
        assert code == 0
        assert all(word in page for word in expected)


def test_the_batch_of_the_picture_is_that_of_a_run(tiny):
    """A wrapped augmentation changes nothing: the same pixels as the pipeline of a run gives."""
    from flowerexp.data.batching import Plan

    files = tfrecord.list_files(str(tiny / "train"))
    images = pipeline.cache_decoded(pipeline.Split(records.read(files, ReadSpec(16)), 16))
    augment = base.build({"flip": Flip()}, 3, 4)
    plan = Plan(1, 1, 4, 2, 1, 8, 1, 1)
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    batch = next(iter(pipeline.training_batches(strategy, images, sampling.Original(), plan, 3,
                                                augment)(0, 0)))
    order = sampling.epoch_indices(images.table.labels, sampling.Original(), 3, 0, 8)
    expected = augment({"image": tf.constant(images.decoded.numpy()[order]),
                        "label": tf.constant(images.table.labels[order])}, 0, tf.range(
                            8, dtype=tf.int64))
    np.testing.assert_array_equal(batch["image"], expected["image"])
    assert (expected["image"].numpy() != images.decoded.numpy()[order]).any()


@pytest.mark.parametrize("words", [
    [], ["predict"], ["evaluate"], ["export"], ["compare"], ["resume"], ["eda"],
    ["data"], ["data", "check"], ["data", "import"], ["data", "from-folder"],
    ["data", "from-tfds"], ["data", "from-huggingface"],
    ["data", "oxford102"], ["data", "kaggle"]])
@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_the_terminal_and_cuts_no_description(words, columns):
    shown = CliRunner().invoke(main.app, [*words, "--help"], terminal_width=columns)
    assert shown.exit_code == 0
    page = shown.output
    assert [line for line in page.splitlines() if len(line) > columns] == []
    assert "..." not in page.partition("Commands:")[2]


@pytest.mark.parametrize(("words", "expected", "options"), [
    (["predict", "run", "a.jpg", "--flip", "both"], [[Path("run")], [Path("a.jpg")]],
     {"weights": None, "flip": "both", "trust_code": False}),
    (["evaluate", "run", "data", "--weights", "best", "--trust-code"],
     [[Path("run")], [Path("data")]],
     {"weights": "best", "flip": None, "common": False, "split": None, "trust_code": True}),
    (["export", "run", "out"], [Path("run"), Path("out")], {"weights": None, "trust_code": False}),
    (["compare", "a", "b", "--pairs", "a:b,b:a", "--pairs", "c:a", "--epoch", "best"],
     [Path("a"), Path("b")], {"pairs": ["a:b,b:a", "c:a"], "epoch": "best",
                                   "common": False})])
def test_commands_call_the_functions_of_the_api(monkeypatch, words, expected, options):
    given = []
    monkeypatch.setattr(results, words[0], lambda *words, **options: given.append(
        (list(words), options)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command_here(*words)
    ((positional, named),) = given
    named.pop("logger", None)
    assert (positional, named) == (expected, options)


def test_eda_writes_below_outputs_unless_told_otherwise():
    page = " ".join(command_here("eda", "--help")[1].split())
    assert "(default: outputs/eda or outputs/augmentation.png)" in page


def test_override_in_place_of_a_command_is_answered_with_run(tmp_path):
    done = command(tmp_path, "model=mobilenet", "seed=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean flowerexp run model=mobilenet?" in done.stderr


def test_tables_go_to_devices_and_unreadable_runs_are_a_failure(trained_run, copied):
    """A device is written and stays; a comparison of nothing ends with 1."""
    code, said = command_here("compare", trained_run, "--csv", "/dev/null")
    assert (code, said) == (0, "")
    assert Path("/dev/null").is_char_device()
    (copied / "status.json").write_text('{"state": 7}')
    code, said = command_here("compare", copied)
    assert code == 1
    assert "unreadable" in said

"""Looking before training: what the page and its pictures hold of a data set, and the command."""

import base64
import html
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from flowerexp import composition, eda
from flowerexp.data import batching, pipeline, sampling
from flowerexp.data.prepare import checks
from flowerexp.data.sampling import Original
from flowerexp.errors import UserError
from flowerexp.models import schedules
from flowerexp.plots import page
from flowerexp.runs.log import RunLogger
from flowerexp.train import experiment
from tests.data.test_records import example, jpeg, write_serialized
from tests.html import CLASSES, Elements, outside, policy_and_needed
from tests.processes import command_here

NAMES = CLASSES[:3]
COUNTS = [24, 11, 5]
OVERRIDES = ["dataset=tfrecords", "sampling=oversample", "sampling.target_count=12",
             "loop.batch_size_per_replica=4", "loop.gradient_accumulation_steps=2",
             "loop.epochs=4", "hardware=cpu", "hardware.replicas=2", "schedule=cosine",
             "schedule.end_lr=1e-5", "augmentation=mixup"]


@pytest.fixture(scope="module")
def config(tiny):
    composition.register()
    return composition.check(composition.compose([*OVERRIDES, f"dataset.root='{tiny}'"]))


def load(config, cache="encoded"):
    config.dataset.cache = cache
    return experiment.load_data(config.dataset, RunLogger())


# The command

@pytest.fixture(scope="module")
def command(tiny, tmp_path_factory):
    """The command with hostile class names: (its folder, what it printed)."""
    place = tmp_path_factory.mktemp("eda")
    (place / "names.txt").write_text("\n".join(NAMES))
    code, said = command_here(
        "eda", *OVERRIDES, f"dataset.root='{tiny}'", "--output", place / "look",
        f"dataset.class_names='{place / 'names.txt'}'")
    assert code == 0, said
    return place / "look", said


def test_command_says_the_numbers_of_the_run(command, config):
    printed = command[1].splitlines()
    numbers = batching.derive(config, np.array(COUNTS), 1, 2)
    assert numbers.updates_per_epoch == 3, "24 + 12 + 12 in updates of 2 x 2 x 4"
    for line in batching.sentences(config, numbers, np.array(COUNTS)):
        assert line in printed
    assert "train: 40 images of 3 classes, 5 to 24 each" in printed
    assert "val: 13 images of 3 classes, 4 to 5 each" in printed
    assert "test: 7 images without labels" in printed
    assert ("batch: each replica receives image uint8 [8, 16, 16, 3], label int32 [8], "
            "second_label int32 [8], mix_weight float32 [8] per update, as 2 x 4 images") in printed


def test_page_is_whole_in_itself_and_names_stay_text(command):
    text = (command[0] / eda.PAGE).read_text(encoding="utf-8")
    assert outside(text) == []
    policy, needed = policy_and_needed(text)
    assert policy == needed
    shown = html.unescape(re.sub("<wbr>", "", text))
    assert all(name in shown for name in NAMES)


def test_page_begins_with_its_pictures(command):
    text = (command[0] / eda.PAGE).read_text(encoding="utf-8")
    main = text.index("<main>")
    first, last = text.index("<img", main), text.rindex("<img")
    assert first < text.index('id="summary"') > last
    assert text.index('id="table"') > last
    assert text.count("<h2", main, first) == 1


def test_pictures_stand_in_the_page_and_beside_it(command):
    files = {path.name: path for path in (command[0] / page.PICTURES).iterdir()}
    assert set(files) == {
        "labels-validation.png", "labels-sampled.png", "repeats.png", "samples-train.png",
        "samples-val.png", "samples-test.png", "batches.png", "learning-rate.png"}
    sources = [attributes["src"] for tag, attributes in
               Elements((command[0] / eda.PAGE).read_text()).found if tag == "img"]
    assert sorted(base64.b64decode(source.partition(",")[2]) for source in sources) == sorted(
        path.read_bytes() for path in files.values())


def test_table_counts_every_split_and_the_sampled_epoch(command, config):
    text = (command[0] / eda.PAGE).read_text(encoding="utf-8")
    table = text[text.index('id="table"'):text.index("</table>")]
    cells = [list(map(int, re.findall(r'<td class="number">(\d+)</td>', row)))
             for row in table.split("<tr>")[2:]]
    labels = np.repeat([0, 1, 2], COUNTS)
    repeats = sampling.example_repeats(labels, config.sampling, config.seed, 0)
    assert cells == [[label, COUNTS[label], [5, 4, 4][label], repeats[labels == label].sum()]
                     for label in range(3)]
    assert cells[0][3] == 24
    assert 11 <= cells[1][3] <= 22
    assert 10 <= cells[2][3] <= 15
    assert "The test split has 7 images without labels" in text


MISTAKES = {("hardware=workers",): "choose hardware=cpu hardware.replicas=N",
            ("--output", "file"): "--output=file is a file: give a folder",
            ("--images", "3"): "--images needs the word augmentation",
            ("augmentaton",): "write key=value",
            ("sweep=notebook",): "a sweep is several",
            ("loop.epochs=0",): "loop.epochs"}
PROGRAM = """
import sys
from typer.testing import CliRunner
from flowerexp.cli import main
for words in eval(sys.argv[1]):
    done = CliRunner().invoke(main.app, ["eda", *words])
    print(done.exit_code, done.output, end="")
print("tensorflow" in sys.modules)
"""


def test_mistakes_are_one_sentence_before_tensorflow(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run([sys.executable, "-c", PROGRAM, repr([*MISTAKES])], cwd=tmp_path,
                          text=True, capture_output=True, timeout=120, check=True)
    *sentences, imported = done.stdout.splitlines()
    assert len(sentences) == len(MISTAKES)
    for sentence, message in zip(sentences, MISTAKES.values(), strict=True):
        assert sentence.startswith("1 flowerexp: ")
        assert message in sentence
    assert imported == "False"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Pictures

@pytest.fixture(scope="module")
def pictured(config):
    """What the page is made of, and its figures by file."""
    config.dataset.cache = "encoded"
    view = eda.prepare(config, RunLogger())
    return view, {picture.file: picture.draw()
                  for several in eda.all_pictures(config, view).values() for picture in several}


def heights(figure):
    return [patch.get_height() for patch in figure.axes[0].patches]


def test_labels_are_drawn_as_shares_of_their_sets(pictured, config):
    figures = pictured[1]
    shares = [24 / 40, 11 / 40, 5 / 40]
    assert heights(figures["labels-validation.png"]) == [*shares, 5 / 13, 4 / 13, 4 / 13]
    labels = np.repeat([0, 1, 2], COUNTS)
    repeats = sampling.example_repeats(labels, config.sampling, config.seed, 0)
    sampled = np.bincount(labels, repeats) / repeats.sum()
    np.testing.assert_allclose(heights(figures["labels-sampled.png"]), [*shares, *sampled])


def test_repeats_are_those_of_the_policy(pictured, config):
    axis = pictured[1]["repeats.png"].axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["2", "1", "0"]
    assert axis.patches[0].get_data().values.tolist() == [12 / 5, 12 / 11, 1]
    labels = np.repeat([0, 1, 2], COUNTS)
    repeats = sampling.example_repeats(labels, config.sampling, config.seed, 0)
    seen = [repeats[labels == label] for label in (2, 1, 0)]
    assert [line[:, 1].tolist() for line in axis.collections[0].get_segments()] == [
        [each.min(), each.max()] for each in seen]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [each.mean() for each in seen])


def test_learning_rate_is_the_table_of_the_run(pictured, config):
    axis = pictured[1]["learning-rate.png"].axes[0]
    rates = schedules.learning_rates(config.schedule, 12, config.loop.lr_scaling)
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), rates)
    assert [text.get_text() for text in axis.texts] == [
        f"first {rates[0]:.3g}", f"highest {rates.max():.3g}", f"last {rates[-1]:.3g}"]


def decoded(images):
    return pipeline.cache_decoded(images).decoded.numpy()


@pytest.mark.parametrize("split", ["train", "val"])
def test_samples_are_images_of_the_split_under_their_class(pictured, split):
    images = pictured[0].splits[split]
    pixels = decoded(images)
    axes = [axis for axis in pictured[1][f"samples-{split}.png"].axes if axis.images]
    assert len(axes) == min(24, images.count)
    found = [int(np.flatnonzero((pixels == axis.images[0].get_array()).all((1, 2, 3)))[0])
             for axis in axes]
    assert sorted(set(found)) == found
    assert [axis.get_title(loc="left") for axis in axes] == [
        str(images.table.labels[index]) for index in found]


def test_batches_are_the_first_updates_of_both_policies(pictured, config):
    view, figures = pictured
    pixels, labels = decoded(view.data.train), view.data.train.table.labels
    for batch, policy, part in zip((view.original, view.sampled), (Original(), config.sampling),
                                   figures["batches.png"].subfigs, strict=True):
        order = sampling.epoch_indices(labels, policy, config.seed, 0, 16)
        np.testing.assert_array_equal(batch["label"], labels[order])
        np.testing.assert_array_equal(batch["image"], pixels[order])
        shown = [axis for axis in part.axes if axis.images]
        assert [axis.get_title(loc="left") for axis in shown] == list(map(str, labels[order[:12]]))
        for axis, index in zip(shown, order, strict=False):
            np.testing.assert_array_equal(axis.images[0].get_array(), pixels[index])
        assert part.get_suptitle().endswith(f"{len(set(labels[order]))} classes in 16 images")


def test_test_images_are_shown_by_their_ids(pictured):
    figure = pictured[1]["samples-test.png"]
    assert [axis.get_title(loc="left") for axis in figure.axes if axis.images] == [
        f"id test{index}" for index in range(7)]


@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
def test_picked_images_are_those_of_the_split_in_order(config, cache):
    images = load(config, cache).train
    expected = decoded(load(config).train)
    for indices in ([39, 0, 17, 20], [19]):
        np.testing.assert_array_equal(pipeline.gather_images(images, np.array(indices)),
                                      expected[indices])


# One record

def test_features_are_those_of_the_first_record(config):
    table = load(config).train.table
    place, features = checks.first_record(table)
    assert place.startswith(f"{table.files[0]}, record 0 (")
    found = {feature.name: (feature.kind, feature.count, feature.value) for feature in features}
    length = len(table.images[0].numpy())
    assert found == {
        "class": ("int64", 1, "0"), "id": ("bytes", 1, "train0"),
        "image": ("bytes", 1, f"JPEG of {length} bytes, 16 x 16 pixels, 3 channels")}


@pytest.mark.parametrize(("values", "kind", "words"), [
    ({"bytes_list": tf.train.BytesList(value=[b"", "\N{ROSE}".encode()])}, "bytes",
     "(empty), \N{ROSE}"),
    ({"bytes_list": tf.train.BytesList(value=[b"\x00\xfe<b>"])}, "bytes",
     "5 bytes, beginning with 00 fe 3c 62 3e"),
    ({"bytes_list": tf.train.BytesList(value=[b"x" * 500])}, "bytes", "x" * 119 + "…"),
    ({"int64_list": tf.train.Int64List(value=[3, -4])}, "int64", "3, -4"),
    ({"float_list": tf.train.FloatList(value=[0.5, 2])}, "float", "0.5, 2"),
    ({}, "no", "")])
def test_any_feature_has_words(values, kind, words):
    feature = checks.describe_feature("a", tf.train.Feature(**values))
    assert (feature.kind, feature.value) == (kind, words)


@pytest.mark.parametrize("cache", ["encoded", "none"])
def test_augmentation_of_a_damaged_image_is_one_sentence(tmp_path, cache):
    """Which nothing decodes before the pipeline does."""
    for split, body in (("train", jpeg(1)[:-40]), ("val", jpeg(2))):
        (tmp_path / split).mkdir()
        write_serialized(tmp_path / split / "a.tfrec", [
            example(image=body, class_=label, id=b"x") for label in (0, 1)])
    composition.register()
    config = composition.check(composition.compose([
        "dataset=tfrecords", f"dataset.root='{tmp_path}'", f"dataset.cache={cache}",
        "augmentation=flip"]))
    with pytest.raises(UserError, match=r"a\.tfrec, record 0: its image is not a valid JPEG"):
        eda.draw_augmentation(config, 2, tmp_path / "a.png", RunLogger())
    assert not (tmp_path / "a.png").exists()

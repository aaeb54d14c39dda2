"""Data sets that tensorflow-datasets and datasets made themselves, converted and trained on."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from flowerexp.cli.main import app
from flowerexp.config import Dataset
from flowerexp.data import records, resizing, splits
from flowerexp.data.prepare import convert as convert_module
from flowerexp.data.prepare import hubs
from flowerexp.data.prepare.convert import ConversionOptions
from flowerexp.data.sources import TFRecords, find
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from tests import forked
from tests.photo_folders import files_of, picture, source_of
from tests.processes import RUN, read

CLASSES = ["rose", "Ga\u0308nseblümchen", "aster"]  # neither sorted nor in the normal form C
NAMES = ("rose", "Gänseblümchen", "aster")


def image(number):
    return picture(number, height=20 + number % 3, width=24 + number % 5)


def convert(open_hub, name, out, columns=None, size=16, **options):
    return hubs.run(open_hub, str(name), out, ConversionOptions(size, **options), 2, RunLogger(),
                    columns or {})


def contents(out):
    """Split -> id -> label, and the pixels of every record by id."""
    source = source_of(out)
    found, pixels = {}, {}
    for split, files in source.files.items():
        table = records.read(files, source.spec(split))
        found[split] = dict(zip(table.ids, table.labels.tolist(), strict=True))
        pixels |= {key: tf.io.decode_jpeg(each, dct_method="INTEGER_ACCURATE").numpy()
                   for key, each in zip(table.ids, table.images.numpy(), strict=True)}
    return source, found, pixels


def records_by_split(out, **options):
    source = source_of(out, **options)
    tables = {split: records.read(files, source.spec(split))
              for split, files in source.files.items()}
    return {split: dict(zip(each.ids, each.labels.tolist(), strict=True))
            for split, each in tables.items()}


def make_tfds(folder, splits, other=None):
    """The folder of a data set of TensorFlow Datasets; splits: name -> numbers of images."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    features = {"image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=CLASSES),
                "file_name": tfds.features.Text()} if other is None else other(tfds.features)

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(
                features))

        def _split_generators(self, _):
            return {split: self._generate_examples(numbers) for split, numbers in splits.items()}

        def _generate_examples(self, numbers):
            values = {"image": lambda n: np.array(image(n)), "label": lambda n: n % 3,
                      "file_name": lambda n: f"{n}.png", "text": str, "real": float}
            for number in numbers:
                yield number, {key: values[key](number) for key in features}

    builder = Made(data_dir=folder)
    builder.download_and_prepare()
    return builder.data_path


def make_hugging_face(folder, splits, other=None, table=None):
    """The folder of a data set of datasets, in Parquet files."""
    datasets = pytest.importorskip("datasets", reason="needs the extra huggingface")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    features = datasets.Features(features if other is None else other(datasets))
    folder.mkdir()
    for split, numbers in splits.items():
        columns = {"image": [image(n) for n in numbers], "label": [n % 3 for n in numbers]}
        datasets.Dataset.from_dict(table(numbers) if table else columns, features=features
                                   ).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


SPLITS = {"train": range(24), "validation": range(24, 33), "test": range(33, 39),
          "unsupervised": range(39, 42)}
EXPECTED = {split: {number: number % 3 for number in SPLITS[name]} for split, name in
            (("train", "train"), ("val", "validation"), ("test", "test"))}


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    return make_tfds(tmp_path_factory.mktemp("tfds"), SPLITS)


@pytest.fixture(scope="module")
def hugging_folder(tmp_path_factory):
    return make_hugging_face(tmp_path_factory.mktemp("hf") / "flowers", SPLITS)


@pytest.fixture(scope="module")
def from_tfds(tfds_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "records"
    assert convert(hubs.tfds, tfds_folder, out)
    return out


@pytest.fixture(scope="module")
def from_hugging_face(hugging_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "records"
    assert convert(hubs.hugging_face, hugging_folder, out)
    return out


def test_splits_classes_and_ids_are_those_of_tfds(from_tfds):
    source, found, pixels = contents(from_tfds)
    assert source.class_names == NAMES
    assert {split: {*each} for split, each in found.items()} == {
        split: {f"{number}.png" for number in each} for split, each in EXPECTED.items()}
    for split in ("train", "val"):
        assert found[split] == {f"{n}.png": label for n, label in EXPECTED[split].items()}
    check_pixels(pixels, lambda identifier: int(identifier.removesuffix(".png")))
    lines = Path(source.folder, "test_labels.csv").read_text().splitlines()
    assert sorted(lines[1:]) == sorted(f"{n}.png,{n % 3}" for n in SPLITS["test"])


def test_splits_classes_and_pixels_are_those_of_hugging_face(from_hugging_face):
    source, found, pixels = contents(from_hugging_face)
    assert source.class_names == NAMES
    for split, name in (("train", "train"), ("val", "validation")):
        assert found[split] == {f"{name}:{row}": number % 3 for row, number in
                                enumerate(SPLITS[name])}
    starts = {name: numbers[0] for name, numbers in SPLITS.items()}
    check_pixels(pixels, lambda identifier: starts[identifier.partition(":")[0]]
                 + int(identifier.partition(":")[2]))


def check_pixels(pixels, number_of):
    """Every record is nearest to the square of its own image."""
    squares = np.stack([resizing.square(tf.constant(np.array(image(number))), 16).numpy()
                        for number in range(42)]).astype(int)
    for identifier, found in pixels.items():
        errors = np.abs(squares - found).mean((1, 2, 3))
        assert errors.argmin() == number_of(identifier)
        assert errors.min() < 8  # of the JPEG only


@pytest.mark.parametrize("made", ["from_tfds", "from_hugging_face"])
def test_what_was_converted_trains(made, request, tmp_path):
    ended = forked.run([RUN, "dataset=tfrecords",
                        f"dataset.root='{request.getfixturevalue(made)}'", "model=small_cnn",
                        "loop.epochs=1", "loop.batch_size_per_replica=4",
                        f"hydra.run.dir='{tmp_path}/run'"], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert read(tmp_path / "run", "classes.json")["names"] == list(NAMES)
    assert len(read(tmp_path / "run", "valid_labels.json")) == 9


def test_a_second_size_and_one_split_that_is_divided(tmp_path, capsys):
    folder = make_tfds(tmp_path / "tfds", {"train": range(40)})
    for size in (16, 12):
        assert convert(hubs.tfds, folder, tmp_path / "out", size=size, test=0.25)
    for size in (16, 12):
        found = records_by_split(tmp_path / "out", image_size=size)
        assert {split: len(each) for split, each in found.items()} == {
            "train": 24, "val": 6, "test": 10}
    assert convert(hubs.tfds, folder, tmp_path / "out", test=0.25)
    assert "was made before, from the same photos" in capsys.readouterr().out


def test_a_conversion_that_was_stopped_is_resumed_with_the_same_bytes(
        hugging_folder, from_hugging_face, tmp_path, monkeypatch):
    write = hubs.store.atomic_write

    def stop(path):
        if path.name == "validation.parquet":
            raise KeyboardInterrupt
        return write(path)

    out = tmp_path / "out"
    monkeypatch.setattr(hubs.store, "atomic_write", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(hubs.hugging_face, hugging_folder, out)
    first, = tmp_path.rglob("train.parquet")
    written = first.stat().st_mtime_ns
    monkeypatch.undo()
    monkeypatch.setattr(convert_module, "encode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert(hubs.hugging_face, hugging_folder, out)
    assert first.stat().st_mtime_ns == written
    assert first.with_name("validation.parquet").exists()
    monkeypatch.undo()
    other = make_hugging_face(tmp_path / "other", {"train": range(50, 74)})
    with pytest.raises(UserError, match="made from other photos"):
        convert(hubs.hugging_face, other, out)
    assert convert(hubs.hugging_face, hugging_folder, out)
    assert files_of(out) == files_of(from_hugging_face)


def test_splits_that_are_none_of_a_run_are_said(tfds_folder, tmp_path, capsys):
    convert(hubs.tfds, tfds_folder, tmp_path / "out")
    assert ("made/1.2.0: 24 in train, 9 in validation, 6 in test\nsplits left out, which are none "
            "of train, validation and test: unsupervised") in " ".join(
                capsys.readouterr().out.replace("\n", "|").split()).replace("|", "\n")


def test_features_are_chosen_by_kind_name_or_as_given(tmp_path):
    folder = make_hugging_face(
        tmp_path / "made", {"all": range(20)},
        lambda datasets: {"img": datasets.Image(), "fine": datasets.Value("int32"),
                          "species": datasets.Value("string"), "plant": datasets.Value("int64"),
                          "filename": datasets.Value("string")},
        lambda numbers: {"img": [image(n) for n in numbers], "fine": [n % 4 for n in numbers],
                         "species": [f"s{n % 2}" for n in numbers],
                         "plant": [n // 2 for n in numbers], "filename": [f"{n}" for n in numbers]})
    convert(hubs.hugging_face, folder, tmp_path / "species", test=0)
    convert(hubs.hugging_face, folder, tmp_path / "fine", {"label": "fine", "group": "plant"},
            test=0)
    for out, classes in (("species", ("s0", "s1")), ("fine", ("0", "1", "2", "3"))):
        assert source_of(tmp_path / out).class_names == classes
        for each in records_by_split(tmp_path / out).values():
            assert each == {key: int(key) % len(classes) for key in each}
    source = source_of(tmp_path / "fine", features={"group": "group"})
    table = records.read(source.files["train"], source.spec("train"))
    assert [*table.groups] == [str(int(each) // 2) for each in table.ids]


def refused(*arguments, **options):
    with pytest.raises(UserError) as error:
        convert(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_mistakes_are_one_sentence_of_tfds(tfds_folder, tmp_path):
    out = tmp_path / "out"
    assert "tensorflow-datasets does not give no_such_flowers (Dataset no_such_flowers not found" \
        in refused(hubs.tfds, "no_such_flowers", out)
    assert "does not give no such" in refused(hubs.tfds, "no such", out)
    assert "does not give" in refused(hubs.tfds, tmp_path, out)  # a folder of something else
    assert not out.exists()
    texts = make_tfds(tmp_path / "texts", {"train": range(4)}, lambda types: {
        "text": types.Text(), "label": types.ClassLabel(names=CLASSES)})
    assert "has no images: its images, texts and integers are label, text" in refused(
        hubs.tfds, texts, out)
    pictures = make_tfds(tmp_path / "pictures", {"train": range(4)}, lambda types: {
        "image": types.Image(shape=(None, None, 3)), "real": types.Scalar(np.float32)})
    assert "has no class labels: its images, texts and integers are image" in refused(
        hubs.tfds, pictures, out)
    assert "label" in refused(hubs.tfds, tfds_folder, out, {"label": "nothing"})
    assert refused(hubs.tfds, tfds_folder, out, {"split": "label"}).startswith("--column")
    test = make_tfds(tmp_path / "test", {"validation": range(4), "test": range(4)})
    assert "has the splits validation, test, and none for training" in refused(
        hubs.tfds, test, out)


def test_mistakes_are_one_sentence_of_hugging_face(hugging_folder, tmp_path):
    out = tmp_path / "out"
    assert "datasets does not give ./none (Repo id must use" in refused(
        hubs.hugging_face, "./none", out)
    assert "datasets does not give " in refused(hubs.hugging_face, tmp_path, out)
    one = make_hugging_face(tmp_path / "one", {"train": range(0, 9, 3)})
    again = make_hugging_face(
        tmp_path / "real", {"train": range(4)}, lambda datasets: {
            "real": datasets.Value("float32"), "image": datasets.Image()},
        lambda numbers: {"real": [0.5 for _ in numbers], "image": [image(n) for n in numbers]})
    assert "has no class labels" in refused(hubs.hugging_face, again, out)
    missing = make_hugging_face(
        tmp_path / "missing", {"train": range(4)}, None,
        lambda numbers: {"image": [image(n) for n in numbers], "label": [0, None, 1, 2]})
    assert "row 1: the label is missing" in refused(hubs.hugging_face, missing, out)
    assert "holds 1 class (rose)" in refused(hubs.hugging_face, one, tmp_path / "other")
    (tmp_path / "used" / "train").mkdir(parents=True)
    assert "holds a folder train, val or test" in refused(
        hubs.hugging_face, hugging_folder, tmp_path / "used")


@pytest.mark.parametrize(("command", "module", "package"), [
    ("tfds", "tensorflow_datasets", "tensorflow-datasets"),
    ("huggingface", "datasets", "datasets")])
def test_a_missing_extra_is_one_sentence(command, module, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    done = CliRunner().invoke(app, ["data", f"from-{command}", "flowers", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert (f"data from-{command} needs the package {package}: pip install -c constraints.txt -e "
            f"'.[{command}]'") in " ".join((done.output + capsys.readouterr().err).split())
    assert not (tmp_path / "out").exists()


def test_a_run_divides_what_has_no_validation_split(tmp_path):
    folder = make_hugging_face(tmp_path / "made", {"train": range(30), "test": range(30, 36)})
    assert convert(hubs.hugging_face, folder, tmp_path / "out")
    dataset = Dataset(TFRecords(str(tmp_path / "out")))
    found = splits.load(find(dataset.source), dataset, keep_images=True)
    assert len(found.test.ids) == 6
    assert len(found.train.ids) + len(found.valid.ids) == 30
    assert 3 <= len(found.valid.ids) <= 6  # 15 % of each of three classes
    assert {*found.train.ids, *found.valid.ids} == {f"train:{row}" for row in range(30)}

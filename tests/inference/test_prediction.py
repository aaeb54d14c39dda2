"""predict and evaluate: against the run's own files, by hand, and what is refused or left out."""

import csv
import io
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import classification_report

from flowerexp import metrics
from flowerexp.api import results
from flowerexp.data import records, resizing, tfrecord
from flowerexp.data.features import Labels, ReadSpec
from flowerexp.errors import UserError
from flowerexp.inference import inputs, prediction, trained
from flowerexp.runs import store
from tests import forked
from tests.processes import command_here as command
from tests.processes import read, train

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
NAMES = list(COLOURS)


def predicted(tmp_path, *words):
    """The exit code, what was said, and the CSV of predict."""
    code, said = command("predict", *words, "--output", tmp_path / "out here.csv")
    return code, said, pd.read_csv(tmp_path / "out here.csv", dtype={"id": str})


def probabilities(frame):
    """[pictures, classes] of a CSV that tells all of the three classes."""
    found = np.zeros((len(frame), 3))
    for prefix in ("", "top2_", "top3_"):
        found[np.arange(len(frame)), frame[f"{prefix}class_id"]] = frame[f"{prefix}probability"]
    return found


def photo(name, height, width, seed=0):
    """A noisy picture of a colour, brighter to the left, uint8 [height, width, 3]."""
    noise = np.random.default_rng(seed).normal(0, 20, (height, width, 3))
    light = np.linspace(40, -40, width)[None, :, None]
    return np.clip(np.array(COLOURS[name]) + noise + light, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures of many sizes and kinds, a folder for each class."""
    root = tmp_path_factory.mktemp("some photos")
    for index, (name, path, size) in enumerate([
            ("red", "red/one.jpg", (40, 61)), ("red", "red/deep/er/TWO.JPEG", (300, 97)),
            ("green", "green/a b.png", (16, 16)), ("green", "green/ü.bmp", (9, 13)),
            ("blue", "blue/four.gif", (31, 20)), ("blue", "blue/five.jpg", (16, 16))]):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(name, *size, index)).save(root / path)
    return root


PHOTO_IDS = ["blue/five.jpg", "blue/four.gif", "green/a b.png", "green/ü.bmp",
             "red/deep/er/TWO.JPEG", "red/one.jpg"]


def by_hand(run, root, ids, size=16, views=(lambda image: image,)):
    """The mean probabilities over views by Keras, picture by picture."""
    model = tf.keras.models.load_model(run / "model.keras", compile=False)
    images = [resizing.square(resizing.decode((root / name).read_bytes()), size) for name in ids]
    logits = [model(np.stack([view(image) for image in images])).numpy() for view in views]
    return np.mean([softmax(each, axis=-1) for each in logits], axis=0)


@pytest.fixture(scope="module")
def larger_run(tiny, tmp_path_factory):
    """A run of the same classes on images of 24 pixels."""
    root = tmp_path_factory.mktemp("larger data")
    for split in ("train", "val", "test"):
        files = tfrecord.list_files(str(tiny / split))
        table = records.read(files, ReadSpec(16, Labels.of(split)))
        images = [tf.io.encode_jpeg(tf.cast(tf.image.resize(tf.io.decode_jpeg(each), [24, 24]),
                                            tf.uint8)).numpy() for each in table.images]
        (root / split).mkdir()
        tfrecord.write(root / split / "all.tfrec", images,
                      None if split == "test" else table.labels, table.ids)
    return train(root / "larger run", root, "loop.epochs=2", "seed=1", "results.use=best")


def test_the_test_split_is_predicted_as_the_run_did(trained_run, tiny, tmp_path):
    code, said, found = predicted(tmp_path, trained_run, tiny)
    assert code == 0, said
    assert list(found)[:4] == ["id", "class_id", "class_name", "probability"]
    assert list(found)[4:] == [f"top{place}_{name}" for place in (2, 3)
                               for name in ("class_id", "class_name", "probability")]
    assert found["class_id"].tolist() == read(trained_run, "test_preds.json")
    with (trained_run / "submission.csv").open(newline="") as file:
        assert found["id"].tolist() == [row["id"] for row in csv.DictReader(file)]
    assert found["class_name"].tolist() == [NAMES[label] for label in found["class_id"]]
    np.testing.assert_allclose(probabilities(found), np.load(trained_run / "test_probs.npy"),
                               atol=1e-3)
    assert "weights of epoch 4 (last)" in said
    assert f"predictions of 7 images: {tmp_path / 'out here.csv'}" in said
    one = predicted(tmp_path, trained_run, tiny / "test" / "01-16x16-4.tfrec")[2]
    pd.testing.assert_frame_equal(one, found[3:].reset_index(drop=True))
    both = predicted(tmp_path, trained_run, *sorted((tiny / "test").iterdir()))[2]
    pd.testing.assert_frame_equal(both, found)


@pytest.mark.parametrize("weights", ["last", "best"])
def test_evaluate_of_the_val_split_says_the_numbers_of_the_history(trained_run, tiny, weights):
    history = store.read_history(trained_run)
    best = metrics.best_epoch(history)
    assert best != len(history) - 1
    row = history[best if weights == "best" else -1]
    code, said = command("evaluate", trained_run, tiny, "--weights", weights)
    assert code == 0, said
    numbers = re.search(r"accuracy (\S+), macro recall (\S+), macro precision (\S+), macro F1 "
                        r"(\S+)\n", said).groups()
    assert [float(number) for number in numbers] == [
        round(row[f"valid {name}"], 4) for name in ("acc", "recall", "precision", "f1")]
    labels = read(trained_run, "valid_labels.json")
    predictions = read(trained_run, "valid_preds.json")[str(history.index(row))]
    expected = classification_report(labels, predictions, target_names=NAMES, digits=4,
                                     zero_division=0)
    assert said.endswith(expected)


def test_the_report_is_over_the_classes_that_occur():
    confusion = np.zeros((5, 5), np.int64)
    confusion[0, 0], confusion[0, 3], confusion[3, 3] = 2, 1, 1
    said = prediction.Evaluation(confusion, ["a", "b", "c", "d", "e"]).report()
    assert "accuracy 0.7500, macro recall 0.8333, macro precision 0.7500" in said
    assert "over 2 classes; 3 others occur neither in labels nor in predictions" in said
    assert said.splitlines()[-2].split() == ["macro", "avg", "0.7500", "0.8333", "0.7333", "4"]


def test_pictures_of_any_size_and_kind_in_the_order_of_their_paths(trained_run, photos, tmp_path):
    code, said, found = predicted(tmp_path, trained_run, photos)
    assert code == 0, said
    assert found["id"].tolist() == PHOTO_IDS
    expected = by_hand(trained_run, photos, PHOTO_IDS)
    np.testing.assert_allclose(probabilities(found), expected, atol=1e-6)
    assert found["class_id"].tolist() == expected.argmax(1).tolist()
    one = predicted(tmp_path, trained_run, photos / "red/deep/er/TWO.JPEG")[2]
    assert one["id"].tolist() == [f"{photos}/red/deep/er/TWO.JPEG"]
    np.testing.assert_allclose(probabilities(one), expected[4:5], atol=1e-6)
    several = [photos / PHOTO_IDS[index] for index in (5, 0, 3)]
    found = predicted(tmp_path, trained_run, *several)[2]
    assert found["id"].tolist() == [str(path) for path in several]
    np.testing.assert_allclose(probabilities(found), expected[[5, 0, 3]], atol=1e-6)


def test_unreadable_pictures_are_listed_and_the_others_predicted(trained_run, photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "photos")
    whole = (root / "red/one.jpg").read_bytes()
    (root / "blue/broken.jpg").write_bytes(whole[:len(whole) // 2])
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "empty.gif").touch()
    (root / "notes.txt").write_text("no picture")
    code, said, found = predicted(tmp_path, trained_run, root)
    assert code == 1
    assert found["id"].tolist() == PHOTO_IDS
    for name in ("blue/broken.jpg is a damaged, truncated", "empty.gif is an empty",
                 "gone.png cannot be read: No such file"):
        assert f"skipped: {root}/{name}" in said
    assert re.search(r"files without an image extension in \S.*, skipped: 1\n", said)
    shutil.rmtree(root / "green")
    for name in ("red", "blue"):
        shutil.rmtree(root / name)
    code, said = command("predict", trained_run, root)
    assert code == 1
    assert "no image can be used, 2 are bad; the first:" in said


@pytest.mark.parametrize(("files", "test", "val"), [
    (["training_set/a.tfrec", "validation/a.tfrecord.gz", "test_set/a.tfrecord"],
     ["test_set/a.tfrecord"], ["validation/a.tfrecord.gz"]),
    (["flowers-train.tfrecord-00000-of-00001", "flowers-test.tfrecord-00000-of-00002",
      "flowers-test.tfrecord-00001-of-00002", "flowers-validation.tfrecord-00000-of-00001"],
     ["flowers-test.tfrecord-00000-of-00002", "flowers-test.tfrecord-00001-of-00002"],
     ["flowers-validation.tfrecord-00000-of-00001"]),
    (["train-0.tfrec", "train-1.tfrec"], ["train-0.tfrec", "train-1.tfrec"],
     ["train-0.tfrec", "train-1.tfrec"])])
def test_the_split_of_records_is_told_by_folders_or_files(tmp_path, files, test, val):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for names, expected in ((None, test), (NAMES, val)):
        found = inputs.find([tmp_path], [16], names).records
        assert [path.relative_to(tmp_path).as_posix() for path in found] == expected


def test_records_of_any_size_with_and_without_ids_and_labels(trained_run, tmp_path):
    images = [tf.io.encode_jpeg(photo(name, 30, 45, seed), quality=95).numpy()
              for seed, name in enumerate(NAMES)]
    path = tmp_path / "some.tfrec"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, image in enumerate(images):
            features = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
            if number == 1:
                features["id"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"second"]))
            writer.write(tf.train.Example(features=tf.train.Features(
                feature=features)).SerializeToString())
    code, said, found = predicted(tmp_path, trained_run, path)
    assert code == 0, said
    assert found["id"].tolist() == ["some.tfrec:0", "second", "some.tfrec:2"]
    for name, image in zip("abc", images, strict=True):
        (tmp_path / f"{name}.jpg").write_bytes(image)
    expected = by_hand(trained_run, tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    np.testing.assert_allclose(probabilities(found), expected, atol=1e-6)
    code, said = command("evaluate", trained_run, path)
    assert code == 1
    assert "the feature 'class' is missing" in said


def test_damaged_records_are_listed_and_the_others_predicted(trained_run, tiny, tmp_path):
    root = shutil.copytree(tiny / "val", tmp_path / "val")
    first = sorted(root.iterdir())[0]
    data = bytearray(first.read_bytes())
    place = tfrecord.whole_spans(str(first))[2]
    data[place.start + place.length // 2] ^= 255
    first.write_bytes(data)
    code, said, found = predicted(tmp_path, trained_run, root)
    assert code == 1
    assert len(found) == 12
    assert re.search(rf"skipped: {re.escape(str(first))}, record 2: its data are damaged", said)
    code, said = command("evaluate", trained_run, root)
    assert code == 1
    assert "CRC error" in said
    assert "accuracy" in said


def test_runs_of_any_image_size_are_averaged(trained_run, larger_run, photos, tmp_path):
    _, said, found = predicted(tmp_path, trained_run, larger_run, photos)
    assert "the probabilities of 2 runs are averaged" in said
    expected = (by_hand(trained_run, photos, PHOTO_IDS)
                + by_hand(larger_run, photos, PHOTO_IDS, 24)) / 2
    np.testing.assert_allclose(probabilities(found), expected, atol=1e-6)
    code, said = command("evaluate", trained_run, larger_run, photos)
    assert code == 0
    assert f"accuracy {np.mean(expected.argmax(1) == [2, 2, 1, 1, 0, 0]):.4f}" in said


@pytest.mark.parametrize(("flip", "axes"), [
    ("horizontal", [(), (1,)]), ("vertical", [(), (0,)]), ("both", [(), (0,), (1,), (0, 1)])])
def test_flips_are_averaged(trained_run, photos, tmp_path, flip, axes):
    _, _, found = predicted(tmp_path, trained_run, photos, "--flip", flip)
    views = [lambda image, turned=turned: np.flip(image, turned) for turned in axes]
    expected = by_hand(trained_run, photos, PHOTO_IDS, views=views)
    np.testing.assert_allclose(probabilities(found), expected, atol=1e-6)
    plain = by_hand(trained_run, photos, PHOTO_IDS)
    assert np.abs(plain - expected).max() > 1e-4


def test_only_two_batches_of_a_folder_are_read_ahead(trained_run, photos, tmp_path):
    """What is deleted after the first batch, of four, is gone for the third."""
    for number in range(20):
        shutil.copy(photos / "red/one.jpg", tmp_path / f"{number:02d}.jpg")
    ensemble = prediction.Ensemble([trained.find(trained_run)])
    found = ensemble.predict(inputs.find([tmp_path], [16]), None)
    parts = [next(found)]
    for number in range(8, 20):
        (tmp_path / f"{number:02d}.jpg").unlink()
    parts += found
    assert [len(part.ids) for part in parts] == [4, 4, 0, 0, 0]
    assert sum(len(part.faults) for part in parts) == 12


def test_the_five_likeliest_of_many_classes_and_the_lower_of_equal_ones():
    shares = np.array([[0.1, 0.3, 0.1, 0.3, 0.05, 0.15]])
    row = metrics.top_classes(["x"], list("abcdef"), shares).iloc[0]
    ids = [row[f"{prefix}class_id"] for prefix in ("", "top2_", "top3_", "top4_", "top5_")]
    assert ids == [1, 3, 5, 0, 2]
    assert len(row) == 16
    assert row["top5_class_name"] == "c"


def test_a_root_of_several_sizes_gives_that_of_the_run(tiny, tmp_path):
    for size in (8, 16):
        shutil.copytree(tiny, tmp_path / f"tfrecords-jpeg-{size}x{size}")
    assert inputs.find([tmp_path], [16]).path == tmp_path / "tfrecords-jpeg-16x16/test"
    assert inputs.find([tmp_path], [16], NAMES).path == tmp_path / "tfrecords-jpeg-16x16/val"
    with pytest.raises(UserError, match="tfrecords-jpeg-16x16, tfrecords-jpeg-8x8, none of the"):
        inputs.find([tmp_path], [32])


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder: (folder / "crimson").mkdir() or shutil.move(
        folder / "red/one.jpg", folder / "crimson"), "is of class 'crimson', which is not one of"),
    (lambda folder: shutil.move(folder / "red/one.jpg", folder),
     r"skipped: .*/one.jpg: it is outside of every class's folder"),
    (lambda folder: tfrecord.write(folder / "x.tfrec", [b""], [0], ["x"]), "holds both TFRecords"),
    (lambda folder: tfrecord.write(folder / "val.tfrec", [b""], [3], ["x"]) or [
        shutil.rmtree(folder / name) for name in NAMES], "label 3 is out of range.*3 classes"),
    (lambda folder: (folder / "test").mkdir() or tfrecord.write(
        folder / "test/x.tfrec", [b""], None, ["x"]), "a data set without val, only test"),
    (lambda folder: [shutil.rmtree(folder / name) for name in NAMES], "holds neither TFRecords")])
def test_data_that_cannot_be_evaluated(trained_run, photos, tmp_path, change, message):
    folder = shutil.copytree(photos, tmp_path / "data")
    change(folder)
    code, said = command("evaluate", trained_run, folder)
    assert code == 1
    assert re.search(message, said)


def test_the_splits_of_photos_and_of_an_import_are_evaluated(trained_run, photos, tmp_path):
    for split, names in (("train", NAMES), ("valid", ["red", "green"]), ("testing", ["blue"])):
        for name in names:
            shutil.copytree(photos / name, tmp_path / "set" / split / name)
    (tmp_path / "set/valid/red/._one.jpg").write_bytes(b"what macOS writes")
    code, said = command("evaluate", trained_run, tmp_path / "set")
    right = by_hand(trained_run, photos, PHOTO_IDS).argmax(1) == [2, 2, 1, 1, 0, 0]
    assert code == 0
    assert f"accuracy {right[2:].mean():.4f}" in said
    code, said = command("evaluate", trained_run, tmp_path / "set", "--split", "test")
    assert f"accuracy {right[:2].mean():.4f}" in said
    code, said = command("evaluate", trained_run, photos, "--split", "test")
    assert (code, "holds no split test: leave --split out" in said) == (1, True)
    # The import's test records have no labels, and its classes another order.
    assert command("data", "import", tmp_path / "set", tmp_path / "out", "--size", "16")[0] == 0
    straight = run_evaluation(trained_run, tmp_path / "set", "test")
    imported = run_evaluation(trained_run, tmp_path / "out", "test")
    assert imported.confusion.sum() == straight.confusion.sum() == 2
    assert imported.confusion[2].sum() == 2  # blue
    labels = tmp_path / "out/tfrecords-jpeg-16x16/test_labels.csv"
    labels.write_text(labels.read_text().partition("\n")[0] + "\n")
    with pytest.raises(UserError, match=r"test_labels.csv has no label of 'testing/blue/f"):
        run_evaluation(trained_run, tmp_path / "out", "test")


def run_evaluation(run, data, split):
    return results.evaluate(run, data, split=split)


def test_photos_of_other_classes_are_left_out_when_asked(trained_run, photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(root / "red", root / "pink")
    code, said = command("evaluate", trained_run, root, "--common")
    assert code == 1
    assert said.count("is of class 'pink', which the run does not know") == 2
    assert "not in the result: 2" in said


def test_a_table_and_parquet_files_are_evaluated(trained_run, photos, tmp_path):
    right = by_hand(trained_run, photos, PHOTO_IDS).argmax(1) == [2, 2, 1, 1, 0, 0]
    table = pa.table({"image": [{"bytes": (photos / name).read_bytes(), "path": name}
                                for name in PHOTO_IDS],
                      "label": [name.partition("/")[0] for name in PHOTO_IDS]})
    pq.write_table(table, tmp_path / "all.parquet")
    for data in (tmp_path, tmp_path / "all.parquet"):
        assert results.evaluate(trained_run, data)["acc"] == pytest.approx(right.mean())


def change_status(folder, **fields):
    store.write_json(folder / "status.json", read(folder, "status.json") | fields)


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder: shutil.rmtree(folder / ".hydra"),
     r"\.hydra/config\.yaml does not exist: \S+ is not a run folder"),
    (lambda folder: change_status(folder, state="interrupted"),
     r"is not finished \(interrupted, 4 of 4 epochs\): resume it with `python -m flowerexp resume"),
    (lambda folder: (folder / "model.keras").unlink(), r"model\.keras is missing"),
    (lambda folder: (folder / "model.keras").write_bytes(b"PK"), "is not a model saved by Keras"),
    (lambda folder: (folder / "classes.json").unlink(), r"is incomplete: classes\.json"),
    (lambda folder: store.write_classes(folder, ["a", "b"], [1, 1]),
     r"gives 3 classes, where classes\.json names 2")])
def test_folders_that_cannot_predict(copied, photos, change, message):
    change(copied)
    code, said = command("predict", copied, photos)
    assert code == 1
    assert said.startswith("flowerexp: ") or "\nflowerexp: " in said
    assert re.search(message, said)


def test_runs_of_other_classes_are_not_averaged(trained_run, copied, photos):
    store.write_classes(copied, ["red", "olive", "blue"], [1, 1, 1])
    code, said = command("predict", trained_run, copied, photos)
    assert code == 1
    assert "because class 1 is green in the first and olive in the second" in said


def test_the_command_prints_the_csv_and_speaks_beside_it(trained_run, photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "photos")
    (root / "broken.png").touch()
    (root / "._one.jpg").write_bytes(b"what macOS writes beside photos")
    done = forked.run(["-m", "flowerexp", "predict", trained_run, root], tmp_path)
    assert done.returncode == 1
    found = pd.read_csv(io.StringIO(done.stdout))
    assert found["id"].tolist() == PHOTO_IDS
    np.testing.assert_allclose(probabilities(found), by_hand(trained_run, photos, PHOTO_IDS),
                               atol=1e-6)
    assert done.stderr.splitlines() == [
        f"run: {trained_run}, weights of epoch 4 (last)",
        f"hidden folders and files without an image extension in {root}, skipped: 1",
        f"skipped: {root}/broken.png is an empty file",
        "images that cannot be used, not in the result: 1"]


WITHOUT = """
import sys
from typer.testing import CliRunner
from flowerexp.cli import main as cli
for words in eval(sys.argv[1]):
    done = CliRunner().invoke(cli.app, words)
    print(done.exit_code, done.output.replace("\\n", " ")[:200])
print("tensorflow" in sys.modules)
"""


def test_mistakes_and_help_need_no_tensorflow(trained_run, copied, photos, tiny):
    change_status(copied, state="failed")
    run, other, folder = str(trained_run), str(copied), str(photos)
    one = f"{folder}/red/one.jpg"
    cases = {("predict", run, run): "is a run folder, and an input is missing: give run folders",
             ("predict", folder, one): f"{folder} is not a run folder",
             ("predict", folder, run): f"{folder} is not a run folder",
             ("predict", run, folder, one): f"{folder} is a folder, one of 2 inputs: give run",
             ("predict", run, one, run): f"{run} is a folder, one of 2 inputs: give run",
             ("predict", run, str(tiny / "val/00-16x16-6.tfrec"), one): "is not a TFRecord file",
             ("predict", other, folder): "is not finished (failed",
             ("predict", run, "/nowhere"): "/nowhere does not exist: give TFRecords",
             ("predict", run, folder, "--output", folder): "is a folder: give the name of a file",
             ("evaluate", run, one): "is one file without a class",
             ("export", other, "/nowhere/out"): "is not finished (failed",
             ("export", run, folder): "holds blue, which is not part of an export",
             ("export", run, one): "is a file: give a folder"}
    helps = {(name, "--help"): "RUN" for name in ("predict", "evaluate", "export")}
    done = subprocess.run([sys.executable, "-c", WITHOUT, repr([*cases, *helps])],
                          capture_output=True, text=True, timeout=120, check=True)
    *lines, imported = done.stdout.splitlines()
    assert len(lines) == len(cases) + len(helps)
    for line, message in zip(lines, cases.values(), strict=False):
        assert line.startswith("1 flowerexp: ")
        assert message in line
    assert all(line.startswith("0 ") for line in lines[len(cases):])
    assert imported == "False"

"""Runs grouped into rows, the data frame of runs, and what comparing needs."""

import io
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from rich.console import Console

from flowerexp.comparison import comparison, tables
from flowerexp.runs import reader, store
from tests.folders import LABELS, PREDICTIONS, write_experiment, write_run

ROOT = Path(__file__).parents[2]
NAN = math.nan


def names(rows):
    return [row.name for row in rows]


# Rows

def test_runs_that_differ_in_their_seed_are_one_row(healthy):
    found = comparison.compare(healthy)
    assert names(found.rows) == ["original", "optimized_loop"]  # the baseline first
    assert [[each.seed for each in row.runs] for row in found.rows] == [[0, 1], [0, 1]]
    assert [row.differing for row in found.rows] == [{"loop.steps_per_execution": 1},
                                                     {"loop.steps_per_execution": "epoch"}]
    assert not found.failures
    assert not found.notes


def test_rows_stand_in_the_order_of_the_folders_and_runs_in_that_of_seeds(healthy):
    paths = [healthy / name for name in ("original+seed=1", "optimized_loop+seed=0",
                                         "original+seed=0")]
    found = comparison.compare(map(str, paths))
    assert [[each.seed for each in row.runs] for row in found.rows] == [[0, 1], [0]]
    assert names(found.rows) == ["original", "optimized_loop"]


def test_replicas_and_data_make_other_rows(tmp_path):
    for folder, options in (("a", {}), ("b", {"replicas": 2}), ("c", {"data": "fedc"})):
        write_run(tmp_path / folder, ["experiment=original"], LABELS, PREDICTIONS, **options)
    found = comparison.compare(tmp_path)
    assert [row.differing for row in found.rows] == [
        {"replicas": 1, "data": "content-0123456789abcdef"},
        {"replicas": 2, "data": "content-0123456789abcdef"},
        {"replicas": 1, "data": "fedc"}]
    assert names(found.rows) == ["a", "b", "c"]


def test_run_that_failed_before_it_began_belongs_to_its_row(tmp_path):
    early = {"predictions": [], "state": "failed", "error": "no", "data": None}
    write_experiment(tmp_path, "original", "seed=0", **early)
    write_experiment(tmp_path, "original", "seed=1")
    write_experiment(tmp_path, "optimized_loop", **early)
    found = comparison.compare(tmp_path)
    assert [len(row.runs) for row in found.rows] == [2, 1]
    assert [each.seed for each in found.rows[0].finished] == [1]
    # What is not known is no difference.
    assert [row.differing for row in found.rows] == [{"loop.steps_per_execution": 1},
                                                     {"loop.steps_per_execution": "epoch"}]
    assert len(found.failures) == 2


def test_of_two_folders_of_a_run_the_done_one_is_taken_then_the_first(tmp_path):
    write_experiment(tmp_path / "1", "original", predictions=PREDICTIONS[:1], state="failed",
                     error="oh")
    for folder in ("2", "3"):
        write_experiment(tmp_path / folder, "original")
    found = comparison.compare(tmp_path)
    folders = [tmp_path / f"{number}/original+seed=0" for number in (1, 2, 3)]
    assert [each.folder for row in found.rows for each in row.runs] == [folders[1]]
    assert found.notes == tuple(f"{folders[1]} and {folders[other]} hold the same run: only the "
                                "first is used" for other in (0, 2))
    assert found.failures == ()  # there is nothing to run again


def test_a_name_that_several_rows_have_says_what_differs(tmp_path):
    write_experiment(tmp_path / "1", "original")
    write_experiment(tmp_path / "2", "original", "loop.epochs=2")
    write_experiment(tmp_path / "3", "original", "loop.epochs=2", "model.dropout=0.5")
    write_experiment(tmp_path / "3", "optimized_loop", "loop.epochs=2")
    found = comparison.compare(tmp_path)
    assert names(found.rows) == ["original", "original (loop.epochs=2)",
                                 "original (loop.epochs=2, model.dropout=0.5)", "optimized_loop"]


def test_overrides_that_all_rows_of_a_name_have_are_not_said(tmp_path):
    for epochs in (2, 3):
        write_experiment(tmp_path / str(epochs), "original", f"loop.epochs={epochs}",
                         "model.dropout=0.5")
    assert names(comparison.compare(tmp_path).rows) == ["original (loop.epochs=2)",
                                                        "original (loop.epochs=3)"]


def test_failures_are_all_that_did_not_end(tmp_path):
    for seed, state in enumerate(("new", "running", "interrupted", "failed", "done")):
        write_experiment(tmp_path, "original", f"seed={seed}", state=state)
    with filelock.FileLock(tmp_path / "original+seed=1/.lock"):
        found = comparison.compare(tmp_path)
    assert [failure.state for failure in found.failures] == ["interrupted", "failed"]
    assert [each.seed for each in found.rows[0].finished] == [4]
    assert [each.seed for each in found.rows[0].counted] == [4]


# The data frame

def test_frame_has_a_row_for_each_run(tmp_path, healthy):
    shutil.copytree(healthy, tmp_path / "x")
    write_experiment(tmp_path / "x", "perspective", predictions=[], state="failed",
                     error="no space", epochs=3)
    (tmp_path / "x/broken/.hydra").mkdir(parents=True)
    (tmp_path / "x/broken/.hydra/config.yaml").touch()
    table = comparison.load(str(tmp_path / "x"))
    assert table["name"].tolist() == ["broken", *["optimized_loop"] * 2, *["original"] * 2,
                                      "perspective"]
    assert table["seed"].tolist()[1:] == [0, 1, 0, 1, 0]
    assert table["seed"].isna().tolist() == [True] + [False] * 5
    assert table["state"].tolist() == ["unreadable", *["done"] * 4, "failed"]
    assert table["error"].iloc[5] == "no space"
    assert table["epochs done"].tolist() == [0, 3, 3, 3, 3, 0]
    assert table["folder"].iloc[1] == str(tmp_path / "x/optimized_loop+seed=0")
    done = table[table["state"] == "done"]
    assert done.groupby("name")["last acc"].mean().tolist() == pytest.approx([0.7, 0.7])
    assert done["best acc"].tolist() == pytest.approx([0.8] * 4)
    assert done["first epoch seconds"].tolist() == [10] * 4
    assert done["later epochs seconds"].tolist() == [8] * 4
    assert table["augmentation"].tolist()[1:] == [()] * 4 + [("perspective",)]
    assert table["augmentation.perspective.probability"].isna().tolist() == [True] * 5 + [False]
    assert table["last f1"].isna().tolist() == [True, *[False] * 4, True]
    keys = reader.read_run(tmp_path / "x/original+seed=0").keys
    columns = list(table)
    assert columns[:6] == ["folder", "name", "seed", "state", "error", "epochs done"]
    assert set(columns[6:]) >= keys.keys()
    assert columns[-2:] == ["first epoch seconds", "later epochs seconds"]
    metrics_of = [f"{when} {name}" for when in ("best", "last") for name in (
        "epoch", "loss", "acc", "recall", "precision", "f1", "head", "medium", "tail")]
    assert columns[-20:-2] == metrics_of
    assert len(set(columns)) == len(columns)
    assert len(comparison.load([healthy / "original+seed=0", healthy / "original+seed=1"])) == 2


IMPORTS = """
import sys
from flowerexp.comparison import comparison, tables
from rich.console import Console
found = comparison.compare(sys.argv[1])
tables.show(found, Console())
tables.to_csv(found), tables.to_json(found), comparison.load(sys.argv[1])
print([name for name in ("tensorflow", "keras", "sklearn", "scipy.stats", "matplotlib")
       if name in sys.modules])
"""


def test_comparing_needs_no_tensorflow_and_little_else(healthy):
    ended = subprocess.run([sys.executable, "-c", IMPORTS, healthy], cwd=ROOT, check=True,
                           capture_output=True, text=True, timeout=120)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_baselines_stand_before_what_is_held_against_them(tmp_path):
    order = ["original", "optimized_loop", "accumulate_8", "accumulate_8_lr_x8", "oversample_100",
             "oversample_300_fewer_epochs", "oversample_300", "perspective"]
    for name in order:
        write_experiment(tmp_path, name)
    assert names(comparison.compare(tmp_path).rows) == order


# The result in Python

def test_result_has_a_table_and_a_row_of_differences_for_each_pair_and_metric(healthy):
    found = comparison.compare(healthy)
    assert found.table["name"].tolist() == ["original", "optimized_loop"]
    assert found.table["n"].tolist() == [2, 2]
    differences = found.differences
    assert list(differences) == ["run", "baseline", "metric", "difference", "low", "high"]
    assert differences["metric"].tolist() == ["acc", "recall", "precision", "f1"]
    assert set(zip(differences["run"], differences["baseline"], strict=True)) == {
        ("optimized_loop", "original")}
    f1 = found.pairs[0].differences["f1"]
    assert differences.iloc[3, 3:].tolist() == [f1.value, f1.low, f1.high]
    assert list(comparison.compare(healthy / "original+seed=0").differences) == list(differences)


def test_result_shows_itself_in_a_line_and_as_a_table(healthy):
    found = comparison.compare(healthy)
    assert repr(found) == "<Comparison: 2 rows, 1 pair, 0 failures>"
    hostile = replace(found, rows=(replace(found.rows[0], name="<b>" + "long" * 40),))
    shown = hostile._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;" + "long" * 40 in shown
    assert "<th>last f1</th>" in shown


@pytest.mark.usefixtures("empty_pictures")
def test_page_of_a_result_is_one_file(healthy, tmp_path):
    page = comparison.compare(healthy).to_html(str(tmp_path / "new" / "a.html"))
    assert page == tmp_path / "new" / "a.html"
    assert list(page.parent.iterdir()) == [page]
    assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 8


# Metrics of one's own

def terminal(found):
    console = Console(width=100, file=io.StringIO())
    tables.show(found, console)
    return console.file.getvalue()


def with_metric(folder, values):
    history = store.read_history(folder)
    store.write_history(folder, [row | {"valid top-5 acc": value}
                                 for row, value in zip(history, values, strict=True)])


@pytest.mark.usefixtures("empty_pictures")
def test_any_metric_of_the_histories_is_compared(tmp_path):
    for name, values in (("original", [0.1, 0.9, 0.3]), ("optimized_loop", [0.5, 0.6, 0.7])):
        with_metric(write_experiment(tmp_path, name), values)
    write_experiment(tmp_path, "perspective")
    write_experiment(tmp_path, "oversample_300")
    found = comparison.compare(tmp_path, ["optimized_loop:original", "perspective:original"])
    table = found.table.set_index("name")
    assert table["last top-5 acc"]["original"] == 0.3
    assert table["best top-5 acc"]["optimized_loop"] == 0.6
    assert table["last top-5 acc"].isna()["perspective"]
    assert list(table).index("last top-5 acc") == list(table).index("last f1 std") + 1
    differences = found.differences
    assert differences.iloc[4, 2:4].tolist() == ["top-5 acc", pytest.approx(0.4)]
    assert differences.iloc[4, 4:].isna().all(), "no interval: predictions do not determine it"
    assert len(differences) == 5 + 4, "runs without the metric have no difference of it"
    loaded = comparison.load(tmp_path)
    assert loaded["last top-5 acc"].tolist() == pytest.approx([0.7, 0.3, NAN, NAN], nan_ok=True)
    for text in (tables.to_markdown(found), terminal(found)):
        assert "no interval" in text
        assert "nan" not in text.lower().replace("nano", "")
    page = found.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "top-5 acc" in page
    assert "nan" not in re.sub("base64,[^\"]*", "", page).lower()

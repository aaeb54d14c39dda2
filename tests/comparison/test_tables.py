"""A comparison as numbers and words: data frame, CSV, JSON, Markdown, and any terminal."""

import csv
import io
import json
import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from flowerexp.comparison import comparison, tables, wording
from flowerexp.comparison.pairs import Interval
from flowerexp.runs import store
from tests.folders import LABELS, PREDICTIONS, write_experiment, write_run

WIDTHS = (60, 80, 140)
HOSTILE = "[bold red]a|b*[/] \x1b[31m\n## `<i>`:smile:\t[link=x]"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three seeds of a baseline, better ones of which one failed, and a run that ended early."""
    root = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 200).tolist()

    def epochs(accuracy, count=4):
        return [np.where(random.random(200) < accuracy, labels, random.integers(0, 5, 200)
                         ).tolist() for _ in range(count)]

    for seed in range(3):
        write_run(root / f"oversample_300+seed={seed}",
                  ["experiment=oversample_300", f"seed={seed}"], labels, epochs(0.5))
        write_run(root / f"perspective+seed={seed}", ["experiment=perspective", f"seed={seed}"],
                  labels, epochs(0.8), **({} if seed else {
                      "state": "failed", "error": "no space left", "epochs": 9}))
    write_run(root / "it's early", ["name=\"it's early\"", "loss=focal"], labels, epochs(0.9, 2),
              state="interrupted", epochs=7)
    return comparison.compare(root)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Whatever a file may hold, in a name, a value, an error and the names of the classes."""
    root = tmp_path_factory.mktemp("runs")
    write_experiment(root, "original", predictions=[LABELS], names=[HOSTILE] * 4)
    write_experiment(root, "optimized_loop", predictions=[PREDICTIONS[0]], names=[HOSTILE] * 4)
    write_experiment(root, "perspective", state="failed", error=HOSTILE)
    write_run(root / "$(touch x) [bold]; | `x`", ["loss=focal"], LABELS, PREDICTIONS,
              state="failed", error="no")
    found = comparison.compare(root)
    rows = tuple(replace(row, name=f"{row.name} {HOSTILE}", differing={
        "model.weights": f"{row.name} {HOSTILE}", HOSTILE: index})
        for index, row in enumerate(found.rows))
    pairs = tuple(replace(pair, name=f"{pair.name} {HOSTILE}") for pair in found.pairs)
    return replace(found, rows=rows, pairs=pairs, notes=(HOSTILE,))


def shown(found, width, **options):
    console = Console(width=width, file=io.StringIO(), **options)
    tables.show(found, console)
    return console.file.getvalue()


def words(text):
    """The text without the line breaks and spaces of a width."""
    return "".join(text.split())


# Numbers

def test_frame_has_means_deviations_and_counts(compared):
    table = compared.table.set_index("name")
    assert list(table.index) == ["it's early", "oversample_300", "perspective"]
    assert table["n"].tolist() == [1, 3, 2]
    assert table["seeds"].tolist() == ["0", "0, 1, 2", "1, 2"]
    assert table["state"].tolist() == ["interrupted at epoch 2 of 7", "done", "2 of 3 done"]
    assert table["best"].tolist() == [False, False, True]
    assert table["augmentation"].tolist() == ["none", "none", "perspective"]
    scores = [store.read_history(run.folder)[-1]["valid f1"]
              for run in compared.rows[1].runs]
    assert table["last f1"]["oversample_300"] == pytest.approx(np.mean(scores), abs=1e-15)
    assert table["last f1 std"]["oversample_300"] == pytest.approx(np.std(scores, ddof=1))
    assert math.isnan(table["last f1 std"]["it's early"])
    done = [store.read_history(run.folder)[-1]["valid f1"]
            for run in compared.rows[2].runs[1:]]
    assert table["last f1"]["perspective"] == pytest.approx(np.mean(done))
    assert table["later epochs seconds"].tolist() == [8, 8, 8]
    assert table["last epoch"].tolist() == [2, 4, 4]


def test_best_is_of_finished_rows_and_needs_two(compared):
    early, baseline, better = compared.rows
    for rows, best in (((early, baseline, better), [False, False, True]),  # early has the highest
                       ((better, early, baseline), [True, False, False]),
                       ((better, early), [False, False]), ((), [])):
        assert replace(compared, rows=rows).table["best"].tolist() == best


def test_undefined_means_stay_undefined(tmp_path):
    for seed in (0, 1):
        folder = write_experiment(tmp_path, "original", f"seed={seed}")
        if seed:
            history = store.read_history(folder)
            history[2]["valid f1"] = None
            store.write_history(folder, history)
    write_experiment(tmp_path, "optimized_loop", predictions=[], state="failed", error="no")
    found = comparison.compare(tmp_path)
    table = found.table.set_index("name")
    assert math.isnan(table["last f1"]["original"])
    assert math.isnan(table["last f1 std"]["original"])
    assert table["last acc"]["original"] == pytest.approx(0.7)
    assert table["n"]["optimized_loop"] == 0
    rows = json.loads(tables.to_json(found))["rows"]
    assert rows[0]["numbers"]["last f1"] == {"mean": None, "std": None}
    assert rows[1]["numbers"]["last acc"] == {"mean": None, "std": None}
    by_name = {row["name"]: row for row in csv.DictReader(io.StringIO(tables.to_csv(found)))}
    assert by_name["original"]["last f1"] == ""
    cells = {column.header: column.cells for column in tables.columns(found, found.table)}
    assert cells["last f1"] == ["-", "-"]
    assert cells["last acc"] == ["0.700 ±0.000", "-"]
    assert "nan" not in (shown(found, 80) + tables.to_markdown(found)).lower()


# Files

def test_csv_has_the_numbers_of_the_frame(compared):
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(compared))))
    table = compared.table
    assert list(rows[0]) == list(table)
    assert [float(row["last acc"]) for row in rows] == table["last acc"].tolist()
    assert rows[0]["last acc std"] == ""
    assert rows[1]["seeds"] == "0, 1, 2"


def test_json_is_strict_and_whole(compared):
    def refuse(name):
        raise AssertionError(name)

    found = json.loads(tables.to_json(compared), parse_constant=refuse)
    assert list(found) == ["rows", "pairs", "failures", "notes"]
    assert [row["name"] for row in found["rows"]] == [row.name for row in compared.rows]
    assert found["rows"][2]["best"] is True
    assert found["rows"][2]["differing"]["augmentation"] == ["perspective"]
    assert found["rows"][1]["runs"][1]["seed"] == 1
    [pair] = found["pairs"]
    assert pair["seeds"] == [1, 2]
    assert pair["chosen on the same data"] is False
    f1 = compared.pairs[0].differences["f1"]
    assert pair["differences"]["f1"] == {"value": f1.value, "low": f1.low, "high": f1.high,
                                         "clear": True}
    assert pair["mcnemar p"] is None
    assert [(failure["state"], failure["error"]) for failure in found["failures"]] == [
        ("interrupted", None), ("failed", "no space left")]
    assert found["failures"][1]["rerun"].startswith("python -m flowerexp resume /")


def test_json_takes_whatever_yaml_knows(compared):
    row = replace(compared.rows[0], differing={"a": math.inf, "b": {1, 2}, "c": [math.nan, "x"],
                                               "d": {3: None}})
    [found] = json.loads(tables.to_json(replace(compared, rows=(row,))))["rows"]
    assert found["differing"] == {"a": None, "b": "{1, 2}", "c": [None, "x"], "d": {"3": None}}


def test_markdown_tables_are_whole(compared):
    text = tables.to_markdown(compared)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(block) for block in blocks] == [2 + 3, 2 + 1]
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1
    assert "**perspective** (best)" in text
    assert "- caution: two seeds are too few" in text
    assert "  python -m flowerexp resume " in text
    assert "no space left" in text
    assert "- perspective against oversample_300: seed 0 finished on one side only" in text


def test_markdown_shows_names_as_they_are(hostile):
    text = tables.to_markdown(hostile)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(block) for block in blocks] == [2 + 4, 2 + 1]
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1
    assert "\x1b" not in text
    unescaped = re.sub(r"\\.", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    assert not re.search(r"[<`\[][^+-]", unescaped)
    assert r"\[bold red\]a\|b\*\[/\]" in text


def test_a_name_that_looks_like_a_number_is_left_alone(compared):
    row = replace(compared.rows[0], name="1e5")
    assert "| 1e5 " in tables.to_markdown(replace(compared, rows=(row,)))


def test_bytes_that_are_no_text_are_replaced(compared):
    name = b"runs-\xff".decode(errors="surrogateescape")
    row = replace(compared.rows[0], name=name)
    run = replace(compared.failures[0], folder=compared.failures[0].folder / name, name=name)
    found = replace(compared, rows=(row,), failures=(run,))
    for text in (*(write(found) for write in tables.FORMATS.values()), shown(found, 80)):
        assert "runs-" in text.encode("utf-8").decode()


def test_nothing_at_all_is_still_a_table():
    nothing = comparison.Comparison((), (), (), ())
    assert json.loads(tables.to_json(nothing)) == {"rows": [], "pairs": [], "failures": [],
                                                   "notes": []}
    assert tables.to_csv(nothing).startswith("name,best,n,")
    assert tables.to_markdown(nothing).startswith("## Runs")
    assert shown(nothing, 80).strip() == ""


# Terminal

def parts(text):
    """The head and the body, as lines, of each of the stacked tables of rows."""
    found = []
    for lines in map(str.splitlines, text.split("\n\n")):
        rules = [index for index, line in enumerate(lines) if line.startswith("──")]
        if rules:
            found.append((lines[:rules[0]], lines[rules[0] + 1:]))
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_every_part_has_the_names_and_nothing_is_cut(compared, width):
    text = shown(compared, width)
    assert all(cell_len(line) <= width for line in text.splitlines()
               if not line.startswith("    python -m flowerexp resume "))
    found = parts(text)
    heads, cells = [], []
    for head, body in found:
        assert [line[:14].rstrip() for line in body] == ["it's early", "oversample_300",
                                                         "perspective *"]
        last = re.split(r" {2,}", head[-1][14:].strip())
        first = re.split(r" {2,}", head[0][14:].strip()) if len(head) > 1 else []
        # Only the numbers have a first line; they stand after the keys.
        heads += [" ".join(pair) for pair in zip(
            [""] * (len(last) - len(first)) + first, last, strict=True)]
        cells += zip(*(re.split(r" {2,}", line[14:].strip()) for line in body), strict=True)
    wanted = tables.columns(compared, compared.table)
    assert [head.strip() for head in heads] == [column.header for column in wanted]
    assert cells == [tuple(column.cells) for column in wanted]


def test_long_names_are_folded_and_not_cut(tmp_path):
    name = "model.weights=" + "abcdefghij" * 8
    write_run(tmp_path / name, ["loss=focal"], LABELS, PREDICTIONS)
    write_experiment(tmp_path, "perspective")
    for width in (*WIDTHS, 40):
        text = shown(comparison.compare(tmp_path), width)
        for _, body in parts(text):
            first = "".join(line[:max(16, width * 2 // 5)].strip() for line in body)
            assert name in first
        assert all(cell_len(line.rstrip()) <= width for line in text.splitlines())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_pair_says_what_is_known(compared, width):
    text = shown(compared, width)
    [pair] = compared.pairs
    f1 = pair.differences["f1"]
    assert "perspective against oversample_300, last epoch, seeds 1, 2" in text
    line = f"  F1         {f1.value:+.3f}  [{f1.low:+.3f}, {f1.high:+.3f}]  higher"
    assert line in map(str.rstrip, text.splitlines())
    assert "time per epoch: 1.00 times the baseline's" in text
    flat = " ".join(text.split())
    assert "caution: two seeds are too few to estimate seed variance: run a third" in flat
    assert f"recall gained: {pair.gained[0][0]} {pair.gained[0][1]:+.2f}" in text
    assert "McNemar" not in text
    assert "no clear difference" not in text


def test_what_spans_zero_is_pale_and_no_gain(compared):
    [pair] = compared.pairs
    unclear = replace(pair, differences=pair.differences | {
        "f1": Interval(0.02, -0.01, 0.05),
        "acc": Interval(-0.2, -0.3, -0.1)},
        p_value=0.0001, seeds=(3,), gained=[], epoch="best")
    found = replace(compared, pairs=(unclear,))
    text = shown(found, 80, force_terminal=True, color_system="standard")
    lines = {line.split()[0]: line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
             if line.startswith("  ")}
    assert lines["F1"].split("]")[1].strip() == "no clear difference"
    assert "\x1b[2mF1 " in text
    assert lines["accuracy"].split("]")[1].strip() == "lower"
    assert "\x1b[31maccuracy " in text
    assert "\x1b[32mrecall " in text
    assert "McNemar's exact test: p < 0.001" in text
    assert "recall gained" not in text
    assert "best epoch of each run, selected on the same images, seed 3" in words_kept(text)
    assert "selected on the same images" in tables.to_markdown(found)
    assert json.loads(tables.to_json(found))["pairs"][0]["chosen on the same data"] is True


def words_kept(text):
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def test_best_row_is_bold_and_marked(compared):
    text = shown(compared, 140, force_terminal=True, color_system="standard")
    assert "\x1b[1mperspective *" in text
    assert "\x1b[1moversample_300" not in text
    assert "* highest mean F1 at the last epoch" in words_kept(text)
    single_process = replace(compared, rows=compared.rows[:2])
    assert "*" not in shown(single_process, 140).split("not finished")[0].split("against")[0]


@pytest.mark.parametrize("width", [20, *WIDTHS])
def test_commands_are_whole_lines(hostile, width):
    lines = shown(hostile, width).splitlines()
    for run in hostile.failures:
        assert f"    {wording.rerun(run)}" in lines


def test_command_of_a_folder_that_a_terminal_would_obey_is_escaped(hostile):
    name = b"\x1b[2J it's \xe2\x80\xae \xff \xc3\xa9".decode("utf-8", "surrogateescape")
    run = replace(hostile.failures[0], folder=Path("outputs") / name)
    found = replace(hostile, rows=(), pairs=(), failures=(run,))
    command = wording.rerun(run)
    assert command in shown(found, 60).splitlines()[-4].strip()
    for text in (shown(found, 60), tables.to_markdown(found)):
        assert all(sign.isprintable() for sign in text.replace("\n", ""))
        assert command in text
    echo = command.replace("python -m flowerexp resume", "printf %s")
    echoed = subprocess.run(["bash", "-c", echo], capture_output=True, check=True).stdout
    assert echoed.decode("utf-8", "surrogateescape") == str(run.folder)


@pytest.mark.parametrize("width", WIDTHS)
def test_text_of_files_commands_neither_rich_nor_the_terminal(hostile, width):
    text = shown(hostile, width, force_terminal=True, color_system=None)
    assert "\x1b" not in text
    assert ":smile:" in text
    assert "[bold red]a|b*[/] [31m ## `<i>`:smile: [link=x]" in words_kept(text)
    body = parts(text)[0][1]
    assert words("[bold red]a|b*[/] [31m ## `<i>`:smile: [link=x]") in words(
        "".join(line[:max(16, width * 2 // 5)] for line in body))


def test_a_small_comparison_to_the_letter(tmp_path):
    labels = [0, 0, 1, 1]
    write_run(tmp_path / "original", ["experiment=original"], labels, [labels, [0, 1, 1, 1]],
              names=["rose", "iris"], seconds=[4, 2])
    write_run(tmp_path / "optimized_loop", ["experiment=optimized_loop"], labels,
              [[0, 0, 0, 0], labels], names=["rose", "iris"], seconds=[3, 1])
    found = comparison.compare(tmp_path)
    text = "\n".join(line.rstrip() for line in shown(found, 80).splitlines())
    assert text == """\
run               steps_per_execution
─────────────────────────────────────
original          1
optimized_loop *  epoch

                   last    last       last   last   last    last  last
run                 acc  recall  precision     f1   head  medium  tail
──────────────────────────────────────────────────────────────────────
original          0.750   0.750      0.833  0.733  0.500   1.000     -
optimized_loop *  1.000   1.000      1.000  1.000  1.000   1.000     -

                   best   best    best       best   best   best    best  best
run               epoch    acc  recall  precision     f1   head  medium  tail
─────────────────────────────────────────────────────────────────────────────
original              1  1.000   1.000      1.000  1.000  1.000   1.000     -
optimized_loop *      2  1.000   1.000      1.000  1.000  1.000   1.000     -

                     first      later
run               epoch, s  epochs, s
─────────────────────────────────────
original               4.0        2.0
optimized_loop *       3.0        1.0

* highest mean F1 at the last epoch
head, medium, tail: macro recall of the classes in thirds by training count

optimized_loop against original, last epoch, seed 0
  accuracy   +0.250  [+0.000, +0.750]  no clear difference
  recall     +0.250  [+0.000, +0.750]  no clear difference
  precision  +0.167  [+0.000, +0.875]  no clear difference
  F1         +0.267  [+0.000, +0.800]  no clear difference
  both predict the same class for 75% of the images
  McNemar's exact test: p = 1.000
  time per epoch: 0.50 times the baseline's, first epoch excluded
  recall gained: rose +0.50
  caution: single seed: the interval covers image sampling, not seed variance"""

"""The runs that docs/results.md tells of: compared again, they say what is written there."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs/results"
PAGE = ROOT / "docs/results.md"
MIB = 2**20


def markdown_tables(text):
    """Every table of a Markdown text, {first header: DataFrame of texts by first column}."""
    found, lines = {}, []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("|").split("|")])
        elif lines:
            table = pd.DataFrame(lines[2:], columns=lines[0]).set_index(lines[0][0])
            found.setdefault(lines[0][0], table)
            lines = []
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What the documented command prints as Markdown, and the CSV that it writes."""
    csv = tmp_path_factory.mktemp("compared") / "table.csv"
    done = subprocess.run(
        [sys.executable, "-m", "flowerexp", "compare", "docs/results/notebook", "--md", "--csv",
         csv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, csv


def test_the_kept_runs_give_the_kept_comparison(compared):
    markdown, csv = compared
    assert markdown == (KEPT / "comparison/comparison.md").read_text(encoding="utf-8")
    again, kept = (pd.read_csv(path) for path in (csv, KEPT / "comparison/comparison.csv"))
    pd.testing.assert_frame_equal(again, kept, rtol=1e-9)


def test_the_page_shows_numbers_of_that_comparison(compared):
    markdown, _ = compared
    made, shown = markdown_tables(markdown), markdown_tables(PAGE.read_text(encoding="utf-8"))
    for first in ("run", "pair"):
        assert list(shown[first].index) == list(made[first].index)
        assert len(shown[first].columns) >= 4
        pd.testing.assert_frame_equal(shown[first], made[first][shown[first].columns])


def test_all_eight_were_run_with_three_seeds():
    table = pd.read_csv(KEPT / "comparison/comparison.csv")
    assert len(table) == 8
    assert (table["n"] == 3).all()


def test_what_is_kept_is_small_and_holds_no_photos_and_no_weights():
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2 * MIB
    assert {path.suffix for path in files} == {".json", ".yaml", ".md", ".csv", ".png", ".sh"}
    pictures = [path for path in files if path.suffix == ".png"]
    assert pictures
    assert all(path.parent.name == "comparison" and path.name.startswith("pair-")
               for path in pictures)


def test_nothing_that_is_kept_names_the_machine():
    for path in KEPT.rglob("status.json"):
        text = path.read_text(encoding="utf-8")
        assert not any(f'"{key}"' in text for key in ("host", "pid", "working_directory")), path

"""The page of a comparison, from run folders, and its pictures' files."""

import base64
import contextlib
import html
import re
import shlex
import shutil

import numpy as np
import pytest

from flowerexp import metrics
from flowerexp.comparison import comparison, report
from flowerexp.plots import confusion, history, style
from flowerexp.plots.page import wrap
from flowerexp.runs import store
from tests.folders import write_run
from tests.html import IMAGE, LABELS, Elements, outside, policy_and_needed


def write(compared, folder):
    """The page and the files of its pictures, as `flowerexp compare --output` writes them."""
    return report.write(compared, folder / report.PAGE, files=True)


def count(compared):
    return sum(map(len, report.all_pictures(compared).values()))


# The text of the page

def test_page_refers_to_nothing_outside(page):
    assert outside(page.read_text(encoding="utf-8")) == []


def test_page_has_one_script_and_one_style_that_its_policy_names(page):
    policy, needed = policy_and_needed(page.read_text(encoding="utf-8"))
    assert policy == needed


def test_pictures_of_the_page_are_the_files_beside_it(compared, page):
    sources = [attributes["src"] for tag, attributes in Elements(page.read_text()).found
               if tag == "img"]
    files = sorted((page.parent / "pictures").iterdir())
    assert len(sources) == len(files) == count(compared)
    assert sorted(base64.b64decode(source.partition(",")[2]) for source in sources) == sorted(
        path.read_bytes() for path in files)
    assert all(re.fullmatch(r"(row|pair)-\d\d-[A-Za-z0-9._=+-]*-(history|confusion|classes)\.png",
                            path.name) for path in files)


def test_there_are_pictures_of_every_row_with_an_epoch_and_of_every_pair(compared):
    kinds = {anchor: [picture.file.rpartition("-")[2] for picture in several]
             for anchor, several in report.all_pictures(compared).items()}
    rows = {row.name: kinds[report.anchor("row", number)]
            for number, row in enumerate(compared.rows)}
    everything = ["history.png", "confusion.png", "classes.png"]
    assert {name: of for name, of in rows.items() if of != everything} == {"it's; rm -rf ": []}
    assert len(rows) == 5
    assert kinds["pair-01"] == kinds["pair-02"] == ["history.png", "classes.png"]


def test_failures_say_how_to_go_on(page, compared):
    text = page.read_text(encoding="utf-8")
    commands = [shlex.split(html.unescape(command)) for command in
                re.findall('<code class="command">(.*?)</code>', text)]
    resumable = [run for run in compared.failures if run.seed is not None]
    assert commands == [["python", "-m", "flowerexp", "resume", str(run.folder)]
                        for run in resumable]
    assert {run.state for run in resumable} == {"failed", "interrupted"}
    assert len(compared.failures) == 3
    assert "failed before the first epoch" in text
    assert "interrupted at epoch 2 of 9" in text


def test_same_files_make_the_same_page(tmp_path):
    compared = bare(tmp_path / "run")
    one, two = (write(compared, tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_page_of_nothing_readable_says_so(tmp_path):
    bare(tmp_path / "run")
    (tmp_path / "run" / store.CONFIG).write_text("a: [")
    compared = comparison.compare(tmp_path / "run")
    assert not compared.rows
    text = write(compared, tmp_path / "out").read_text()
    assert "cannot be read" in text
    assert not (tmp_path / "out" / "pictures").exists()


@pytest.mark.usefixtures("empty_pictures")
def test_page_of_a_name_that_is_no_text(tmp_path):
    folder = write_run(tmp_path / b"runs-\xff+seed=0".decode(errors="surrogateescape"),
                       ["seed=0"], [0, 1], [[0, 1]])
    (folder / store.CLASSES).write_text(r'{"names": ["\ud800", "b"], "train counts": [2, 1]}')
    page = write(comparison.compare(folder), tmp_path / "out")
    assert "runs-?" in page.read_text(encoding="utf-8")


# Pictures' files

def bare(folder, **changes):
    """One row whose run has two epochs of three classes."""
    arguments = {"labels": [0, 0, 1, 2], "predictions": [[0, 1, 1, 1], [0, 0, 1, 1]]} | changes
    write_run(folder, ["seed=0"], **arguments)
    return comparison.compare(folder)


@pytest.mark.usefixtures("empty_pictures")
def test_progress_advances_by_every_picture(tmp_path):
    class Logger:
        @contextlib.contextmanager
        def steps(self, title, count):
            shown.append((title, count))
            yield lambda: shown.append("step")

    shown = []
    report.write(bare(tmp_path / "run"), tmp_path / "a.html", Logger())
    assert shown == [("pictures", 3), "step", "step", "step"]


@pytest.mark.usefixtures("empty_pictures")
def test_pictures_of_an_earlier_comparison_are_removed_and_other_files_stay(tmp_path):
    pictures = tmp_path / "out" / "pictures"
    compared = bare(tmp_path / "earlier")
    write(compared, tmp_path / "out")
    mine = pictures / "row-01-mine-history.png"
    style.save(history.draw([compared.rows[0].runs[0].history]), mine)
    copy = shutil.copy(next(pictures.glob("*-confusion.png")), pictures / "kept.png")
    (pictures / "notes.txt").write_text("mine")
    (pictures / "empty.png").touch()
    (pictures / "folder.png").mkdir()
    write(bare(tmp_path / "run"), tmp_path / "out")
    assert {path.name for path in pictures.iterdir()} == {
        "row-01-run-history.png", "row-01-run-confusion.png", "row-01-run-classes.png", mine.name,
        copy.name, "notes.txt", "empty.png", "folder.png"}


@pytest.mark.usefixtures("empty_pictures")
def test_failure_leaves_the_old_page_and_no_partial_file(tmp_path, monkeypatch):
    page = write(bare(tmp_path / "run"), tmp_path / "out")
    before = page.read_bytes()
    monkeypatch.setattr(confusion, "draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(bare(tmp_path / "other"), tmp_path / "out")
    assert page.read_bytes() == before
    assert not list(page.parent.rglob(".partial*"))


def test_run_without_classes_has_its_history_and_matrix(tmp_path):
    bare(tmp_path / "run")
    (tmp_path / "run" / store.CLASSES).unlink()
    compared = comparison.compare(tmp_path / "run")
    pictures, = report.all_pictures(compared).values()
    assert [picture.file for picture in pictures] == ["row-01-run-history.png",
                                                      "row-01-run-confusion.png"]
    assert [label.get_text() for label in pictures[1].draw().axes[0].get_yticklabels()] == [
        "0", "1", "2"]


def test_run_of_very_many_classes_has_no_matrix(tmp_path):
    compared = bare(tmp_path / "run", labels=[0, 1100], predictions=[[0, 1]],
                    names=[str(number) for number in range(1200)], counts=list(range(1200)))
    files = [picture.file for picture in report.all_pictures(compared)["row-01"]]
    assert files == ["row-01-run-history.png", "row-01-run-classes.png"]


def test_matrix_and_dots_are_of_all_seeds_at_the_last_epoch(compared):
    row = next(row for row in compared.rows if row.name == "original")
    _, matrix, classes = report.pictures_of_row(row, "row-01")
    by_run = np.stack([run.predictions[-1] for run in row.runs])
    right = int((by_run == LABELS).sum())
    assert matrix.draw().axes[0].get_title() == (
        f"Validation: {right} of {2 * len(LABELS)} images correct, sum of 2 runs")
    import sklearn.metrics
    f1 = [sklearn.metrics.f1_score(LABELS, ids, average=None) for ids in by_run]
    dots = classes.draw().axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 1], np.mean(f1, axis=0))
    assert dots[:, 0].tolist() == row.runs[0].class_counts.tolist()


def test_pair_shows_the_change_of_f1_at_its_epoch(compared):
    import sklearn.metrics
    rows = {row.name: row for row in compared.rows}
    _, changes = report.pictures_of_pair(compared.pairs[0], rows, "pair-01")

    def f1(name):
        return np.mean([sklearn.metrics.f1_score(
            LABELS, run.predictions[metrics.best_epoch(run.history)], average=None)
            for run in rows[name].runs], axis=0)

    dots = changes.draw().axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 1], f1("perspective") - f1("original"), atol=1e-12)
    assert "best epoch" in changes.caption


def test_f1_of_a_class_that_is_nowhere_is_undefined(tmp_path):
    compared = bare(tmp_path / "run", names=list("abcd"), counts=[4, 3, 2, 1])
    scores = report.class_f1(compared.rows[0].runs, "last", 4)
    np.testing.assert_allclose(scores, [1, 2 / 3, 0, np.nan])


# Small things

@pytest.mark.parametrize("text", ["", "a_b+c", "x" * 99, "<b>&amp;", " a  b ", "\n\n", IMAGE])
def test_wrapping_leaves_the_text(text):
    wrapped = wrap(text)
    assert Elements(str(wrapped)).found in ([], [("wbr", {})] * wrapped.count("<wbr>"))
    assert wrapped.replace("<wbr>", "").unescape() == text
    assert max(map(len, html.unescape(wrapped).split("<wbr>"))) <= 20


def test_scale_of_the_intervals_holds_all_of_them(compared):
    limit = report.axis_limit(compared)
    bounds = [bound for pair in compared.pairs for interval in pair.differences.values()
              for bound in (interval.low, interval.high)]
    assert max(map(abs, bounds)) <= limit < max(map(abs, bounds)) + 0.01
    assert report.axis_limit(comparison.Comparison((), (), (), ())) == 0.01

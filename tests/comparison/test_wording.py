"""The wording of a comparison: values, keys, states, commands, and safe text on a terminal."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowerexp import composition
from flowerexp.comparison import comparison, tables, wording
from flowerexp.comparison.rows import Row
from flowerexp.errors import UserError
from flowerexp.runs import reader
from flowerexp.runs.log import RunLogger
from tests.folders import write_experiment


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    return reader.read_run(write_experiment(tmp_path_factory.mktemp("runs"), "original"))


@pytest.mark.parametrize(("value", "text"), [
    (None, "null"), (True, "true"), (False, "false"), (1e-5, "1e-05"), (1.0, "1"), (3, "3"),
    ([], "none"), (["flip", "cutmix"], "flip, cutmix"), ("a\nb", "a b"), ("", "")])
def test_values_are_written_as_on_the_command_line(value, text):
    assert wording.value_text(value) == text


def test_keys_are_named_by_their_last_part_where_that_is_enough():
    assert wording.key_titles(["loop.epochs", "sampling.kind", "model.name", "data",
                               "augmentation.flip.probability",
                               "augmentation.rotation.probability", "model.source"]) == {
        "loop.epochs": "epochs", "sampling.kind": "sampling", "model.name": "model",
        "data": "data", "augmentation.flip.probability": "augmentation.flip.probability",
        "augmentation.rotation.probability": "augmentation.rotation.probability",
        "model.source": "source"}


def test_long_values_are_shortened_while_they_differ():
    long = "/weights/" + "x" * 40
    assert wording.shortened([f"{long}/b7_notop.h5", "null"]) == ["…/b7_notop.h5", "null"]
    short = wording.shortened(["a" * 20 + "b" * 20, "c"])[0]
    assert short == "a" * 14 + "…" + "b" * 13
    same_end = ["/one" * 10 + "/x.h5", "/two" * 10 + "/x.h5"]
    assert wording.shortened(same_end) == same_end


def test_parameters_that_say_no_more_than_their_transform_are_not_shown(tmp_path):
    for name, *overrides in (("original",), ("perspective",),
                             ("perspective", "augmentation.perspective.probability=0.9")):
        write_experiment(tmp_path / str(len(overrides)), name, *overrides)
    rows = comparison.compare(tmp_path).rows
    keys = wording.shown_keys(rows)
    assert "augmentation" in keys
    assert "augmentation.perspective.probability" in keys
    assert "augmentation.perspective.rotate" not in keys
    assert "augmentation.perspective.rotate" in rows[0].differing


@pytest.mark.parametrize(("state", "epochs", "of", "text"), [
    ("done", 3, 3, "done"), ("new", 0, None, "new"), ("unreadable", 0, None, "unreadable"),
    ("failed", 0, 3, "failed before the first epoch"),
    ("interrupted", 3, 10, "interrupted at epoch 3 of 10"),
    ("running", 2, None, "running at epoch 2")])
def test_state_says_how_far_a_run_came(a_run, state, epochs, of, text):
    run = replace(a_run, state=state, history=[{}] * epochs, epochs=of)
    assert wording.run_state(run) == text


@pytest.mark.parametrize(("states", "text"), [
    ("done done", "done"), ("done failed done", "2 of 3 done"), ("failed failed",
                                                                 "failed at epoch 3 of 9"),
    ("failed new", "0 of 2 done")])
def test_state_of_a_row_says_how_many_are_done(a_run, states, text):
    runs = tuple(replace(a_run, state=state, epochs=9) for state in states.split())
    assert wording.state(Row("x", runs, {})) == text


@pytest.mark.parametrize("folder", ["outputs/x+seed=0", "it's", "$(touch x) [bold]; | `x`", "a b"])
def test_command_that_goes_on_is_quoted_for_a_shell(a_run, folder):
    run = replace(a_run, folder=Path(folder))
    assert shlex.split(wording.rerun(run)) == ["python", "-m", "flowerexp", "resume", folder]
    assert wording.rerun(replace(run, seed=None)) is None


def test_columns_are_told_what_they_are(a_run):
    one, two = (Row("x", (a_run,) * count, {}) for count in (1, 2))
    def legend(*rows):
        return tables.legend(comparison.Comparison(rows, (), (), ()).table, "best: ")

    assert legend(one) == [wording.THIRDS]
    assert legend(one, two) == ["best: " + wording.BEST, wording.THIRDS,
                                                                             wording.SPREAD]


def test_no_text_of_a_file_commands_the_terminal(capsys):
    text = "a \x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}\N{RIGHT-TO-LEFT MARK}\udcff\nb"
    RunLogger().info(text)
    assert capsys.readouterr().out == "a  [2J   \nb\n"
    with pytest.raises(SystemExit, match=r"^flowerexp: a  \[2J   \nb$"), composition.one_sentence():
        raise UserError(text)
    assert wording.one_line(text) == "a [2J b"
    from flowerexp.inference import prediction

    assert "\n     a [2J b     1.0000 " in prediction.Evaluation(
        np.eye(2, dtype=int), [text, "other"], []).report()

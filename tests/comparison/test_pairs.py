"""Which rows are held against which, and what is said of a pair."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from flowerexp import metrics
from flowerexp.comparison import comparison, pairs, wording
from flowerexp.errors import UserError
from flowerexp.runs import store
from tests.folders import LABELS, PREDICTIONS, write_experiment, write_run

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found")


def pair_names(found):
    return [(pair.name, pair.baseline) for pair in found.pairs]


# Which rows are pairs

def test_configs_name_the_pairs(healthy):
    found = comparison.compare(healthy)
    assert pair_names(found) == [("optimized_loop", "original")]
    assert found.pairs[0].seeds == (0, 1)
    assert found.pairs[0].epoch == "last"


def test_in_a_sweep_over_models_each_has_its_own_baseline(tmp_path):
    for model in ("mobilenet", "densenet121"):
        for name in ("original", "optimized_loop"):
            # The name of the folder is of no account, nor where the images are.
            write_experiment(tmp_path / model / name, name, f"model={model}",
                             f"dataset.root=/{name}")
    found = comparison.compare(tmp_path)
    assert pair_names(found) == [
        ("optimized_loop (model=densenet121)", "original (model=densenet121)"),
        ("optimized_loop (model=mobilenet)", "original (model=mobilenet)")]
    assert not found.notes


def test_of_several_baselines_that_of_the_same_data_is_taken(tmp_path):
    for data in ("aaaa", "bbbb"):
        for name in ("original", "optimized_loop"):
            write_experiment(tmp_path / data, name, data=data)
    found = comparison.compare(tmp_path)
    folder = "{}/{}+seed=0"
    assert pair_names(found) == [tuple(str(tmp_path / folder.format(data, name))
                                       for name in ("optimized_loop", "original"))
                                 for data in ("aaaa", "bbbb")]


def test_baseline_of_other_overrides_is_a_note(tmp_path):
    write_experiment(tmp_path, "original", "loop.epochs=4", "model.dropout=0.5")
    write_experiment(tmp_path, "optimized_loop", "model.dropout=0.4", "results.use=best")
    found = comparison.compare(tmp_path)
    assert not found.pairs
    assert found.notes == ("optimized_loop is not compared with its baseline original, which is "
                           "here only with other values of loop.epochs, model.dropout, "
                           "results.use",)


def test_baselines_that_are_not_here_are_one_note(tmp_path):
    write_experiment(tmp_path, "optimized_loop")
    write_experiment(tmp_path, "accumulate_8_lr_x8")
    found = comparison.compare(tmp_path)
    assert pair_names(found) == [("accumulate_8_lr_x8", "optimized_loop")]
    assert found.notes == ("not compared because the baseline is not among these folders: "
                           "optimized_loop against original, accumulate_8_lr_x8 against "
                           "accumulate_8",)


def test_a_row_that_names_itself_is_no_pair(tmp_path):
    write_run(tmp_path / "x", ["experiment=original", "compared_with=[original,original]"],
              LABELS, PREDICTIONS)
    found = comparison.compare(tmp_path)
    assert not found.pairs
    assert not found.notes


@pytest.mark.parametrize("text", [
    "original:optimized_loop", "{root}/original+seed=0:optimized_loop",
    "original+seed=1:{root}/optimized_loop+seed=0/"])
def test_asked_pairs_are_of_rows_experiments_or_folders(healthy, text):
    found = comparison.compare(healthy, pairs=[text.format(root=healthy)])
    assert pair_names(found) == [("original", "optimized_loop")]
    assert found.pairs[0].seeds == (0, 1)


def test_asked_pairs_stand_once_and_instead_of_the_named(healthy):
    found = comparison.compare(healthy, ["original:optimized_loop"] * 2 + ["original:original"])
    assert pair_names(found) == [("original", "optimized_loop")]
    assert found.notes == ("pair original:original: both are original: not compared",)


def test_names_and_folders_may_hold_a_colon(tmp_path):
    for folder in ("a:b", "c"):
        write_run(tmp_path / folder, [f"name='{folder}'", f"loop.epochs={3 + len(folder)}"],
                  LABELS, PREDICTIONS)
    for text in ("a:b:c", "c:a:b", f"{tmp_path}/a:b:{tmp_path}/c"):
        assert set(*pair_names(comparison.compare(tmp_path, [text]))) == {"a:b", "c"}


def test_names_may_hold_commas(tmp_path):
    for folder, epochs in (("a,b", 3), ("c", 4), ("loss=focal, x", 5)):
        write_run(tmp_path / folder, [f"loop.epochs={epochs}"], LABELS, PREDICTIONS)
    wanted = [("a,b", "c"), ("loss=focal, x", "a,b"), ("c", "a,b")]
    together = "a,b:c,loss=focal, x:a,b,c:a,b"
    for texts in ([together], together, ["a,b:c", "loss=focal, x:a,b,c:a,b"]):
        assert pair_names(comparison.compare(tmp_path, texts)) == wanted
    for text in ("a,b:c,c:d,b", "c:d,b,a,b:c"):
        with pytest.raises(UserError, match=r"pair c:d.*: no run here is named 'd"):
            comparison.compare(tmp_path, [text])
    with pytest.raises(UserError, match="pair c does not name two runs"):
        comparison.compare(tmp_path, ["a,b:c,c"])


def test_asked_experiments_of_several_overrides_are_paired_by_these(tmp_path):
    for epochs in (4, 5):
        for name in ("original", "perspective"):
            write_experiment(tmp_path / str(epochs), name, f"loop.epochs={epochs}")
    found = comparison.compare(tmp_path, ["perspective:original"])
    assert pair_names(found) == [(f"perspective (loop.epochs={epochs})",
                                  f"original (loop.epochs={epochs})") for epochs in (4, 5)]
    found = comparison.compare(tmp_path, ["original (loop.epochs=4):original (loop.epochs=5)"])
    assert len(found.pairs) == 1
    shutil.rmtree(tmp_path / "5/original+seed=0")
    shutil.rmtree(tmp_path / "4/perspective+seed=0")
    write_experiment(tmp_path / "6", "original", "loop.epochs=6")
    with pytest.raises(UserError, match="is ambiguous: name one of the rows"):
        comparison.compare(tmp_path, ["original:perspective"])


@pytest.mark.parametrize(("text", "message"), [
    ("original", "does not name two runs: write a:b"), (":", "does not name two runs"),
    ("original:", "does not name two runs"), ("", "does not name two runs"),
    ("orignal:optimized_loop", "no run here is named 'orignal', .*did you mean 'original'"),
    ("original:nothing at all", "'nothing at all', only original, optimized_loop$")])
def test_pairs_that_are_none_are_refused(healthy, text, message):
    with pytest.raises(UserError, match=message):
        comparison.compare(healthy, [text])


def test_epoch_that_is_none_is_refused(healthy):
    with pytest.raises(UserError, match="did you mean 'best'"):
        comparison.compare(healthy, epoch="bests")


# What a pair says

def write_pair(root, candidate, baseline, labels=LABELS, **options):
    """Single runs of one epoch each, or a list of them, seed by seed."""
    for name, side in (("optimized_loop", candidate), ("original", baseline)):
        for seed, epochs in enumerate(side):
            write_run(root / f"{name}+seed={seed}", [f"experiment={name}", f"seed={seed}"],
                      labels, epochs, names=options.get("names"),
                      seconds=options.get(name, {}).get(seed))
    return comparison.compare(root, epoch=options.get("epoch", "last"))


def test_differences_are_those_of_the_histories(tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 60).tolist()
    sides = [[[np.where(random.random(60) < 0.6, labels, random.integers(0, 5, 60)).tolist()
               for _ in range(4)] for _ in range(3)] for _ in range(2)]
    for epoch in ("last", "best"):
        found = write_pair(tmp_path, *sides, labels=labels, epoch=epoch)
        [pair] = found.pairs
        assert (pair.epoch, pair.seeds, pair.caution) == (epoch, (0, 1, 2), None)
        for metric, difference in pair.differences.items():
            of_sides = []
            for name in ("optimized_loop", "original"):
                histories = [store.read_history(tmp_path / f"{name}+seed={seed}")
                             for seed in range(3)]
                of_sides.append(np.mean([
                    history[metrics.best_epoch(history) if epoch == "best" else 3][
                        f"valid {metric}"] for history in histories]))
            assert difference.value == pytest.approx(of_sides[0] - of_sides[1], abs=1e-12)
            assert difference.low <= difference.value <= difference.high
        assert list(pair.differences) == ["acc", "recall", "precision", "f1"]


def test_epochs_of_a_pair_are_each_run_s_own(tmp_path):
    right, wrong = [0, 1], [1, 0]
    best_last = [[[right, wrong]], [[wrong, wrong]]]
    assert write_pair(tmp_path, *best_last, labels=right).pairs[0].differences["acc"].value == 0
    found = write_pair(tmp_path, *best_last, labels=right, epoch="best")
    assert found.pairs[0].differences["acc"].value == 1


def test_mcnemar_of_single_runs(tmp_path):
    labels = [0] * 30
    candidate = [1] * 9 + [0] * 21           # nine that only the baseline has right
    baseline = [0] * 9 + [1] + [0] * 20   # one that only candidate has right
    found = write_pair(tmp_path, [[candidate]], [[baseline]], labels=labels, names=["a", "b"])
    assert found.pairs[0].p_value == pytest.approx(0.021484375)
    for p_value, text in ((found.pairs[0].p_value, "p = 0.021"), (1.0, "p = 1.000"),
                          (0.0009, "p < 0.001")):
        remarks = wording.pair_remarks(replace(found.pairs[0], p_value=p_value))
        assert f"McNemar's exact test: {text}" in remarks
    assert found.pairs[0].caution == pairs.CAUTIONS[1]
    found = write_pair(tmp_path, [[candidate]] * 2, [[baseline]] * 2, labels=labels,
                       names=["a", "b"])
    assert found.pairs[0].p_value is None
    assert found.pairs[0].caution == pairs.CAUTIONS[2]


def test_gained_and_lost_classes(tmp_path):
    labels = np.repeat(range(9), 4).tolist()
    names = list("abcdefghi")
    miss = {(0, "candidate"): 1, (1, "baseline"): 2, (2, "baseline"): 4, (3, "baseline"): 2,
            (4, "candidate"): 3, (5, "baseline"): 1, (6, "baseline"): 1, (7, "baseline"): 1}
    sides = [[8 if index % 4 < miss.get((label, side), 0) and label != 8 else label
              for index, label in enumerate(labels)] for side in ("candidate", "baseline")]
    [pair] = write_pair(tmp_path, [[sides[0]]], [[sides[1]]], labels=labels, names=names).pairs
    # Ties by class, five at most, and i, of which nothing changed, in neither.
    assert pair.gained == [("c", 1.0), ("b", 0.5), ("d", 0.5), ("f", 0.25), ("g", 0.25)]
    assert pair.lost == [("e", -0.75), ("a", -0.25)]


def test_gain_is_the_mean_over_the_seeds(tmp_path):
    [pair] = write_pair(tmp_path, [[[0, 0, 1]], [[0, 1, 1]]], [[[1, 1, 1]], [[0, 1, 0]]],
                        labels=[0, 0, 1]).pairs
    assert pair.gained == [("class 0", 0.5), ("class 1", 0.5)]
    assert pair.lost == []


def test_time_is_the_ratio_of_the_mean_epochs_the_first_apart(tmp_path):
    epochs = [[0]] * 3
    seconds = {"optimized_loop": {0: [100.0, 2.0, 4.0], 1: [100.0, 5.0, 5.0]},
               "original": {0: [1.0, 9.0, 7.0], 1: [1.0, 8.0, 8.0]}}
    [pair] = write_pair(tmp_path, [epochs] * 2, [epochs] * 2, labels=[0], **seconds).pairs
    assert pair.time_ratio == pytest.approx((3 + 5) / (8 + 8))


def test_agreement_is_of_all_seeds_and_whole_for_equal_predictions_only(tmp_path):
    labels = [0] * 999 + [1]
    [pair] = write_pair(tmp_path / "one", [[labels], [[0] * 1000]], [[[0] * 1000], [[0] * 1000]],
                        labels=labels).pairs
    assert pair.agreement == 1999 / 2000
    assert "both predict the same class for 99% of the images" in wording.pair_remarks(pair)
    [pair] = write_pair(tmp_path / "other", [[[0, 1]]], [[[0, 1]]], labels=[0, 1]).pairs
    assert "both predict the same class for every image" in wording.pair_remarks(pair)


def test_one_epoch_has_no_ratio_of_times(tmp_path):
    assert write_pair(tmp_path, [[[0]]], [[[0]]], labels=[0]).pairs[0].time_ratio is None


def test_seeds_of_one_side_are_left_out_and_noted(tmp_path):
    one = [[0, 1]]
    found = write_pair(tmp_path, [one] * 4, [one] * 2, labels=[0, 1])
    assert found.pairs[0].seeds == (0, 1)
    assert found.notes == ("optimized_loop against original: seeds 2, 3 finished on one side only "
                           "and left out",)


def test_classes_that_only_one_model_knows_are_fine(tmp_path):
    write_experiment(tmp_path, "original", predictions=[LABELS])
    write_run(tmp_path / "x", ["experiment=optimized_loop"], LABELS, [[7] * 10],
              names=[f"class {label}" for label in range(9)])
    assert not comparison.compare(tmp_path).pairs
    [pair] = comparison.compare(tmp_path, common=True).pairs
    assert pair.differences["acc"].value == -1
    assert pair.differences["recall"].value == -1


@pytest.mark.parametrize(("reason", "change"), [
    ("original has no finished run", {"state": "interrupted"}),
    ("they have no finished seed in common", {"seed": 1}),
    ("not judged on the same data (1 image with different labels)", {"labels": [*LABELS[:9], 2]}),
    ("not judged on the same data (9 images in common of 10 and 9", {"labels": LABELS[:9]})])
def test_pairs_that_cannot_be_judged_are_notes(tmp_path, reason, change):
    labels = change.get("labels", LABELS)
    write_experiment(tmp_path, "optimized_loop", names=list("abcd"))
    write_run(tmp_path / "base", ["experiment=original", f"seed={change.get('seed', 0)}"], labels,
              [epoch[:len(labels)] for epoch in PREDICTIONS], names=list("abcd"),
              state=change.get("state", "done"))
    for asked in ((), ("optimized_loop:original",)):
        found = comparison.compare(tmp_path, asked)
        assert not found.pairs
        [note] = found.notes
        assert note.startswith("optimized_loop against original: not compared: ")
        assert reason in note
        if "labels" in change:
            assert str(tmp_path / "base") in note
            assert str(tmp_path / "optimized_loop+seed=0") in note


def test_rounding_is_no_clear_difference():
    assert not pairs.Interval(1e-17, 1e-17, 0.1).clear
    assert not pairs.Interval(0, -0.1, 0.0).clear
    assert pairs.Interval(0.2, 0.001, 0.1).clear
    assert pairs.Interval(-0.2, -0.3, -0.001).clear

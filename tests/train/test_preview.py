"""Plans of runs whose data are not here: the published sizes of the competition, in a dry run."""

import numpy as np
import pytest

from flowerexp.data import sampling
from flowerexp.data.batching import Plan
from flowerexp.runs.log import RunLogger
from flowerexp.train import preview


def extreme_counts():
    return preview.extreme_counts(12_753, 104, 18, 782)


def test_the_extreme_counts_have_the_competitions_size_and_range():
    for counts in extreme_counts():
        assert counts.dtype == np.int64
        assert (len(counts), counts.sum()) == (104, 12_753)
        assert (counts.min(), counts.max()) == (18, 782)


@pytest.mark.parametrize("target", [50, 100, 117, 118, 300, 500])
def test_they_bound_the_examples_of_any_counts_of_that_size_and_range(target):
    def examples(counts):
        return sampling.examples_per_epoch(counts, sampling.Oversample(target))

    most, fewest = map(examples, extreme_counts())
    assert fewest < most
    random = np.random.default_rng(target)
    for spread in (0.5, 1.0, 2.0, 4.0):
        counts = np.clip(117 * np.exp(random.normal(0, spread, 104)), 18, 782).astype(int)
        counts[:2] = 18, 782
        while (missing := 12_753 - counts.sum()) != 0:
            free = np.flatnonzero(counts < 782 if missing > 0 else counts > 18)[2:]
            counts[random.choice(free, min(abs(missing), len(free)), replace=False)] += np.sign(
                missing)
        assert (counts.min(), counts.max()) == (18, 782)
        assert fewest <= examples(counts) <= most


def test_a_number_that_the_plans_share_is_exact_and_another_a_range():
    plans = tuple(Plan(1, 1, 16, 1, 64, 1000, updates, 2) for updates in (9, 5, 7))
    assert preview.cell("epochs", plans) == "2"
    assert preview.cell("updates_per_epoch", plans) == "5-9"
    assert preview.cell("updates", plans) == "10-18"
    assert preview.cell("epochs", ()) == "-"


def test_the_plan_has_the_time_of_training_where_such_runs_were_measured(tmp_path, monkeypatch,
                                                                          capsys):
    """200 updates of 16 images: 64 s at 50 images a second, 96,000 s at 30 s an image."""
    previews = {name: preview.Preview(("data",), None, (Plan(1, 1, 16, 1, 64, 1600, 100, 2),), 64)
                for name in ("fast", "slow", "elsewhere")}
    configs = {"fast": 1 / 50, "slow": 30.0}
    monkeypatch.setattr(preview.identity, "plain", lambda config: config)
    monkeypatch.setattr(preview.reader, "seconds_per_image",
                        lambda folder, plain, image_size: plain if image_size == 64 else None)
    preview.show(RunLogger(), tmp_path, previews, configs)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("new")[-1].strip() for line in printed if "new" in line] == [
        "about 1 min", "about 1 d 3 h", "-"]
    assert printed[-1] == "warning: training takes more than a day"
    preview.show(RunLogger(), tmp_path, previews, {})
    assert "training" not in capsys.readouterr().out

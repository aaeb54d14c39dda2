"""What benchmarks.scale derives, against cases worked out by hand. Nothing is measured."""

import pytest

from benchmarks import scale

CONSTANTS = {"decoded_bytes": 100.0, "decoded_peak_bytes": 120.0, "encoded_bytes": 20.0,
             "encoded_peak_bytes": 30.0, "none_bytes": 1.0, "none_peak_bytes": 2.0,
             "read_passes": 2.0, "record_bytes": 10.0}
SPLITS = {"train": 800, "val": 100, "test": 50}


@pytest.mark.parametrize(("members", "sent"), [(1, 0), (2, 100), (4, 150), (8, 175)])
def test_each_member_of_a_ring_sends_the_payload_almost_twice(members, sent):
    assert scale.ring_bytes(100, members) == sent


def test_a_table_is_as_large_on_every_worker():
    assert scale.table_bytes(900, "decoded", CONSTANTS) == 90_000
    assert scale.table_bytes(900, "encoded", CONSTANTS, peak=True) == 27_000
    assert scale.table_bytes(900, "none", CONSTANTS) == 900


def test_the_start_reads_every_split_and_the_end_reads_test_again():
    assert scale.start_bytes(SPLITS, 1, CONSTANTS) == 2 * 10 * (800 + 100 + 2 * 50)
    assert scale.start_bytes(SPLITS, 8, CONSTANTS) == 2 * 10 * (800 + 100 + 2 * 50) / 8


def test_a_streamed_epoch_reads_a_share_of_train_and_val():
    assert scale.epoch_bytes(SPLITS, 1, CONSTANTS) == 9_000
    assert scale.epoch_bytes(SPLITS, 8, CONSTANTS) == 10 * (800 + 100) / 8


def test_predictions_are_written_anew_after_every_epoch():
    assert scale.predictions_bytes(10, 3, 4.0) == (120, 40 + 80 + 120)


def test_small_formulas():
    assert scale.confusion_bytes(104) == 86_528
    assert scale.confusion_bytes(20_000) == 3_200_000_000
    assert scale.train_flops(2.0, 10) == 60
    assert scale.decode_cores(8_000, 0.25e-3) == 2


def test_assumed_counts_are_of_the_kaggle_set():
    counts = scale.assumed_counts()
    assert (len(counts), counts.sum()) == (104, 12_753)
    assert (counts.min(), counts.max()) == (18, 782)


def test_updates_are_the_projects_own_plan():
    scale.composition.register()
    found = scale.derived(scale.experiment("optimized_loop"), 1, 64)
    assert (found.workers, found.update_size, found.updates_per_epoch) == (8, 1_024, 12)
    assert scale.derived(scale.experiment("accumulate_8"), 1, 512) is None  # 65,536 of 12,753
    large = scale.derived(scale.experiment("oversample_300"), 10, 8)
    once = scale.derived(scale.experiment("oversample_300"), 1, 8)
    assert large.examples_per_epoch == 10 * once.examples_per_epoch


def test_the_eight_experiments_are_those_of_the_sweep():
    assert len(scale.experiments()) == 8
    assert scale.experiments()[0] == "original"


@pytest.mark.parametrize(("count", "text"), [
    (0, "0 B"), (999, "999 B"), (86_528, "86.5 kB"), (3.2e9, "3.2 GB"), (2.5e14, "250 TB"),
    (999_600, "1 MB")])
def test_bytes_are_written_with_three_digits(count, text):
    assert scale.of_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (9.76e-5, "97.6 us"), (0.0123, "12.3 ms"), (90, "90 s"), (300, "5 min"), (7_200, "2 h"),
    (864_000, "10 d")])
def test_seconds_are_written_with_their_unit(seconds, text):
    assert scale.of_seconds(seconds) == text

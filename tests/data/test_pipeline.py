"""What stands in a batch: the same images from every cache, worker and starting point."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from flowerexp import parts
from flowerexp.augment import Flip, Perspective, base
from flowerexp.data import pipeline, records, sampling, tfrecord
from flowerexp.data.batching import Plan
from flowerexp.data.features import Labels, ReadSpec
from flowerexp.data.sampling import Original, Oversample
from flowerexp.data.tables import Table
from tests.transforms import BUILT_IN

ORIGINAL = Original()
OVERSAMPLE = Oversample(12)


class Workers:
    """Stands for a strategy of several workers: deals one worker's data set to the test."""

    def __init__(self, worker=0, workers=1):
        self.context = tf.distribute.InputContext(workers, worker)

    def distribute_datasets_from_function(self, make):
        return make(self.context)


def plan_of(workers=1, replicas=1, accumulation=1, batch=4, updates=9):
    size = replicas * accumulation * batch
    return Plan(workers, replicas, batch, accumulation, 4, updates * size, updates, 2)


def images_of(root, split, cache, shuffle_bytes=1e6):
    files = tfrecord.list_files(str(root / split))
    table = records.read(files, ReadSpec(16, Labels.of(split), keep_images=cache != "none"))
    images = pipeline.Split(table, 16, shuffle_bytes=shuffle_bytes)
    return pipeline.cache_decoded(images) if cache == "decoded" else images


def elements(images, policy, plan, epoch=0, start=0, worker=0, seed=0, augment=None):
    batches = pipeline.training_batches(Workers(worker), images, policy, plan, seed, augment)
    return list(batches(epoch, start).as_numpy_iterator())


def joined(parts, key="image"):
    return np.concatenate([part[key] for part in parts])


def test_pixels_are_those_of_pil(tiny):
    import io

    from PIL import Image

    encoded = images_of(tiny, "train", "encoded")
    for index in (0, 17, 39):
        picture = Image.open(io.BytesIO(encoded.table.images[index].numpy()))
        np.testing.assert_array_equal(pipeline.load(encoded, tf.constant([index]))[0],
                                      np.asarray(picture))


@pytest.mark.parametrize("policy", [ORIGINAL, OVERSAMPLE], ids=parts.name)
def test_tables_follow_the_order_of_the_epoch(tiny, policy):
    decoded, encoded = (images_of(tiny, "train", cache) for cache in ("decoded", "encoded"))
    plan = plan_of()
    for epoch in (0, 1):
        order = sampling.epoch_indices(decoded.table.labels, policy, 5, epoch, 36)
        for images in (decoded, encoded):
            parts = elements(images, policy, plan, epoch, seed=5)
            assert joined(parts).dtype == np.uint8
            np.testing.assert_array_equal(joined(parts), decoded.decoded.numpy()[order])
            np.testing.assert_array_equal(joined(parts, "label"), decoded.table.labels[order])


@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
def test_an_epoch_goes_on_where_it_stopped(tiny, cache):
    images, plan = images_of(tiny, "train", cache), plan_of(replicas=2, accumulation=2, updates=2)
    whole = elements(images, OVERSAMPLE, plan, 3)
    assert len(whole) == 4
    rest = elements(images, OVERSAMPLE, plan, 3, start=1)
    np.testing.assert_array_equal(joined(whole[2:]), joined(rest))


def test_workers_and_replicas_share_the_same_global_updates(tiny):
    """Update u of 2 workers x 2 replicas holds the images of update u of one replica."""
    images = images_of(tiny, "train", "decoded")
    one = elements(images, OVERSAMPLE, plan_of(batch=16, updates=2))
    layout = plan_of(workers=2, replicas=4, batch=4, updates=2)
    shares = [elements(images, OVERSAMPLE, layout, worker=worker) for worker in (0, 1)]
    for update in (0, 1):
        dealt = joined([part for share in shares for part in share[2 * update:2 * update + 2]])
        np.testing.assert_array_equal(dealt, one[update]["image"])


def test_positions_are_places_in_the_epoch_on_every_worker_and_in_every_cache(tiny):
    def keep_positions(batch, epoch, positions):
        return {**batch, "positions": positions, "epoch": epoch}

    for cache in ("decoded", "none"):
        images = images_of(tiny, "train", cache)
        layout = plan_of(workers=2, replicas=4, batch=2, updates=3)
        seen = [joined(elements(images, ORIGINAL, layout, 7, worker=worker,
                                augment=keep_positions), "positions") for worker in (0, 1)]
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(24))
        np.testing.assert_array_equal(seen[1][:4], [4, 5, 6, 7])
        assert elements(images, ORIGINAL, layout, 7, augment=keep_positions)[0]["epoch"] == 7


@pytest.mark.parametrize("cache", ["encoded", "none"])
def test_the_number_of_decoding_threads_changes_no_pixel(tiny, monkeypatch, cache):
    augment = base.build({"flip": Flip(), "perspective": Perspective()}, 3, 4)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(tf.data, "AUTOTUNE", threads)  # of every parallel map
        parts = elements(images_of(tiny, "train", cache), OVERSAMPLE, plan_of(), augment=augment)
        found.append((joined(parts), joined(parts, "label")))
    for images, labels in found[1:]:
        np.testing.assert_array_equal(images, found[0][0])
        np.testing.assert_array_equal(labels, found[0][1])


def test_a_stream_shows_every_image_once_and_oversamples_by_its_draw(tiny):
    images, table = images_of(tiny, "train", "none"), images_of(tiny, "train", "decoded")
    pixels = table.decoded.numpy()

    def indices(parts):
        return [int(np.flatnonzero((pixels == image).all((1, 2, 3)))[0]) for image in joined(parts)]

    once = indices(elements(images, ORIGINAL, plan_of(batch=4, updates=10)))
    assert sorted(once) == list(range(40))
    assert once != sorted(once)
    repeats = sampling.example_repeats(images.table.labels, OVERSAMPLE, 0, 0)
    assert repeats.sum() > 44
    drawn = indices(elements(images, OVERSAMPLE, plan_of(updates=int(repeats.sum()) // 4)))
    counts = np.bincount(drawn, minlength=40)
    assert (counts <= repeats).all()
    assert (repeats - counts).sum() == repeats.sum() % 4


def test_a_stream_repeats_itself_and_changes_with_seed_and_epoch(tiny):
    images, plan = images_of(tiny, "train", "none"), plan_of()
    first = joined(elements(images, OVERSAMPLE, plan))
    np.testing.assert_array_equal(first, joined(elements(images, OVERSAMPLE, plan)))
    for other in (elements(images, OVERSAMPLE, plan, epoch=1),
                  elements(images, OVERSAMPLE, plan, seed=1)):
        assert (first != joined(other)).any()


def test_workers_stream_their_own_files_and_fill_their_share(tiny):
    images = images_of(tiny, "train", "none")
    layout = plan_of(workers=2, replicas=2, batch=4, updates=8)  # 32 of a file of 20
    halves = [joined(elements(images, ORIGINAL, layout, worker=worker)) for worker in (0, 1)]
    assert [len(half) for half in halves] == [32, 32]
    pixels = images_of(tiny, "train", "decoded").decoded.numpy()
    for half, mine in zip(halves, (pixels[:20], pixels[20:]), strict=True):
        for image in half:
            assert (mine == image).all((1, 2, 3)).any()


class EveryFifth:
    """Leaves four of five images out, or those from `end` on."""

    def __init__(self, end=None):
        self.end = end

    def __call__(self, labels, seed, epoch, draw=0):
        order = np.random.default_rng((seed, epoch, draw)).permutation(len(labels))[::5]
        return order if self.end is None else np.arange(self.end)


def test_a_stream_is_filled_from_as_many_draws_as_it_needs(tiny):
    """The sampler shows 8 of the 40 images in a draw; a worker's share of them varies."""
    images, pixels = (images_of(tiny, "train", cache) for cache in ("none", "decoded"))
    layout = plan_of(workers=2, replicas=2, batch=4, updates=9)
    for worker, mine in enumerate(np.split(pixels.decoded.numpy(), 2)):
        shown = joined(elements(images, EveryFifth(), layout, worker=worker))
        assert len(shown) == 36
        assert all((mine == image).all((1, 2, 3)).any() for image in shown)
    first = joined(elements(images, EveryFifth(), plan_of(batch=4, updates=2)))
    drawn = EveryFifth()(images.table.labels, 0, 0)
    np.testing.assert_array_equal(np.sort(first, 0), np.sort(pixels.decoded.numpy()[drawn], 0))


def test_a_sampler_that_leaves_a_workers_files_out_is_a_mistake(tiny):
    images, layout = images_of(tiny, "train", "none"), plan_of(workers=2, replicas=2, updates=1)
    with pytest.raises(pipeline.UserError, match="chooses no image of the training files of wor"):
        elements(images, EveryFifth(end=20), layout, worker=1)


def test_too_few_files_for_the_workers_is_a_mistake(tiny):
    images = images_of(tiny, "train", "none")
    with pytest.raises(pipeline.UserError, match="3 workers cannot share 2 training files"):
        elements(images, ORIGINAL, plan_of(workers=3, replicas=3, updates=1))


@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_evaluation_shows_every_image_where_its_rows_say(tiny, cache, workers):
    """In steps of 16, on 4 replicas; with 4 workers two have no file of their own to stream."""
    images, pixels = images_of(tiny, "val", cache), images_of(tiny, "val", "decoded").decoded
    plan = plan_of(workers=workers, replicas=4)
    for worker in range(workers):
        batches, rows = pipeline.evaluation_batches(Workers(worker), images, plan)
        shown = np.stack(list(batches.as_numpy_iterator()))
        mine = rows[:, worker].reshape(-1, 4)
        assert shown.shape == (*mine.shape, 16, 16, 3)
        np.testing.assert_array_equal(shown[mine >= 0], pixels.numpy()[mine[mine >= 0]])
    assert rows.shape == (2 if (cache, workers) == ("none", 4) else 1, workers, 4 // workers, 4)
    assert sorted(rows[rows >= 0].tolist()) == list(range(13))


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(1, 4),
                  st.integers(1, 3), st.integers(1, 5), st.booleans())
def test_rows_of_an_evaluation_are_every_image_once(counts, workers, replicas, batch, streamed):
    """Each worker's own files, every n-th, where they are streamed; else as one process has them.
    """
    files = tuple(f"{number}" for number in range(len(counts)))
    pixels = None if streamed else tf.zeros([sum(counts), 1, 1, 3], tf.uint8)
    images = pipeline.Split(Table(pixels, np.zeros(sum(counts), np.int32), [], files=files,
                                  counts=tuple(counts)), 1)
    plan = plan_of(workers=workers, replicas=workers * replicas)
    rows = pipeline.evaluation_rows(images, dataclasses.replace(plan, eval_batch_size=batch))
    assert rows.shape[1:] == (workers, replicas, batch)
    assert sorted(rows[rows >= 0].tolist()) == list(range(sum(counts)))
    file_of = np.repeat(np.arange(len(counts)), counts)
    if not streamed:
        assert rows.reshape(-1)[:sum(counts)].tolist() == list(range(sum(counts)))
    for worker in range(workers if streamed else 0):
        mine = rows[:, worker].reshape(-1)
        expected = [row for row in range(sum(counts)) if file_of[row] % workers == worker]
        assert mine[:len(expected)].tolist() == expected
        assert (mine[len(expected):] == -1).all()


@pytest.mark.parametrize(("cache", "expected"), [("none", ["01"]), ("encoded", ["00", "01"])])
def test_files_in_which_a_worker_looks_for_a_fault(tiny, cache, expected):
    """With a table each has all of them, and a broken JPEG may be in any."""
    files = pipeline.files_here(Workers(1, 2), images_of(tiny, "val", cache))
    assert [file.rpartition("/")[2][:2] for file in files] == expected


def test_workers_that_would_pick_other_images_pick_those_of_the_first(tiny):
    images, pixels = (images_of(tiny, "val", cache) for cache in ("none", "decoded"))
    wishes = {0: np.array([12, 0, 5]), 1: np.array([12, 0, 6])}

    def everywhere_of(worker):
        def all_gather(make):
            made = [make(0, 2), make(1, 2)]
            return [wishes[0], wishes[1]] if made[0] is wishes[worker] else made
        return all_gather

    for worker, wished in wishes.items():
        np.testing.assert_array_equal(pipeline.gather_images(images, wished, everywhere_of(worker)),
                                      pixels.decoded.numpy()[wishes[0]])


@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
def test_every_shape_of_a_batch_is_known_before_it_is_made(tiny, cache):
    """As a TPU's compiled update needs them, whatever the augmentation."""
    plan, images = plan_of(accumulation=2, updates=2), images_of(tiny, "train", cache)
    for name, chosen in BUILT_IN.items() if cache == "none" else [("mixup", BUILT_IN["mixup"])]:
        augment = base.build({name: chosen()}, 0, plan.batch_size)
        batches = pipeline.training_batches(Workers(), images, ORIGINAL, plan, 0, augment)
        spec = batches(0, 0).element_spec
        shapes = {"image": [8, 16, 16, 3], "label": [8]}
        if name in ("cutmix", "mixup"):
            shapes |= {"second_label": [8], "mix_weight": [8]}
        assert {key: part.shape for key, part in spec.items()} == shapes, name
    batches, _ = pipeline.evaluation_batches(Workers(), images_of(tiny, "val", cache), plan)
    assert batches.element_spec.shape == [4, 16, 16, 3]


@pytest.mark.parametrize("cache", ["decoded", "encoded", "none"])
def test_no_epoch_ends_by_waiting_for_a_tuner(tiny, cache):
    """tf.data's sleeps for longer and longer, and the end of an iterator waits for it."""
    images = images_of(tiny, "train", cache)
    training = pipeline.training_batches(Workers(), images, ORIGINAL, plan_of(updates=2), 0, None)
    evaluation, _ = pipeline.evaluation_batches(Workers(), images, plan_of())
    for batches in (training(0, 0), evaluation):
        assert batches.options().autotune.enabled is False
        assert batches.options().experimental_optimization.apply_default_optimizations is False

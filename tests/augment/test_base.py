"""Transforms by hand, their distributions, and what all of them share."""

import dataclasses
import math
import sys
import zlib
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf
from scipy import stats

from flowerexp import identity, parts, rng
from flowerexp.augment import (
    ColorJitter,
    CutMix,
    Flip,
    GridMask,
    MixUp,
    Perspective,
    Rotation,
    base,
    color,
    erasing,
    geometric,
    mixing,
)
from flowerexp.errors import UserError
from tests.transforms import BUILT_IN, CONF, apply, numbered, random_images

# By hand

def test_flip_exchanges_left_and_right_and_up_and_down():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    chosen = tf.constant([[False, False], [True, False], [False, True], [True, True]])
    got = base.compiled(geometric.flip)(tf.repeat(image, 4, 0), chosen).numpy()[..., 0]
    assert got.tolist() == [[[0, 3], [6, 9]], [[3, 0], [9, 6]], [[6, 9], [0, 3]], [[9, 6], [3, 0]]]


def test_flip_has_its_probabilities():
    images = np.repeat(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), 4000, 0)
    flips = Flip(horizontal=0.3, vertical=0.8)
    corner = apply({"flip": flips}, (images, np.zeros(4000)))["image"][:, 0, 0, 0]
    shares = [np.mean(corner == value) for value in (0, 3, 6, 9)]
    assert shares == pytest.approx([0.7 * 0.2, 0.3 * 0.2, 0.7 * 0.8, 0.3 * 0.8], abs=0.035)


def affine(images, fill="constant", angle=0.0, zoom=1.0, shift=(0.0, 0.0)):
    inverses = geometric.affine_inverse(
        *images.shape[1:3], tf.constant([angle], tf.float64), tf.constant([zoom], tf.float64),
        tf.constant([shift], tf.float64))
    return geometric.resample(tf.constant(images), inverses, fill).numpy()[0, ..., 0]


def test_rotation_turns_zooms_and_shifts_about_the_middle():
    image = numbered(1, 6, 6)
    assert (affine(image) == image[0, ..., 0]).all()
    assert (affine(image, angle=math.pi / 2) == np.rot90(image[0, ..., 0])).all()
    assert (affine(image, angle=math.pi) == image[0, ::-1, ::-1, 0]).all()
    twice = affine(image, zoom=2.0)
    assert (twice[1:-1, 1:-1] == np.kron(image[0, 2:4, 2:4, 0], np.ones((2, 2)))).all()
    down_right = affine(image, shift=(1 / 3, 1 / 6))
    assert (down_right[2:, 1:] == image[0, :-2, :-1, 0]).all()
    assert (down_right[:2] == 0).all()
    assert (down_right[:, :1] == 0).all()


@pytest.mark.parametrize(("fill", "left", "right"), [
    ("constant", [0, 0, 0], [0, 0, 0]), ("nearest", [1, 1, 1], [6, 6, 6]),
    ("reflect", [3, 2, 1], [6, 5, 4])])
def test_rotation_fills_beyond_the_edge(fill, left, right):
    row = np.tile(np.arange(1, 7, dtype=np.uint8).reshape(1, 1, 6, 1), (1, 4, 1, 1))
    assert affine(row, fill, shift=(0.0, 0.5))[0].tolist() == [*left, 1, 2, 3]
    assert affine(row, fill, shift=(0.0, -0.5))[0].tolist() == [4, 5, 6, *right]


def test_rotation_stays_within_its_parameters(monkeypatch):
    options = Rotation(angle=20, zoom=0.25, shift=0.0)
    captured = []
    images = np.zeros((500, 8, 8, 3), np.uint8)
    original = geometric.affine_inverse
    monkeypatch.setattr(geometric, "affine_inverse",
                        lambda *args: captured.append(args[2:]) or original(*args))
    apply({"rotation": options}, (images, np.zeros(500)))
    angle, zoom, shift = (value.numpy() for value in captured[0])
    for values, low, high in ((np.degrees(angle), -20, 20), (zoom, 0.75, 1.25)):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    assert (shift == 0).all()


def test_colour_blends_with_black_mean_grey_and_grey():
    # Greys: 0.299 * 100 + 0.587 * 50 = 59.25 and 0.114 * 200 = 22.8, their mean 41.025.
    image = np.array([[[[100, 50, 0], [0, 0, 200]]]], np.uint8)
    factors = [[1, 1, 1], [0.5, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0.5, 1], [1, 1, 1.4], [1.4, 1, 1]]
    got = base.compiled(color.adjust_color)(
        tf.repeat(image, 7, 0), tf.constant(factors, tf.float64)).numpy()[:, 0]
    assert got.tolist() == [
        [[100, 50, 0], [0, 0, 200]], [[50, 25, 0], [0, 0, 100]], [[41] * 3] * 2,
        [[59] * 3, [23] * 3], [[71, 46, 21], [21, 21, 121]],
        [[116, 46, 0], [0, 0, 255]], [[140, 70, 0], [0, 0, 255]]]


def test_colour_without_strength_changes_nothing():
    batch = (random_images(4, 9, 7), np.zeros(4))
    options = ColorJitter(brightness=0, contrast=0, saturation=0)
    assert (apply({"colour": options}, batch)["image"] == batch[0]).all()


def test_gridmask_blackens_squares_of_a_grid():
    options = GridMask(probability=1, d_min=0.5, d_max=0.5, ratio=0.4)
    black = apply({"gridmask": options}, (np.ones((400, 8, 12, 3), np.uint8), np.zeros(400)))
    black = black["image"][..., 0] == 0
    offsets = set()
    for image in black:
        rows, columns = image.any(1), image.any(0)
        assert (image == rows[:, None] & columns).all()
        # Units of 4 pixels of which int(4 * 0.4 + 0.5) = 2 stay, on both edges.
        assert (rows[:4] == rows[4:]).all()
        assert (columns[:4] == columns[4:8]).all()
        assert (columns[:4] == columns[8:]).all()
        for edge in (rows[:4], columns[:4]):
            assert edge.sum() == 2
            assert (edge ^ np.roll(edge, 1)).sum() == 2
        offsets.add((int(np.argmax(rows & ~np.roll(rows, 1))),
                     int(np.argmax(columns & ~np.roll(columns, 1)))))
    assert len(offsets) == 16


def test_gridmask_masks_its_share():
    options = GridMask(probability=0.7, ratio=0.6)
    black = apply({"gridmask": options}, (np.ones((2000, 56, 56, 1), np.uint8), np.zeros(2000)))
    black = (black["image"] == 0).mean((1, 2, 3))
    assert np.mean(black > 0) == pytest.approx(0.7, abs=0.06)
    assert black.mean() == pytest.approx(0.7 * 0.4**2, abs=0.01)


def test_cutmix_pastes_the_partner_and_counts_its_pixels():
    images = np.repeat(np.arange(1, 241, dtype=np.uint8), 10 * 14 * 3).reshape(240, 10, 14, 3)
    labels = np.arange(1, 241)
    result = apply({"cutmix": CutMix()}, (images, labels), micro_batch=4)
    shares, pasted = [], np.zeros((10, 14), bool)
    for row, image in enumerate(result["image"][..., 0]):
        label, other, share = (result[key][row] for key in ("label", "second_label", "mix_weight"))
        assert {label, other} <= set(range(row // 4 * 4 + 1, row // 4 * 4 + 5))
        assert row + 1 in (label, other)
        assert set(np.unique(image)) <= {label, other}
        assert share >= 0.5
        if label != other:
            assert np.mean(image == label) == pytest.approx(share)
            theirs = image != labels[row]
            assert (theirs == theirs.any(1)[:, None] & theirs.any(0)).all()
            pasted |= theirs
        shares.append(share)
    assert all(len(set(shares[start:start + 4])) == 1 for start in range(0, 240, 4))
    assert len(set(shares)) > 10
    assert pasted.all()
    # Labels change place where the pasted rectangle is the larger part.
    assert (result["label"] != labels).any()


def test_cutmix_rectangles_have_the_papers_size():
    # One image a micro-batch is its own partner: the share alone is looked at.
    count = 4000
    options = CutMix(alpha=1.0, probability=0.6)
    batch = (np.zeros((count, 32, 32, 3), np.uint8), np.zeros(count))
    share = apply({"cutmix": options}, batch, micro_batch=1)["mix_weight"]
    rng = np.random.default_rng(0)
    half = (32 * np.sqrt(1 - rng.beta(1, 1, count)[:, None])).astype(int) // 2
    middle = rng.integers(0, 32, (count, 2))
    area = np.prod(np.minimum(middle + half, 32) - np.maximum(middle - half, 0), 1) / 32**2
    area *= rng.random(count) < 0.6
    assert stats.ks_2samp(share, np.maximum(area, 1 - area)).pvalue > 1e-3
    assert np.mean(share == 1) == pytest.approx(np.mean(area == 0), abs=0.04)


def test_cutmix_swaps_labels_at_less_than_a_half():
    result = base.mixed_labels(tf.constant([7, 8, 9]), tf.constant([1, 2, 0]),
                               tf.constant([0.5, 0.25, 1.0], tf.float64))
    assert result["label"].numpy().tolist() == [7, 9, 9]
    assert result["second_label"].numpy().tolist() == [8, 8, 7]
    assert result["mix_weight"].numpy().tolist() == [0.5, 0.75, 1.0]
    assert result["mix_weight"].dtype == tf.float32


def test_mixup_is_the_rounded_mean_with_the_partner():
    images = random_images(24, 5, 6)
    result = apply({"mixup": MixUp(alpha=2.0)}, (images, np.arange(24)),
                   micro_batch=6)
    assert (result["label"] == np.arange(24)).all()
    for start in range(0, 24, 6):
        assert sorted(result["second_label"][start:start + 6]) == list(range(start, start + 6))
    share = result["mix_weight"][:, None, None, None]
    assert (share >= 0.5).all()
    mean = share * images + (1 - share) * images[result["second_label"]]
    assert abs(result["image"] - mean).max() <= 0.5 + 1e-4
    assert result["image"].dtype == np.uint8


def test_mixup_weights_have_their_distribution():
    count = 4000
    batch = (np.zeros((count, 2, 2, 3), np.uint8), np.zeros(count))
    share = apply({"mixup": MixUp()}, batch, micro_batch=1)["mix_weight"]
    drawn = np.random.default_rng(0).beta(0.2, 0.2, count)
    assert stats.ks_2samp(share, np.maximum(drawn, 1 - drawn)).pvalue > 1e-3


def test_partners_are_any_permutation_of_the_micro_batch():
    uniform = rng.uniform(rng.keys(0, "test", 0, tf.range(9000)), 1)[:, 0]
    partners = mixing.partners(uniform, 3).numpy().reshape(-1, 3)
    partners -= np.arange(0, 9000, 3)[:, None]
    orders, counts = np.unique(partners, axis=0, return_counts=True)
    assert len(orders) == 6
    assert stats.chisquare(counts).pvalue > 1e-4
    assert mixing.partners(uniform[:7], 3).numpy()[6] == 6  # a rest is its own micro-batch


# All of them


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_batch_of_another_size_gets_the_same_images(name):
    images, labels = random_images(24, 20, 16), np.arange(24)
    transforms = {name: BUILT_IN[name]()}
    whole = apply(transforms, (images, labels), seed=3, epoch=2, positions=np.arange(100, 124))
    again = apply(transforms, (images, labels), seed=3, epoch=2, positions=np.arange(100, 124))
    part = apply(transforms, (images[8:16], labels[8:16]), seed=3, epoch=2,
                 positions=np.arange(108, 116))
    for key, value in whole.items():
        assert (value == again[key]).all()
        assert (value[8:16] == part[key]).all()
    assert whole["image"].dtype == np.uint8
    assert (whole["image"] != images).any()
    for seed, epoch in ((4, 2), (3, 3)):
        differs = apply(transforms, (images, labels), seed=seed, epoch=epoch,
                        positions=np.arange(100, 124))
        assert (differs["image"] != whole["image"]).any()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_data_set_may_map_it_with_an_unknown_batch_size(name):
    images, labels = random_images(11, 20, 16), np.arange(11, dtype=np.int32)
    augment = base.build({name: BUILT_IN[name]()}, 0, 4)
    data = tf.data.Dataset.from_tensor_slices((images, labels, np.arange(11))).batch(4).map(
        lambda image, label, positions: augment({"image": image, "label": label},
                                                tf.constant(6, tf.int64), positions),
        num_parallel_calls=2)
    assert data.element_spec["image"].shape.as_list() == [None, 20, 16, 3]
    together = apply({name: BUILT_IN[name]()}, (images, labels), micro_batch=4, epoch=6)
    for key, value in together.items():
        assert (np.concatenate([batch[key].numpy() for batch in data]) == value).all()
    empty = apply({name: BUILT_IN[name]()}, (images[:0], labels[:0]))
    assert empty["image"].shape == (0, 20, 16, 3)


def test_a_list_is_applied_in_its_order_without_changing_draws():
    images, labels = random_images(16, 16, 16), np.arange(16)
    flip = Flip(horizontal=1.0)
    turned = Perspective(probability=0.0, reflect=False)
    one = apply({"flip": flip, "perspective": turned}, (images, labels))["image"]
    other = apply({"perspective": turned, "flip": flip}, (images, labels))["image"]
    assert (one == apply({"perspective": turned}, (images[:, :, ::-1], labels))["image"]).all()
    assert (other == apply({"perspective": turned}, (images, labels))["image"][:, :, ::-1]).all()
    assert (one != other).any()
    mixed = apply({"flip": flip, "perspective": turned, "cutmix": CutMix()},
                  (images, labels))
    assert set(mixed) == {"image", "label", "second_label", "mix_weight"}


def test_two_mixing_transforms_are_refused():
    both = {"cutmix": CutMix(), "mixup": MixUp()}
    with pytest.raises(UserError, match="leave out one of the two"):
        base.build(both, 0, 8)


def test_no_transforms_are_no_augmentation():
    assert base.build({}, 0, 8) is None


def test_the_sentence_names_every_transform_in_order():
    augment = base.build({"flip": Flip(), "perspective": Perspective()}, 0, 8)
    assert augment.sentence == (
        "augmentation: Flip(horizontal=0.5, vertical=0.0); then "
        "Perspective(probability=0.35, rotate=True, reflect=True)")


@pytest.mark.parametrize("name", BUILT_IN)
def test_twenty_steps_on_a_fixed_batch_halve_the_excess_over_the_entropy(name):
    rng = np.random.default_rng(0)
    labels = np.arange(16) % 4
    images = (rng.random((4, 16, 16, 3))[labels] * 160 + rng.random((16, 16, 16, 3)) * 90)
    batch = apply({name: BUILT_IN[name]()}, (images.astype(np.uint8), labels), micro_batch=2)
    share = batch.get("mix_weight", np.ones(16, np.float32))
    other = batch.get("second_label", batch["label"])
    uncertain = np.where(other == batch["label"], 1.0, share)
    entropy = stats.entropy([uncertain, 1 - uncertain]).mean()
    assert (entropy > 0.05) == hasattr(BUILT_IN[name], "mix")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
                              keras.layers.Dense(32, "relu"), keras.layers.Dense(4)])
    optimizer = keras.optimizers.Adam(3e-3)
    losses = []
    for _ in range(21):
        with tf.GradientTape() as tape:
            logits = model(batch["image"], training=True)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits
            loss = tf.reduce_mean(share * each(batch["label"], logits)
                                  + (1 - share) * each(other, logits))
        losses.append(float(loss))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables),
                                      model.trainable_variables, strict=True))
    assert losses[0] > entropy
    assert entropy - 1e-6 <= losses[-1] < entropy + (losses[0] - entropy) / 2


GOLDEN = {"perspective": 922595979, "flip": 2494562180, "gridmask": 3199154596,
          "cutmix": 1663916758}
"""CRC-32 of the pixels of transforms that only move or blacken them."""


@pytest.mark.parametrize("name", GOLDEN)
def test_pixels_are_those_that_they_have_always_been(name):
    images = random_images(16, 20, 16)
    found = apply({name: BUILT_IN[name]()}, (images, np.arange(16)), seed=3, epoch=7,
                  positions=np.arange(1000, 1016))["image"]
    assert zlib.crc32(found.tobytes()) == GOLDEN[name]


# Transforms of one's own

@dataclass(frozen=True)
class Noise:
    """A transform as a user would write it."""

    amount: int = 8

    def __call__(self, images, keys):
        drawn = rng.uniform(keys, math.prod(images.shape[1:]))
        noise = self.amount * (2 * tf.reshape(drawn, tf.shape(images)) - 1)
        noisy = tf.cast(images, tf.float64) + noise
        return tf.cast(tf.clip_by_value(tf.round(noisy), 0, 255), tf.uint8)


def test_a_transform_of_ones_own_is_keyed_by_its_name_and_the_position():
    images, labels = random_images(12, 8, 8), np.arange(12)
    whole = apply({"noise": Noise()}, (images, labels))["image"]
    part = apply({"noise": Noise()}, (images[4:], labels[4:]), positions=np.arange(4, 12))["image"]
    other = apply({"grain": Noise()}, (images, labels))["image"]
    assert (whole[4:] == part).all()
    assert (whole != images).mean() > 0.8
    assert abs(whole.astype(int) - images).max() <= 8
    assert (whole != other).mean() > 0.8
    assert base.build({"noise": Noise(), "flip": Flip()}, 0, 8).sentence.startswith(
        "augmentation: Noise(amount=8); then Flip")


@pytest.mark.parametrize(("transform", "found"), [
    (lambda images, keys: tf.cast(images, tf.float32), r"float32 \[6, 8, 8, 3\]"),
    (lambda images, keys: images[:, 1:], r"uint8 \[6, 7, 8, 3\]"),
    (lambda images, keys: None, "NoneType")])
def test_a_transform_that_returns_something_else_is_named(transform, found):
    augment = base.build({"mine": transform}, 0, 2)
    with pytest.raises(UserError, match=rf"^augmentation\.mine must return uint8 images "
                                        rf"\[6, 8, 8, 3\], not {found}$"):
        augment.check(6, 8)


def test_a_part_from_another_module_is_built_and_named_when_it_fails(tmp_path, monkeypatch):
    (tmp_path / "garden.py").write_text(
        "class Weed:\n    def __call__(self, images, keys):\n        raise RuntimeError('dry')\n"
        "class Mulch:\n    def __call__(self, images, keys):\n        return images // 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    mulch = parts.check("augmentation.mulch", {"_target_": "garden.Mulch"})
    base.check_transforms({"mulch": mulch})
    assert "garden" not in sys.modules
    images = random_images(4, 8, 8)
    assert (apply({"mulch": mulch}, (images, np.arange(4)))["image"] == images // 2).all()
    weed = parts.check("augmentation.weed", {"_target_": "garden.Weed"})
    with pytest.raises(UserError, match=r"^augmentation\.weed \(garden\.Weed\) failed: "
                                        "RuntimeError: dry"):
        base.build({"weed": weed}, 0, 4).check(4, 8)


@pytest.mark.parametrize("make", [object, lambda: lambda images: images])
def test_what_is_not_a_transform_is_refused(make):
    transform = make()
    with pytest.raises(UserError, match=r"augmentation\.mine \(.+\) must have __call__\(images, "
                                        r"keys\) or mix"):
        base.check_transforms({"mine": transform})


def test_images_that_are_too_small_are_refused_before_any_is_read():
    with pytest.raises(UserError, match=r"^the perspective transform needs images of 4 x 4"):
        base.build({"flip": Flip(), "perspective": Perspective()}, 0, 2).check(6, 3)


# Options


def test_the_entries_of_runs_before_targets_are_the_built_in_transforms():
    plain = {"augmentation": {"flip": {"horizontal": 0.25}, "colour": {}}}
    nodes = identity.current(plain)["augmentation"]
    assert parts.check("augmentation.flip", nodes["flip"]) == Flip(horizontal=0.25)
    assert parts.check("augmentation.colour", nodes["colour"]) == ColorJitter()


def test_a_wrong_key_is_named_with_its_transform():
    with pytest.raises(UserError, match=r"^augmentation\.mirror\.horizontal must be from 0 to 1, "
                                        "not 2"):
        parts.check("augmentation.mirror", {"_target_": "flowerexp.augment.geometric.Flip",
                                         "horizontal": 2})


@pytest.mark.parametrize("name", BUILT_IN)
def test_config_files_hold_the_defaults_of_the_options(name):
    loaded = OmegaConf.load(CONF / f"{name}.yaml")
    assert list(loaded) == [name]
    default = BUILT_IN[name]()
    target = f"{type(default).__module__}.{type(default).__qualname__}"
    assert loaded[name] == {"_target_": target, **vars(default)}


def test_every_transform_of_the_package_has_a_file():
    defined = {value for module in (color, erasing, geometric, mixing)
               for value in vars(module).values() if dataclasses.is_dataclass(value)
               and value.__module__ == module.__name__}
    assert set(BUILT_IN.values()) == defined
    assert not OmegaConf.load(CONF / "none.yaml")


@pytest.mark.parametrize(("name", "key", "value"), [
    ("perspective", "probability", 1.5), ("perspective", "probability", math.nan),
    ("flip", "horizontal", -0.1), ("flip", "vertical", 2), ("rotation", "angle", 181),
    ("rotation", "zoom", 1.0), ("rotation", "shift", -1), ("rotation", "fill", "mirror"),
    ("colour", "brightness", 1.1), ("colour", "contrast", -1), ("colour", "saturation", math.inf),
    ("cutmix", "alpha", 0), ("cutmix", "probability", 7), ("mixup", "alpha", -0.2),
    ("mixup", "alpha", math.nan), ("gridmask", "probability", 2), ("gridmask", "d_min", 0),
    ("gridmask", "d_max", 0.1), ("gridmask", "d_max", math.inf), ("gridmask", "ratio", 1.2)])
def test_a_value_out_of_range_is_named_with_its_key(name, key, value):
    with pytest.raises(UserError, match=rf"^{key} must be "):
        BUILT_IN[name](**{key: value})

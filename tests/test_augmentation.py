"""Transforms against golden vectors, hand-computed cases and independent NumPy implementations."""

import json
import math
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy import stats

from flowerexp import augmentation, augmentation_options, draws, perspective
from flowerexp.augmentation import perspective_matrix, random_corners, warp
from flowerexp.augmentation_options import OPTIONS
from flowerexp.errors import UserError

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
CONF = Path(__file__).parents[1] / "conf" / "augmentation"
golden = pytest.mark.skipif(not REFERENCE.is_dir(),
                            reason="the golden vectors are not beside the checkout")


def unmoved(height, width):
    return np.array([[0, 0], [0, width], [height, width], [height, 0]])


def numbered(count, height, width, dtype=np.float32):
    """Images whose pixels all differ, and differ from black."""
    pixels = np.arange(1, height * width + 1, dtype=dtype).reshape(height, width, 1)
    return np.broadcast_to(pixels, (count, height, width, 1)).copy()


def random_images(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def apply(transforms, batch, *, micro_batch=8, seed=0, epoch=0, positions=None):
    images, labels = batch
    augment = augmentation.build(transforms, seed, micro_batch)
    positions = np.arange(len(images)) if positions is None else positions
    result = augment({"image": tf.constant(images), "label": tf.constant(labels, tf.int32)},
                     tf.constant(epoch, tf.int64), tf.constant(positions, tf.int64))
    return {key: value.numpy() for key, value in result.items()}


# Random numbers


def test_mix_and_uniform_give_splitmix64_of_the_key():
    # The first three outputs of SplitMix64 with the state 0, as published with xoshiro.
    got = draws.fold(tf.zeros([3], tf.uint64), tf.range(3, dtype=tf.int64)).numpy()
    assert got.tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    high = draws.uniform(tf.zeros([1], tf.uint64), 3).numpy()[0] * 2**32
    assert high.tolist() == [0xE220A839, 0x6E789E6A, 0x06C45D18]


def test_draws_are_uniform_and_independent_of_their_neighbours():
    def sample(seed=0, stream=1, epoch=0, start=0):
        return draws.uniform(draws.keys(seed, stream, epoch, tf.range(start, start + 20000)),
                             2).numpy()

    reference = sample()
    for one in (reference, sample(seed=1), sample(epoch=1), sample(stream=2)):
        for column in one.T:
            counts = np.histogram(column, 64, (0, 1))[0]
            assert stats.chisquare(counts).pvalue > 1e-4
    # 4.5 sigma of the correlation of independent draws.
    columns = [*reference.T, *(one[:, 0] for one in (
        sample(seed=1), sample(epoch=1), sample(stream=2), sample(start=1)))]
    assert abs(np.corrcoef(columns) - np.eye(6)).max() < 4.5 / math.sqrt(20000)


def test_integers_fill_their_range_evenly():
    uniform = draws.uniform(draws.keys(0, 0, 0, tf.range(30000)), 1)[:, 0]
    values = draws.integers(uniform, -3, 4).numpy()
    assert set(values) == set(range(-3, 4))
    assert stats.chisquare(np.bincount(values + 3)).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 4.0])
def test_symmetric_beta_has_the_distribution_of_scipy(alpha):
    uniform = draws.uniform(draws.keys(5, 0, 0, tf.range(20000)), 2)
    sample = draws.symmetric_beta(alpha, uniform).numpy()
    assert np.isfinite(sample).all()
    assert (sample >= 0).all()
    assert (sample <= 1).all()
    if alpha >= 0.2:  # below it, numbers next to 0 and 1 are rounded and KS sees the ties
        assert stats.kstest(sample, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert sample.var() == pytest.approx(stats.beta(alpha, alpha).var(), rel=0.05)


# Perspective: corners


@golden
def test_corners_have_the_statistics_of_the_reference():
    expected = json.loads((REFERENCE / "points.json").read_text())
    height, width, count = expected["height"], expected["width"], expected["draws"]
    points = random_corners(height, width, 0, 0, np.arange(count), expected["probability"]).numpy()
    assert points.min((0, 1)).tolist() == expected["min_yx"]
    assert points.max((0, 1)).tolist() == expected["max_yx"]
    # Corners lie at an edge's start or end; both samples err. 4.5 sigma of the difference.
    error = 4.5 * np.array([height, width]) * 0.55 * math.sqrt(2 / count)
    assert (abs(points.mean(0) - expected["mean_yx_by_corner"]) < error).all()
    shares = expected["share_of_images_whose_corners_are_the_unmoved_rectangle_in_this_order"]
    orders = {"none": [0, 1, 2, 3], "up_down": [3, 2, 1, 0], "left_right": [1, 0, 3, 2]}
    for places in range(4):
        for name, order in orders.items():
            target = np.roll(unmoved(height, width), -places, 0)[order]
            share = (points == target).all((1, 2)).mean()
            reference = shares[f"rotate{places}_{name}"]
            assert abs(share - reference) < 4.5 * math.sqrt(2 * reference / count)


def test_corners_are_uniform_in_quarters_rounded_down():
    # 27 // 4 = 6 and 18 // 4 = 4: [-6, 6), [18, 30) and [-4, 4), [12, 20).
    points = random_corners(27, 18, 1, 2, np.arange(20000), 1.0, rotate=False,
                            reflect=False).numpy()
    ranges = [[(-6, 6), (-4, 4)], [(-6, 6), (12, 20)], [(18, 30), (12, 20)], [(18, 30), (-4, 4)]]
    for corner in range(4):
        for axis in range(2):
            low, high = ranges[corner][axis]
            counts = np.bincount(points[:, corner, axis] - low, minlength=high - low)
            assert len(counts) == high - low
            assert stats.chisquare(counts).pvalue > 1e-4
    correlations = np.corrcoef(points.reshape(-1, 8).T) - np.eye(8)
    assert abs(correlations).max() < 4.5 / math.sqrt(20000)


def test_rotate_and_reflect_switch_off_one_without_the_other():
    def orders(**switches):
        points = random_corners(8, 12, 0, 0, np.arange(500), 0.0, **switches).numpy()
        return {tuple(map(tuple, each)) for each in points.tolist()}

    square = unmoved(8, 12)
    as_set = lambda points: {tuple(map(tuple, each.tolist())) for each in points}  # noqa: E731
    assert orders(rotate=False, reflect=False) == as_set([square])
    assert orders(reflect=False) == as_set([np.roll(square, k, 0) for k in range(4)])
    assert orders(rotate=False) == as_set([square, square[[3, 2, 1, 0]], square[[1, 0, 3, 2]]])
    assert len(orders()) == 8


def test_corners_depend_on_seed_epoch_and_position_only():
    reference = random_corners(32, 48, 3, 5, np.arange(40), 0.5).numpy()
    some = random_corners(32, 48, 3, 5, np.array([31, 7, 8]), 0.5).numpy()
    assert (some == reference[[31, 7, 8]]).all()
    graph = tf.function(lambda height, epoch, positions: random_corners(
        height, 48, 3, epoch, positions, 0.5), input_signature=[
            tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int64),
            tf.TensorSpec([None], tf.int64)])
    assert (graph(32, 5, np.arange(40)).numpy() == reference).all()
    for other in ((4, 5), (3, 6)):
        differs = random_corners(32, 48, *other, np.arange(40), 0.5).numpy() != reference
        assert differs.any((1, 2)).mean() > 0.5


@pytest.mark.parametrize(("height", "width"), [(3, 9), (9, 3), (1, 1)])
def test_small_images_are_refused(height, width):
    with pytest.raises(UserError, match=r"4 x 4 pixels or more.*an edge has [13]"):
        random_corners(height, width, 0, 0, np.arange(2), 0.5)
    with pytest.raises(UserError, match=r"dataset\.image_size"):
        warp(np.zeros((2, height, width, 3), np.uint8), np.stack([np.eye(3)] * 2))
    late = tf.function(lambda images: warp(images, tf.eye(3, batch_shape=[2])),
                       input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="4 x 4 pixels or more"):
        late(np.zeros((2, height, width, 3), np.uint8))


def test_the_least_size_works():
    batch = (random_images(8, 4, 5), np.zeros(8))
    assert apply({"perspective": OPTIONS["perspective"]()}, batch)["image"].shape == (8, 4, 5, 3)


# Perspective: matrix and warp


@golden
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_matrices_and_pixels_are_those_of_the_reference(dtype):
    vectors = np.load(REFERENCE / "perspective.npz")
    matrices = perspective_matrix(vectors["source_points"], vectors["target_points"]).numpy()
    assert matrices.dtype == np.float64
    scale = np.linalg.norm(matrices, axis=(1, 2)) / np.linalg.norm(vectors["matrices"], axis=(1, 2))
    assert abs(matrices / scale[:, None, None] - vectors["matrices"]).max() < 1e-9
    for given_matrices in (matrices, vectors["matrices"]):
        warped = warp(vectors["images"].astype(dtype), given_matrices).numpy()
        assert warped.dtype == dtype
        assert (warped == vectors["warped"]).all()


def test_the_matrix_maps_the_four_points():
    rng = np.random.default_rng(0)
    source, target = rng.normal(0, 100, (2, 50, 4, 2))
    matrices = perspective_matrix(source, target).numpy()
    mapped = matrices @ np.concatenate([source, np.ones((50, 4, 1))], -1).transpose(0, 2, 1)
    mapped = (mapped[:, :2] / mapped[:, 2:]).transpose(0, 2, 1)
    assert np.allclose(mapped, target, rtol=1e-6, atol=1e-6)


def numpy_warp(images, matrices):
    """The method in plain NumPy, one image after another; only the 3x3 inverse is TensorFlow's.

    Another inverse differs in the last bit, which shows where a coordinate is a whole number.
    """
    height, width = images.shape[1:3]
    warped = np.zeros_like(images)
    for image, matrix, result in zip(images, matrices, warped, strict=True):
        a = tf.linalg.inv(matrix).numpy()
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        with np.errstate(all="ignore"):
            third = (a[2, 0] * y + a[2, 1] * x) + a[2, 2]
            rows = np.trunc(((a[0, 0] * y + a[0, 1] * x) + a[0, 2]) / third)
            columns = np.trunc(((a[1, 0] * y + a[1, 1] * x) + a[1, 2]) / third)
        inside = np.isfinite(rows) & np.isfinite(columns) & (abs(rows) < 2**31)
        inside &= (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        result[inside] = image[rows[inside].astype(int), columns[inside].astype(int)]
    return warped


@settings(max_examples=60, deadline=None)
@given(size=st.sampled_from([(4, 4), (5, 7), (37, 53), (64, 48), (96, 96), (100, 60)]),
       seed=st.integers(0, 10**6), probability=st.sampled_from([0.0, 0.35, 1.0]))
def test_every_pixel_is_that_of_numpy(size, seed, probability):
    images = numbered(12, *size)
    target = random_corners(*size, seed, 0, np.arange(12), probability).numpy()
    matrices = perspective_matrix(np.stack([unmoved(*size)] * 12), target).numpy()
    keep = abs(np.linalg.det(matrices)) > 1e-12  # sets without an inverse have a test of their own
    expected = numpy_warp(images[keep], matrices[keep])
    assert (warp(images[keep], matrices[keep]).numpy() == expected).all()


@pytest.mark.parametrize("size", [(192, 192), (224, 160)])
def test_every_pixel_is_that_of_numpy_in_large_images(size):
    images = random_images(40, *size)
    target = random_corners(*size, 7, 0, np.arange(40), 0.7)
    matrices = perspective_matrix(np.stack([unmoved(*size)] * 40), target).numpy()
    assert (warp(images, matrices).numpy() == numpy_warp(images, matrices)).all()


def test_random_matrices_with_far_out_coordinates_are_those_of_numpy():
    rng = np.random.default_rng(1)
    matrices = rng.normal(0, 1, (60, 3, 3)) * 10.0 ** rng.integers(-8, 9, (60, 3, 3))
    regular = perspective.has_inverse(tf.constant(matrices)).numpy()
    assert regular.sum() > 30
    images = numbered(60, 12, 9)
    expected = np.where(regular[:, None, None, None], numpy_warp(images, matrices), images)
    assert (warp(images, matrices).numpy() == expected).all()


def test_pixels_are_those_of_exact_arithmetic():
    height, width = 12, 9
    target = random_corners(height, width, 2, 0, np.arange(30), 1.0).numpy()
    source = unmoved(height, width)
    matrices = perspective_matrix(np.stack([source] * 30), target)
    warped = warp(numbered(30, height, width), matrices).numpy()[..., 0]
    regular = [exact_map(points, source) is not None for points in target]
    assert sum(regular) > 20
    for points, image in zip(target[regular], warped[regular], strict=True):
        back = exact_map(points, source)
        for y in range(height):
            for x in range(width):
                top, left, third = (row[0] * y + row[1] * x + row[2] for row in back)
                if third == 0:
                    assert image[y, x] == 0
                    continue
                exact = (top / third, left / third)
                allowed = {image_number(at, of, height, width)
                           for at in around(exact[0]) for of in around(exact[1])}
                assert image[y, x] in allowed


def around(value):
    """Where rounding may lead: one place, but two at a whole number."""
    if value.denominator > 1:
        return [math.trunc(value)]
    return [math.trunc(value + step) for step in (Fraction(-1, 100), Fraction(1, 100))]


def image_number(row, column, height, width):
    return row * width + column + 1 if 0 <= row < height and 0 <= column < width else 0


def exact_map(source, target):
    """The map of four points to four others in fractions, or None where there is none."""
    def basis(points):
        columns = [[Fraction(int(y)), Fraction(int(x)), Fraction(1)] for y, x in points]
        scales = [determinant([columns[3], columns[1], columns[2]]),
                  determinant([columns[0], columns[3], columns[2]]),
                  determinant([columns[0], columns[1], columns[3]])]
        if 0 in (*scales, determinant(columns[:3])):
            return None
        return [[scale * value for value in column]
                for scale, column in zip(scales, columns[:3], strict=True)]

    one, other = basis(source), basis(target)
    if one is None or other is None:
        return None
    (a, b, c), (d, e, f), (g, h, i) = zip(*one, strict=True)
    adjugate = [[e * i - f * h, c * h - b * i, b * f - c * e],
                [f * g - d * i, a * i - c * g, c * d - a * f],
                [d * h - e * g, b * g - a * h, a * e - b * d]]
    scale = 1 / determinant(one)
    rows = list(zip(*other, strict=True))
    return [[sum(row[k] * adjugate[k][j] for k in range(3)) * scale for j in range(3)]
            for row in rows]


def determinant(columns):
    (a, b, c), (d, e, f), (g, h, i) = columns
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def warped_to(images, target):
    source = unmoved(*images.shape[1:3])
    return warp(images, perspective_matrix(source[None], np.array(target)[None])).numpy()


def test_an_unmoved_flip_leaves_the_first_column_or_row_black():
    image = numbered(1, 6, 8)
    corners = unmoved(6, 8)
    assert (warped_to(image, corners) == image).all()
    left_right = warped_to(image, corners[[1, 0, 3, 2]])[0]
    assert (left_right[:, 0] == 0).all()
    assert (left_right[:, 1:] == image[0, :, :0:-1]).all()
    up_down = warped_to(image, corners[[3, 2, 1, 0]])[0]
    assert (up_down[0] == 0).all()
    assert (up_down[1:] == image[0, :0:-1]).all()


def test_a_fraction_below_zero_counts_as_zero():
    # Shifted down by half a pixel: row 0 comes from -0.5, row 5 from 4.5.
    matrix = np.array([[[1, 0, 0.5], [0, 1, 0], [0, 0, 1]]])
    image = numbered(1, 6, 4)
    assert (warp(image, matrix).numpy()[0] == image[0, [0, 0, 1, 2, 3, 4]]).all()
    matrix[0, 0, 2] = 1.0
    assert (warp(image, matrix).numpy()[0, 0] == 0).all()


@pytest.mark.parametrize("points", [
    [[0, 0], [0, 0], [0, 0], [0, 0]], [[0, 0], [0, 12], [8, 12], [8, 12]],
    [[1, 2], [3, 4], [5, 6], [0, 9]], [[0, 9], [1, 3], [2, 6], [3, 9]],
    [[1, 3], [0, 9], [2, 6], [3, 9]], [[1, 3], [2, 6], [0, 9], [7, 21]]])
def test_sets_without_an_inverse_leave_the_image_as_it_was(points):
    image = random_images(1, 8, 12)
    assert (warped_to(image, points) == image).all()
    matrices = perspective_matrix(np.array(points)[None], unmoved(8, 12)[None])
    assert (warp(image, matrices).numpy() == image).all()


def test_collinear_fractions_count_as_collinear():
    points = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [5.7, 1.3]])
    assert (perspective_matrix(unmoved(8, 8)[None], points[None]).numpy() == np.eye(3)).all()


@pytest.mark.parametrize("matrix", [
    np.zeros((3, 3)), np.arange(1, 10).reshape(3, 3), np.full((3, 3), np.nan),
    [[1, 2, 3], [2, 4, 6], [1, 1, 1]], np.diag([1, 1, 0]), np.diag([np.inf, 1, 1])])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_singular_matrices_leave_their_image_and_no_other(matrix, dtype):
    images = random_images(2, 6, 8).astype(dtype)
    shift = [[1, 0, 2], [0, 1, 0], [0, 0, 1]]
    warped = warp(images, np.array([matrix, shift], np.float64)).numpy()
    assert (warped[0] == images[0]).all()
    assert (warped[1, :2] == 0).all()
    assert (warped[1, 2:] == images[1, :-2]).all()


def test_coordinates_that_are_not_finite_or_too_large_are_outside():
    # The inverse is [y / (x - 2), x / (x - 2)]: column 2 divides by 0, and 0 by 0 at its top.
    back = np.array([[1, 0, 0], [0, 1, 0], [0, 1, -2.0]])
    image = numbered(1, 6, 6)
    warped = warp(image, np.linalg.inv(back)[None]).numpy()[0, ..., 0]
    assert (warped[:, 2] == 0).all()
    assert warped[3, 4] == image[0, 1, 2, 0]
    # Past int32, where a cast would wrap around to a small index or to the least integer.
    for factor in (2.0**31, 2.0**32, 2.0**40, 1e200):
        far = np.array([[[factor, 0, 0], [0, 1, 0], [0, 0, 1]]])
        warped = warp(image, np.linalg.inv(far)).numpy()[0, ..., 0]
        assert (warped[1:] == 0).all()
        assert (warped[0] == image[0, 0, :, 0]).all()


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
@pytest.mark.parametrize("shape", [[None, 12, 20, 3], [None, None, None, 3]])
def test_batch_and_size_may_be_unknown_when_traced(dtype, shape):
    graph = tf.function(warp, input_signature=[tf.TensorSpec(shape, dtype),
                                               tf.TensorSpec([None, 3, 3], tf.float64)])
    assert graph.get_concrete_function().structured_outputs.shape.as_list() == shape
    for count in (5, 1, 0, 8):
        images = random_images(count, 12, 20)
        target = random_corners(12, 20, 0, 0, np.arange(count), 1.0)
        matrices = perspective_matrix(tf.broadcast_to(unmoved(12, 20), target.shape), target)
        expected = numpy_warp(images, matrices.numpy())
        assert (graph(tf.cast(images, dtype), matrices).numpy() == expected).all()


# The others, by hand


def test_flip_exchanges_left_and_right_and_up_and_down():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    chosen = tf.constant([[False, False], [True, False], [False, True], [True, True]])
    got = augmentation.compiled_flipped(tf.repeat(image, 4, 0), chosen).numpy()[..., 0]
    assert got.tolist() == [[[0, 3], [6, 9]], [[3, 0], [9, 6]], [[6, 9], [0, 3]], [[9, 6], [3, 0]]]


def test_flip_has_its_probabilities():
    images = np.repeat(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), 4000, 0)
    flips = augmentation_options.Flip(horizontal=0.3, vertical=0.8)
    corner = apply({"flip": flips}, (images, np.zeros(4000)))["image"][:, 0, 0, 0]
    shares = [np.mean(corner == value) for value in (0, 3, 6, 9)]
    assert shares == pytest.approx([0.7 * 0.2, 0.3 * 0.2, 0.7 * 0.8, 0.3 * 0.8], abs=0.035)


def affine(images, fill="constant", angle=0.0, zoom=1.0, shift=(0.0, 0.0)):
    inverses = augmentation.affine_inverse(
        *images.shape[1:3], tf.constant([angle], tf.float64), tf.constant([zoom], tf.float64),
        tf.constant([shift], tf.float64))
    return perspective.resample(tf.constant(images), inverses, fill).numpy()[0, ..., 0]


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
    options = augmentation_options.Rotation(angle=20, zoom=0.25, shift=0.0)
    captured = []
    images = np.zeros((500, 8, 8, 3), np.uint8)
    original = augmentation.affine_inverse
    monkeypatch.setattr(augmentation, "affine_inverse",
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
    got = augmentation.compiled_recoloured(
        tf.repeat(image, 7, 0), tf.constant(factors, tf.float64)).numpy()[:, 0]
    assert got.tolist() == [
        [[100, 50, 0], [0, 0, 200]], [[50, 25, 0], [0, 0, 100]], [[41] * 3] * 2,
        [[59] * 3, [23] * 3], [[71, 46, 21], [21, 21, 121]],
        [[116, 46, 0], [0, 0, 255]], [[140, 70, 0], [0, 0, 255]]]


def test_colour_without_strength_changes_nothing():
    batch = (random_images(4, 9, 7), np.zeros(4))
    options = augmentation_options.Colour(brightness=0, contrast=0, saturation=0)
    assert (apply({"colour": options}, batch)["image"] == batch[0]).all()


def test_gridmask_blackens_squares_of_a_grid():
    options = augmentation_options.Gridmask(probability=1, d_min=0.5, d_max=0.5, ratio=0.4)
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
    options = augmentation_options.Gridmask(probability=0.7, ratio=0.6)
    black = apply({"gridmask": options}, (np.ones((2000, 56, 56, 1), np.uint8), np.zeros(2000)))
    black = (black["image"] == 0).mean((1, 2, 3))
    assert np.mean(black > 0) == pytest.approx(0.7, abs=0.06)
    assert black.mean() == pytest.approx(0.7 * 0.4**2, abs=0.01)


def test_cutmix_pastes_the_partner_and_counts_its_pixels():
    images = np.repeat(np.arange(1, 241, dtype=np.uint8), 10 * 14 * 3).reshape(240, 10, 14, 3)
    labels = np.arange(1, 241)
    result = apply({"cutmix": OPTIONS["cutmix"]()}, (images, labels), micro_batch=4)
    shares, pasted = [], np.zeros((10, 14), bool)
    for row, image in enumerate(result["image"][..., 0]):
        label, other, share = (result[key][row] for key in ("label", "other_label", "share"))
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
    options = augmentation_options.Cutmix(alpha=1.0, probability=0.6)
    batch = (np.zeros((count, 32, 32, 3), np.uint8), np.zeros(count))
    share = apply({"cutmix": options}, batch, micro_batch=1)["share"]
    rng = np.random.default_rng(0)
    half = (32 * np.sqrt(1 - rng.beta(1, 1, count)[:, None])).astype(int) // 2
    middle = rng.integers(0, 32, (count, 2))
    area = np.prod(np.minimum(middle + half, 32) - np.maximum(middle - half, 0), 1) / 32**2
    area *= rng.random(count) < 0.6
    assert stats.ks_2samp(share, np.maximum(area, 1 - area)).pvalue > 1e-3
    assert np.mean(share == 1) == pytest.approx(np.mean(area == 0), abs=0.04)


def test_cutmix_swaps_labels_at_less_than_a_half():
    mixed = augmentation.Mixed(None, tf.constant([1, 2, 0]),
                               tf.constant([0.5, 0.25, 1.0], tf.float64))
    result = augmentation.labels_of(tf.constant([7, 8, 9]), mixed)
    assert result["label"].numpy().tolist() == [7, 9, 9]
    assert result["other_label"].numpy().tolist() == [8, 8, 7]
    assert result["share"].numpy().tolist() == [0.5, 0.75, 1.0]
    assert result["share"].dtype == tf.float32


def test_mixup_is_the_rounded_mean_with_the_partner():
    images = random_images(24, 5, 6)
    result = apply({"mixup": augmentation_options.Mixup(alpha=2.0)}, (images, np.arange(24)),
                   micro_batch=6)
    assert (result["label"] == np.arange(24)).all()
    for start in range(0, 24, 6):
        assert sorted(result["other_label"][start:start + 6]) == list(range(start, start + 6))
    share = result["share"][:, None, None, None]
    assert (share >= 0.5).all()
    mean = share * images + (1 - share) * images[result["other_label"]]
    assert abs(result["image"] - mean).max() <= 0.5 + 1e-4
    assert result["image"].dtype == np.uint8


def test_mixup_weights_have_their_distribution():
    count = 4000
    batch = (np.zeros((count, 2, 2, 3), np.uint8), np.zeros(count))
    share = apply({"mixup": OPTIONS["mixup"]()}, batch, micro_batch=1)["share"]
    drawn = np.random.default_rng(0).beta(0.2, 0.2, count)
    assert stats.ks_2samp(share, np.maximum(drawn, 1 - drawn)).pvalue > 1e-3


def test_partners_are_any_permutation_of_the_micro_batch():
    uniform = draws.uniform(draws.keys(0, 0, 0, tf.range(9000)), 1)[:, 0]
    partners = augmentation.partners(uniform, 3).numpy().reshape(-1, 3)
    partners -= np.arange(0, 9000, 3)[:, None]
    orders, counts = np.unique(partners, axis=0, return_counts=True)
    assert len(orders) == 6
    assert stats.chisquare(counts).pvalue > 1e-4
    assert augmentation.partners(uniform[:7], 3).numpy()[6] == 6  # a rest is its own micro-batch


# All of them


@pytest.mark.parametrize("name", OPTIONS)
def test_a_batch_of_another_size_gets_the_same_images(name):
    images, labels = random_images(24, 20, 16), np.arange(24)
    transforms = {name: OPTIONS[name]()}
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


@pytest.mark.parametrize("name", OPTIONS)
def test_a_data_set_may_map_it_with_an_unknown_batch_size(name):
    images, labels = random_images(11, 20, 16), np.arange(11, dtype=np.int32)
    augment = augmentation.build({name: OPTIONS[name]()}, 0, 4)
    data = tf.data.Dataset.from_tensor_slices((images, labels, np.arange(11))).batch(4).map(
        lambda image, label, positions: augment({"image": image, "label": label},
                                                tf.constant(6, tf.int64), positions),
        num_parallel_calls=2)
    assert data.element_spec["image"].shape.as_list() == [None, 20, 16, 3]
    together = apply({name: OPTIONS[name]()}, (images, labels), micro_batch=4, epoch=6)
    for key, value in together.items():
        assert (np.concatenate([batch[key].numpy() for batch in data]) == value).all()
    empty = apply({name: OPTIONS[name]()}, (images[:0], labels[:0]))
    assert empty["image"].shape == (0, 20, 16, 3)


def test_a_list_is_applied_in_its_order_without_changing_draws():
    images, labels = random_images(16, 16, 16), np.arange(16)
    flip = augmentation_options.Flip(horizontal=1.0)
    turned = augmentation_options.Perspective(probability=0.0, reflect=False)
    one = apply({"flip": flip, "perspective": turned}, (images, labels))["image"]
    other = apply({"perspective": turned, "flip": flip}, (images, labels))["image"]
    assert (one == apply({"perspective": turned}, (images[:, :, ::-1], labels))["image"]).all()
    assert (other == apply({"perspective": turned}, (images, labels))["image"][:, :, ::-1]).all()
    assert (one != other).any()
    mixed = apply({"flip": flip, "perspective": turned, "cutmix": OPTIONS["cutmix"]()},
                  (images, labels))
    assert set(mixed) == {"image", "label", "other_label", "share"}


def test_two_mixing_transforms_are_refused():
    both = {"cutmix": OPTIONS["cutmix"](), "mixup": OPTIONS["mixup"]()}
    with pytest.raises(UserError, match="leave out one of the two"):
        augmentation.build(both, 0, 8)


def test_no_transforms_are_no_augmentation():
    assert augmentation.build({}, 0, 8) is None


def test_the_sentence_names_every_transform_in_order():
    augment = augmentation.build({"flip": OPTIONS["flip"](), "perspective":
                                  OPTIONS["perspective"]()}, 0, 8)
    assert augment.sentence == (
        "augmentation: flip left/right with probability 0.5 and up/down with 0; then perspective "
        "with probability 0.35, rotated and reflected corners")


@pytest.mark.parametrize("name", OPTIONS)
def test_twenty_steps_on_a_fixed_batch_halve_the_excess_over_the_entropy(name):
    rng = np.random.default_rng(0)
    labels = np.arange(16) % 4
    images = (rng.random((4, 16, 16, 3))[labels] * 160 + rng.random((16, 16, 16, 3)) * 90)
    batch = apply({name: OPTIONS[name]()}, (images.astype(np.uint8), labels), micro_batch=2)
    share = batch.get("share", np.ones(16, np.float32))
    other = batch.get("other_label", batch["label"])
    uncertain = np.where(other == batch["label"], 1.0, share)
    entropy = stats.entropy([uncertain, 1 - uncertain]).mean()
    assert (entropy > 0.05) == (name in augmentation.MIXING)
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


# Options


@pytest.mark.parametrize("name", OPTIONS)
def test_config_files_hold_the_defaults_of_the_options(name):
    loaded = OmegaConf.load(CONF / f"{name}.yaml")
    assert list(loaded) == [name]
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(OPTIONS[name]), loaded[name]))
    assert merged == OPTIONS[name]()
    assert set(loaded[name]) == set(vars(merged))


def test_every_transform_has_a_file_and_a_function():
    assert {path.stem for path in CONF.glob("*.yaml")} == {"none", *OPTIONS}
    assert {**augmentation.SINGLE, **augmentation.MIXING}.keys() == OPTIONS.keys()
    assert set(augmentation.MIXING) == set(augmentation_options.MIXING)
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
    with pytest.raises(UserError, match=rf"^augmentation\.{name}\.{key} must be "):
        OPTIONS[name](**{key: value})

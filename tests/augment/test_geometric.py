"""The perspective warp against golden vectors, exact arithmetic and NumPy."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flowerexp import rng
from flowerexp.augment import Perspective, geometric
from flowerexp.augment.geometric import perspective_matrix, warp
from flowerexp.errors import UserError
from tests.transforms import apply, numbered, random_images

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
golden = pytest.mark.skipif(not REFERENCE.is_dir(),
                            reason="the golden vectors are not beside the checkout")


def random_corners(height, width, seed, epoch, positions, probability, **switches):
    keys = rng.keys(seed, "perspective", epoch, positions)
    return geometric.random_corners(keys, height, width, probability, **switches)


def unmoved(height, width):
    return np.array([[0, 0], [0, width], [height, width], [height, 0]])


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
    assert apply({"perspective": Perspective()}, batch)["image"].shape == (8, 4, 5, 3)


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


in_a_graph = tf.function(perspective_matrix)  # as in the pipeline, and faster


@settings(max_examples=60, deadline=None)
@given(size=st.sampled_from([(4, 4), (5, 7), (37, 53), (64, 48), (96, 96), (100, 60)]),
       seed=st.integers(0, 10**6), probability=st.sampled_from([0.0, 0.35, 1.0]))
def test_every_pixel_is_that_of_numpy(size, seed, probability):
    images = numbered(12, *size)
    target = random_corners(*size, seed, 0, np.arange(12), probability)
    matrices = in_a_graph(tf.stack([unmoved(*size)] * 12), target).numpy()
    keep = abs(np.linalg.det(matrices)) > 1e-12  # sets without an inverse have a test of their own
    # All of them are warped, because XLA compiles for every number of images.
    warped = warp(images, matrices).numpy()
    assert (warped[keep] == numpy_warp(images[keep], matrices[keep])).all()


@pytest.mark.parametrize("size", [(192, 192), (224, 160)])
def test_every_pixel_is_that_of_numpy_in_large_images(size):
    images = random_images(40, *size)
    target = random_corners(*size, 7, 0, np.arange(40), 0.7)
    matrices = perspective_matrix(np.stack([unmoved(*size)] * 40), target).numpy()
    assert (warp(images, matrices).numpy() == numpy_warp(images, matrices)).all()


def test_random_matrices_with_far_out_coordinates_are_those_of_numpy():
    rng = np.random.default_rng(1)
    matrices = rng.normal(0, 1, (60, 3, 3)) * 10.0 ** rng.integers(-8, 9, (60, 3, 3))
    regular = geometric.has_inverse(tf.constant(matrices)).numpy()
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

"""Decodes photos and resizes them to squares: the same in training, import, prediction, export."""

from __future__ import annotations

from flowerexp.lazy import tf

APP_MARKERS = (*range(0xE0, 0xF0), 0xFE)
"""The markers of a JPEG's segments that hold no picture; they come first."""
EXIF = b"Exif\0\0"
"""The first bytes of a segment with EXIF data."""
ORIENTATION = 0x0112
"""The tag of the orientation in EXIF data."""


def decode(data: tf.Tensor, exif: bool = True) -> tf.Tensor:
    """Decodes the bytes (string []) of a JPEG, PNG, GIF, BMP or WebP to uint8 [height, width, 3].

    JPEGs are decoded like those of records. Of an animation the first frame is decoded, transparent
    pixels become white, and the fourth channel of a BMP is ignored.

    Args:
        exif: whether a JPEG is rotated and mirrored as the orientation in its EXIF data says.

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are not such an image.
    """
    def jpeg() -> tf.Tensor:
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return upright(image, orientation(data)) if exif else image

    def other() -> tf.Tensor:
        image = tf.io.decode_image(data, channels=0, expand_animations=False)
        return on_white(image, tf.equal(tf.strings.substr(data, 0, 2), b"BM"))

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(data), jpeg, other), [None, None, 3])


def on_white(image: tf.Tensor, ignore_alpha: tf.Tensor) -> tf.Tensor:
    """uint8 [height, width, 3] of an image of one to four channels; two and four have alpha."""
    channels = tf.shape(image)[-1]
    colors = tf.cond(channels < 3, lambda: tf.repeat(image[..., :1], 3, -1),
                     lambda: image[..., :3])

    def blended() -> tf.Tensor:
        alpha = tf.cast(image[..., -1:], tf.int32)
        mixed = tf.cast(colors, tf.int32) * alpha + 255 * (255 - alpha)
        return tf.cast((mixed + 127) // 255, tf.uint8)

    return tf.cond((channels % 2 == 0) & ~ignore_alpha, blended, lambda: colors)


def upright(image: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """The image [height, width, 3], turned as an EXIF orientation of 1 to 8 (int32 []) says."""
    def turned() -> tf.Tensor:
        across = tf.cond(turn > 4, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        mirrored = tf.cond(tf.reduce_any(turn == [2, 3, 6, 7]),
                           lambda: tf.reverse(across, [1]), lambda: across)
        return tf.cond(tf.reduce_any(turn == [3, 4, 7, 8]),
                       lambda: tf.reverse(mirrored, [0]), lambda: mirrored)

    return tf.cond(turn > 1, turned, lambda: image)


def orientation(data: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG (string []), int32 [] from 1 to 8; 1 if there is none."""
    # Walking through the segments takes as long as decoding a small picture.
    has_exif = tf.size(tf.strings.split(data, EXIF, maxsplit=1)) > 1
    return tf.cond(has_exif, lambda: walk(data), lambda: 1)


def walk(data: tf.Tensor) -> tf.Tensor:
    """As `orientation`; reads the segments before the picture, and of the first with EXIF data
    the main directory: a table of 12 bytes each, tag, type, count and value (the format of TIFF).
    """
    size = tf.strings.length(data)

    def head(at: tf.Tensor) -> tf.Tensor:
        """The first 10 bytes of the segment at a position; zeros after the end."""
        piece = tf.strings.substr(data, tf.minimum(at, size), 10)
        return tf.ensure_shape(octets(piece + 10 * b"\0")[:10], [10])

    def is_exif(segment: tf.Tensor) -> tf.Tensor:
        return (segment[1] == 0xE1) & tf.reduce_all(segment[4:] == list(EXIF))

    def skips(_: tf.Tensor, segment: tf.Tensor) -> tf.Tensor:
        return (segment[0] == 0xFF) & tf.reduce_any(segment[1] == APP_MARKERS) & ~is_exif(segment)

    def following(at: tf.Tensor, segment: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        after = at + 2 + number(segment[2:4], False)
        return after, head(after)

    at, segment = tf.while_loop(skips, following, (tf.constant(2), head(tf.constant(2))))

    def read() -> tf.Tensor:
        length = tf.maximum(number(segment[2:4], False) - 8, 0)
        block = octets(tf.strings.substr(data, tf.minimum(at + 10, size), length) + 16 * b"\0")
        little, end = block[0] == ord("I"), tf.size(block) - 16
        # Of the four bytes of the directory's place two are enough: a segment has up to 64 KB.
        place = tf.where(little, block[4:6], block[6:8])
        start = tf.minimum(number(place, little), end) + 2
        count = tf.minimum(number(block[start - 2:start], little), (end + 2 - start) // 12)
        entries = tf.reshape(block[start:start + 12 * tf.maximum(count, 0)], [-1, 12])
        values = tf.where(number(entries[:, :2], little) == ORIENTATION,
                          number(entries[:, 8:10], little), 0)
        return tf.reduce_max(tf.concat([[1], tf.where(values <= 8, values, 1)], 0))

    return tf.cond(is_exif(segment), read, lambda: 1)


def octets(data: tf.Tensor) -> tf.Tensor:
    """The bytes of a string [] as int32 [n]."""
    return tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32)


def number(pair: tf.Tensor, little: bool | tf.Tensor) -> tf.Tensor:
    """The unsigned number of two bytes, int32 [..., 2] -> [...]; `little`: little-endian."""
    return tf.reduce_sum(pair * tf.where(little, [1, 256], [256, 1]), -1)



def square(image: tf.Tensor, size: int, how: str = "crop") -> tf.Tensor:
    """An image as a square, resized bilinearly with antialiasing.

    Args:
        image: uint8 [height, width, 3].
        size: height and width of the result in pixels.
        how: `crop` takes the middle, `pad` adds black at the shorter sides, `stretch` distorts.

    Returns:
        uint8 [size, size, 3]; a square of that size is returned unchanged.
    """
    shape = tf.shape(image)
    if how == "pad":
        longest = tf.reduce_max(shape[:2])
        inner = tf.maximum(1, tf.cast(tf.round(size * shape[:2] / longest), tf.int32))
    elif how == "crop":
        side = tf.reduce_min(shape[:2])
        top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
        image = image[top:top + side, left:left + side]
        inner = tf.stack([size, size])
    else:
        inner = tf.stack([size, size])
    resized = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == inner), lambda: image,
        lambda: tf.cast(tf.round(tf.clip_by_value(
            tf.image.resize(image, inner, antialias=True), 0, 255)), tf.uint8))
    if how == "pad":
        top, left = tf.unstack((size - inner) // 2)
        resized = tf.image.pad_to_bounding_box(resized, top, left, size, size)
    return tf.ensure_shape(resized, [size, size, 3])

"""Folders of small photos, their conversion, and what it wrote read back."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from flowerexp.data import records, sources
from flowerexp.data.prepare import convert
from flowerexp.data.prepare.convert import ConversionOptions
from flowerexp.runs.log import RunLogger


def picture(seed, height=40, width=61, mode="RGB"):
    """Smooth colours, of which no two seeds have the same."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(path, image, kind="JPEG", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)
    return path


def garden(folder, counts, **options):
    """A folder per class with so many photos each."""
    for label, (name, number) in enumerate(counts.items()):
        for index in range(number):
            save(folder / name / f"{index}.jpg", picture(1000 * label + index, **options))
    return folder


def run(images, out, size=16, workers=2, **options):
    return convert.run(images, out, ConversionOptions(size, **options), workers, RunLogger())


def files_of(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def source_of(out, **options):
    return sources.find(sources.TFRecords(str(out), **options))


def records_of(out):
    """Split, label (of test from its list), and JPEG by id."""
    source, by_id = source_of(out), {}
    with open(Path(source.folder) / "test_labels.csv", newline="") as file:  # noqa: PTH123
        of_test = {row["id"]: int(row["label"]) for row in csv.DictReader(file)}
    for split, files in source.files.items():
        table = records.read(files, source.spec(split))
        for identifier, label, image in zip(table.ids, table.labels.tolist(),
                                            table.images.numpy(), strict=True):
            assert identifier not in by_id
            by_id[identifier] = (split, of_test[identifier] if split == "test" else label, image)
    assert set(of_test) == {key for key, value in by_id.items() if value[0] == "test"}
    return source, by_id

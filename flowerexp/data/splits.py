"""The splits of a run: read from the source, divided as the config says, and identified."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowerexp.config import Dataset
from flowerexp.data import records
from flowerexp.data.sources import Source
from flowerexp.data.tables import DataIssue, Table
from flowerexp.strategy.workers import AllGather, single_process


@dataclass(frozen=True)
class Splits:
    """What a run trains on, validates with and predicts.

    train, valid: labelled splits.
    test: ids and checksums of the test split; None if there is none.
    names: class names in label order; numbers if the data set has no names.
    """

    train: Table
    valid: Table
    test: Table | None
    names: tuple[str, ...]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 [classes], training images of each class."""
        return np.bincount(self.train.labels, minlength=len(self.names))

    @property
    def issues(self) -> tuple[DataIssue, ...]:
        """Issues of the records that dataset.on_bad_record=skip left out of any split."""
        tables = filter(None, (self.train, self.valid, self.test))
        return tuple(dict.fromkeys(issue for table in tables for issue in table.issues))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the data's content: class names and, of every split, the ids, labels and
        stored bytes in their order. A run resumes on the same data only.
        """
        found = hashlib.sha256(json.dumps(self.names).encode())
        for table in (self.train, self.valid, self.test):
            if table is not None:
                assert len(table.digests) == len(table.ids)
                found.update(json.dumps(table.all_ids).encode())
                found.update(table.labels.astype("<i4").tobytes())
                found.update(table.digests.astype("<u8").tobytes())
            found.update(b"\0")
        return f"{CONTENT}{found.hexdigest()[:16]}"


CONTENT = "content-"
"""Prefix of fingerprints of content; those of the first versions were of names and sizes."""


def load(source: Source, dataset: Dataset, keep_images: bool,
         all_gather: AllGather = single_process) -> Splits:
    """Reads the splits of a source, and divides them as the config says.

    The test split is checked too; with `stop` only its features and sizes, because its images are
    decoded during prediction, which reads it again.

    Args:
        keep_images: whether the images of train and valid are kept, encoded.
        all_gather: see `records.read`.

    Raises:
        UserError: as `records.read`.
    """
    read = {split: read_split(source, split, keep_images and split != "test",
                              dataset.on_bad_record, all_gather) for split in source.splits}
    train, valid = read["train"], read["val"]
    classes = source.num_classes or 1 + max(int(table.labels.max()) for table in (train, valid))
    return Splits(train, valid, read.get("test"),
                  source.class_names or tuple(str(label) for label in range(classes)))


def read_split(source: Source, split: str, keep_images: bool, on_bad_record: str,
               all_gather: AllGather = single_process) -> Table:
    """A split as the source holds it; raises UserError as `records.read`."""
    if source.arrays:
        return source.arrays[split].table(keep_images)
    spec = source.spec(split, keep_images, on_bad_record == "skip")
    return records.read(source.files[split], spec, all_gather)

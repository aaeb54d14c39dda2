"""The splits of a run: read from the source, divided as the config says, and identified."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowerexp.config import Dataset
from flowerexp.data import division, images, records, remarks
from flowerexp.data.source import Source
from flowerexp.data.tables import DataIssue, Table, with_same_classes
from flowerexp.errors import UserError, counted, one_line
from flowerexp.identity import CONTENT, Fingerprint
from flowerexp.lazy import tf
from flowerexp.strategy.workers import AllGather, single_process

DEFAULT_VALIDATION = 0.15
"""The share of train to validate with if the data have no validation split."""
DIVIDING = ("validation", "folds", "fold", "pool", "split_seed", "group_pattern", "groups",
            "long_tail")
"""Keys of the dataset that decide how what was read is divided, and not what is read."""
NAMED = 3
"""The most classes and ids that a sentence names."""


@dataclass(frozen=True)
class Splits:
    """What a run trains on, validates with and predicts.

    train, valid: labelled splits; valid is empty with train_on=all.
    test: ids and checksums of the test split; None if there is none.
    names: class names in label order; numbers if the data set has no names.
    listing: the hash of names and sizes of the files, see `identity.Fingerprint`.
    sentences: what was divided, and how.
    dealt: what was divided into folds, without images, and the fold of each row, int [n].
    """

    train: Table
    valid: Table
    test: Table | None
    names: tuple[str, ...]
    listing: str = ""
    sentences: tuple[str, ...] = ()
    dealt: tuple[Table, npt.NDArray[np.int64]] | None = None

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
    def fingerprint(self) -> Fingerprint:
        """The identity of the data, the same for every fold; a run resumes on the same data only.
        """
        found = hashlib.sha256(json.dumps(self.names).encode())
        labelled = (self.train, self.valid)
        if self.dealt is not None:
            labelled = (self.dealt[0], self.train.take(np.zeros(len(self.train.ids), np.bool_)))
            found.update(self.dealt[1].astype("<i4").tobytes())
        for table in (*labelled, self.test):
            if table is not None:
                assert len(table.digests) == len(table.ids)
                found.update(json.dumps(table.all_ids).encode())
                found.update(table.labels.astype("<i4").tobytes())
                found.update(table.digests.astype("<u8").tobytes())
            found.update(b"\0")
        return Fingerprint(f"{CONTENT}{found.hexdigest()[:16]}", self.listing)


def load(source: Source, dataset: Dataset, keep_images: bool,
         all_gather: AllGather = single_process, train_on: str = "train") -> Splits:
    """Reads the splits of a source, and divides them as the config says.

    The test split is checked too; with `stop` only its features and sizes, because its images are
    decoded during prediction, which reads it again.

    Args:
        keep_images: whether the images of train and valid are kept, encoded.
        all_gather: see `records.read`.
        train_on: as in the config; `all` leaves valid empty.

    Raises:
        UserError: as `records.read` and `divide`.
    """
    return divide(read(source, dataset, keep_images, all_gather), source, dataset, train_on)


def read(source: Source, dataset: Dataset, keep_images: bool,
         all_gather: AllGather = single_process) -> dict[str, Table]:
    """The splits as the source holds them, by name; see `load`."""
    return {split: read_split(source, split, keep_images and split != "test",
                              dataset.on_bad_record, all_gather) for split in source.splits}


def undivided(dataset: Dataset) -> Dataset:
    """The dataset without the keys of its division: datasets for which it is equal are read alike.
    """
    defaults: dict[str, Any] = {each.name: each.default for each in dataclasses.fields(dataset)
                                if each.name in DIVIDING}
    return replace(dataset, **defaults)


def divide(found: Mapping[str, Table], source: Source, dataset: Dataset, train_on: str = "train"
           ) -> Splits:
    """Divides the splits of a source as the config says: a function of ids and dataset.split_seed.

    Images without an id, or with one that others have too, are told apart by their checksums.

    Raises:
        UserError: for a division that the data do not allow.
    """
    found, names = with_classes(found, source)
    remarks.check_classes([table for split, table in found.items() if split != "test"], names,
                          source.folder)
    found = with_groups(found, dataset)
    train, valid = found["train"], found.get("val")
    pools = train_on == "all" or dataset.pool == "train+val"
    pooled = train.join(valid) if pools and valid is not None else train
    if dataset.pool == "train+val" and valid is None:
        raise UserError("dataset.pool=train+val: the data have no validation split: leave it out")
    dealt = None
    of = (f"the {counted(len(pooled.labels), 'image')} of "
          f"train{'' if pooled is train else ' and val'}")
    if train_on == "all":
        train, valid = pooled, train.take(np.zeros(len(train.labels), np.bool_))
        sentence = (f"train_on=all: {of} are trained on and none is held out: this run has no "
                    "validation scores")
    elif dataset.folds is not None or dataset.validation is not None or valid is None:
        parts, how = held_out(pooled, names, dataset)
        rows = parts == (dataset.fold if dataset.folds else 1)
        dealt = (replace(pooled, images=None), parts) if dataset.folds else None
        unused = (f"; the {counted(len(valid.labels), 'image')} of val are not used "
                  "(dataset.pool=train+val would divide them too)"
                  if valid is not None and pooled is train else "")
        why = (", because the data have no validation split"
               if dataset.folds is None and dataset.validation is None else "")
        sentence = (f"validation: {counted(int(rows.sum()), 'image')} of {of}, {how}, "
                    f"dataset.split_seed={dataset.split_seed}{why}{unused}")
        train, valid = pooled.take(~rows), pooled.take(rows)
    else:
        sentence = ""
    sentences = [sentence, shared_groups(train, valid, found.get("test"))]
    if dataset.long_tail is not None:
        train, kept = long_tailed(train, pooled, names, dataset)
        sentences.append(kept)
    sentences += remarks.of_splits(train, valid, found.get("test"), names,
                                   names != tuple(map(str, range(len(names)))))
    return Splits(train, valid, found.get("test"), names, listing(source, found, len(names)),
                  tuple(filter(None, sentences)), dealt)


def with_classes(found: Mapping[str, Table], source: Source
                 ) -> tuple[dict[str, Table], tuple[str, ...]]:
    """The splits with labels that count the same classes, and the names of these.

    Raises:
        UserError: see `tables.with_same_classes`, or for names of another number of classes.
    """
    labelled, told = with_same_classes({
        split: table for split, table in found.items() if split != "test"})
    classes = source.num_classes or 1 + max(int(each.labels.max()) for each in labelled.values())
    names = source.class_names or told or tuple(str(label) for label in range(classes))
    if len(names) != classes:
        raise UserError(f"the records name {len(names)} classes where dataset.num_classes says "
                        f"{classes}: leave it out")
    return {**found, **labelled}, names


def held_out(pooled: Table, names: Sequence[str], dataset: Dataset
             ) -> tuple[npt.NDArray[np.int64], str]:
    """The fold of every row, or 1 if it validates and 0 if not, int [n]; and how they were chosen,
    in words.
    """
    folds, count = dataset.folds, len(pooled.labels)
    share = Fraction(str(dataset.validation or DEFAULT_VALIDATION))
    shares = [Fraction(1, folds)] * folds if folds else [1 - share, share]
    parts = division.deal(pooled.labels, division.unique_keys(pooled.ids, pooled.digests),
                          pooled.groups, shares, dataset.split_seed,
                          "fold" if folds else "validation", fill_first=not folds)
    chosen = (dataset.fold or 0) if folds else 1
    rows = parts == chosen
    key = f"dataset.folds={folds}" if folds else f"dataset.validation={float(share):g}"
    things = len({*pooled.groups} - {""}) + list(pooled.groups or [""] * count).count("")
    if not rows.any() or rows.all():
        raise UserError(f"{key} leaves no image to {'train on' if rows.all() else 'validate with'}:"
                        f" there are {counted(count, 'image')} in {counted(things, 'group')} and "
                        f"{counted(len(np.unique(pooled.labels)), 'class')}")
    how = (f"fold {chosen} of {folds} (stratified)" if folds else
           f"{float(share):g} of every class")
    if pooled.groups and any(pooled.groups):
        how += f", {counted(len({*pooled.groups} - {''}), 'group')} each on one side"
    sizes = np.bincount(pooled.labels, minlength=len(names))
    few = np.flatnonzero((sizes > 0) & (sizes < (folds or 0))).tolist()
    if folds and sizes.max() < folds:
        raise UserError(f"{key} are more than the images of every class, at most {sizes.max()}: "
                        "give fewer folds")
    if few:
        listed = ", ".join(f"{one_line(names[label])} {sizes[label]}" for label in few[:NAMED])
        how += (f", {counted(len(few), 'class')} of fewer images than folds missing in some "
                f"({listed}{', ...' * (len(few) > NAMED)})")
    return parts, how


def long_tailed(train: Table, pooled: Table, names: Sequence[str], dataset: Dataset
                ) -> tuple[Table, str]:
    """The training images that dataset.long_tail keeps, and the sentence about them.

    The order of the classes is that of the images before the division, so that it is the same for
    every fold; of equal ones the lower label is the larger class, as in CIFAR-LT.
    """
    ratio, sizes = dataset.long_tail, np.bincount(pooled.labels, minlength=len(names))
    assert ratio is not None
    present = np.bincount(train.labels, minlength=len(names)) > 0
    order = [label for label in np.argsort(-sizes, kind="stable").tolist() if present[label]]
    kept = division.long_tail(train.labels, division.unique_keys(train.ids, train.digests), order,
                              ratio, dataset.split_seed)
    counts = np.bincount(train.labels[kept], minlength=len(names))[order]
    if not counts.all():
        raise UserError(f"dataset.long_tail={ratio:g} leaves no image of {names[order[-1]]}, since "
                        f"the largest class of such a profile has {counts[0]} images: give at most "
                        f"{counts[0]}")
    return train.take(kept), (
        f"long tail: {kept.sum()} of {counted(len(kept), 'training image')} are kept, "
        f"{counts[0]} of {one_line(names[order[0]])} to {counts[-1]} of "
        f"{one_line(names[order[-1]])} (dataset.long_tail={ratio:g}, "
        f"dataset.split_seed={dataset.split_seed})")


# Groups

def with_groups(found: Mapping[str, Table], dataset: Dataset) -> dict[str, Table]:
    """The splits with the groups of the source, group_pattern and the file of groups, merged.

    Raises:
        UserError: for a pattern that does not match an id of train or val, or a file of groups
            that cannot be read or names no id.
    """
    named = read_groups(dataset.groups) if dataset.groups else {}
    pattern = re.compile(dataset.group_pattern) if dataset.group_pattern is not None else None
    everything = [identifier for table in found.values() for identifier in table.ids]
    namings: list[Sequence[str]] = []
    if any(table.groups for table in found.values()):
        namings.append([group for table in found.values()
                        for group in table.groups or [""] * len(table.ids)])
    if pattern is not None:
        check_pattern(pattern, [identifier for name, table in found.items() if name != "test"
                                for identifier in table.ids])
        namings.append([group_of(pattern, identifier) for identifier in everything])
    if named:
        namings.append([named.get(identifier, "") for identifier in everything])
        if not any(namings[-1]):
            raise UserError(f"dataset.groups={dataset.groups} names no image of the data, whose "
                            f"first id is {everything[0]!r}: its column id must hold their ids")
    if not namings:
        return dict(found)
    groups = iter(division.merge_groups(namings))
    return {name: replace(table, groups=tuple(itertools.islice(groups, len(table.ids))))
            for name, table in found.items()}


def group_of(pattern: re.Pattern[str], identifier: str) -> str:
    """The first group of the pattern's match, else the match; empty if there is none."""
    match = pattern.search(identifier)
    return "" if match is None else match[1 if pattern.groups else 0] or ""


def check_pattern(pattern: re.Pattern[str], ids: Sequence[str]) -> None:
    """Raises UserError for ids that the pattern does not match."""
    lost = [identifier for identifier in ids if not group_of(pattern, identifier)]
    if lost:
        raise UserError(f"dataset.group_pattern={pattern.pattern} names no group in "
                        f"{len(lost)} of {counted(len(ids), 'id')}, for example {lost[0]!r}: "
                        "correct it (an alternative |.+ makes each of them its own group)")


def read_groups(path: str) -> dict[str, str]:
    """The group of each id in a CSV with the columns id and group; raises UserError."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"id", "group"} <= {*(rows.fieldnames or ())}:
                raise UserError(f"dataset.groups={path} has the columns "
                                f"{', '.join(rows.fieldnames or ()) or 'none'} where id and group "
                                "are needed")
            found = {row["id"]: row["group"] or "" for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"dataset.groups={path} cannot be read: {error}: give a CSV with the "
                        "columns id and group") from error
    if not found:
        raise UserError(f"dataset.groups={path} holds no row")
    return found


def shared_groups(train: Table, valid: Table, test: Table | None) -> str:
    """A warning about groups that are trained on and are in another split too; empty if none is."""
    trained = {*train.groups} - {""}
    both = {name: len(trained & {*table.groups}) for name, table in (
        ("validation", valid), ("test", test)) if table is not None}
    shared = " and ".join(f"{counted(number, 'group')} of {name}"
                          for name, number in both.items() if number)
    return f"warning: {shared} also in training" if shared else ""


def listing(source: Source, found: Mapping[str, Table], classes: int) -> str:
    """The fingerprint of the first versions: 16 hexadecimal digits of the hash of the files' names
    and sizes (or the arrays' bytes), of the class counts and of the skipped records' positions.
    """
    counts = np.bincount(found["train"].labels, minlength=classes).tolist()
    issues = [issue for table in found.values() for issue in table.issues]
    known_files: dict[str, Any] = {split: each.digest for split, each in source.arrays.items()}
    for split, files in source.files.items():
        known_files[split] = [(Path(file).name, tf.io.gfile.stat(file).length) for file in files]
    places = sorted({(*Path(issue.file).parts[-2:], str(issue.record)) for issue in issues})
    known = [known_files, counts, *([places] if places else [])]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def read_split(source: Source, split: str, keep_images: bool, on_bad_record: str,
               all_gather: AllGather = single_process) -> Table:
    """A split as the source holds it; raises UserError as `records.read`."""
    if source.arrays:
        return source.arrays[split].table(keep_images)
    if source.listing is not None:
        return images.table(source.listing, source.checked, source.folder, split)
    spec = source.spec(split, keep_images, on_bad_record == "skip")
    return records.read(source.files[split], spec, all_gather)

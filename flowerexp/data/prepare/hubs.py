"""Data sets of the libraries tensorflow-datasets and datasets (Hugging Face), to TFRecords.

The library finds, downloads and reads a data set. Its images go, encoded as they are, to a Parquet
file per split in the folder of the conversion, and are imported from there as from any.
"""

import contextlib
import hashlib
import importlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowerexp.config import one_of
from flowerexp.data import manifests, parquet, photos
from flowerexp.data.features import IDS, IMAGES
from flowerexp.data.photos import Columns, Listing
from flowerexp.data.prepare import convert
from flowerexp.data.prepare.convert import ConversionOptions
from flowerexp.errors import UserError, first_line
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

ROWS = 32
"""Images per row group of a Parquet file, which are in memory together."""


@dataclass(frozen=True)
class Hub:
    """A data set as its library describes it.

    name: with its version or configuration.
    images, values: names of the features that are images, and single texts or integers.
    classes: names of the classes, in label order, by the feature of such labels.
    splits: number of images of each split.
    content: tells the data set from others, JSON.
    read: split, feature of the image, all features -> rows by feature; an image is its bytes and
        path, each of which may be None.
    """

    name: str
    images: Sequence[str]
    classes: Mapping[str, Sequence[str]]
    values: Sequence[str]
    splits: Mapping[str, int]
    content: Any
    read: Callable[[str, str, list[str]], Iterator[dict[str, Any]]]


def run(open_hub: Callable[[str], Hub], name: str, out: Path, options: ConversionOptions,
        workers: int, logger: RunLogger, columns: Mapping[str, str]) -> bool:
    """Converts a data set of a library; returns whether every image could be read.

    Args:
        open_hub: `tfds` or `hugging_face`.
        name: as the library calls it, or a local folder that the library wrote.
        columns: features by kind, path, label or group; others are found.

    Raises:
        UserError: without the library; for a data set that it does not give, or one without images,
            classes or a split train; as `convert.convert`.
    """
    for kind in columns:
        one_of("--column", kind, ("path", "label", "group"))
    hub = open_hub(name)
    chosen = choose(hub, Columns(**columns))
    named = {split: photos.split_of(split) for split in hub.splits}
    if len(named) > 1 and "train" not in named.values():
        raise UserError(f"{name} has the splits {', '.join(named)}, and none for training")
    used = [split for split in named if named[split] or len(named) == 1]
    logger.info(f"{hub.name}: " + ", ".join(f"{hub.splits[each]} in {each}" for each in used))
    if unused := [split for split in named if split not in used]:
        logger.info("splits left out, which are none of train, validation and test: "
                    + ", ".join(unused))
    content = json.dumps([hub.name, hub.content, used, vars(chosen), {**hub.classes}])
    inputs = hashlib.sha256(content.encode()).hexdigest()[:16]
    return convert.convert(lambda work: listed(hub, used, chosen, work / inputs, logger), inputs,
                           out, options, workers, logger)


def choose(hub: Hub, given: Columns) -> Columns:
    """The features of the image, the label and, if given, the group.

    An image or a class that is alone in its kind is taken, else the first of a usual name.

    Raises:
        UserError: if there is none, none of several has a usual name, or the given one is none.
    """
    def pick(kind: str, what: str, sure: Sequence[str], others: Sequence[str],
             usual: Sequence[str]) -> str:
        name: str | None = getattr(given, kind)
        likely = sure if len(sure) == 1 else [each for each in usual if each in (sure or others)]
        if name in (*sure, *others) or (name is None and likely):
            return name or likely[0]
        problem = (f"no {what} in {name!r}" if name else f"{len(sure)} features of {what}" if sure
                   else f"no {what}")
        every = ", ".join([*hub.images, *hub.classes, *hub.values])
        remedy = f", and --column {kind}=NAME chooses one" if sure or others else ""
        raise UserError(f"{hub.name} has {problem}", "its images, texts and integers are "
                        f"{every or 'none'}{remedy}")

    classes = [*hub.classes]
    return Columns(pick("path", "images", hub.images, (), IMAGES),
                   pick("label", "class labels", classes, hub.values, manifests.LABELS),
                   pick("group", "groups", (), [*hub.values, *classes], ()) if given.group
                   else None)


def listed(hub: Hub, splits: Sequence[str], chosen: Columns, folder: Path, logger: RunLogger
           ) -> Listing:
    """The images of the splits, in Parquet files in `folder`; existing files are complete."""
    image, label = str(chosen.path), str(chosen.label)
    identifier = next((each for each in IDS if each in hub.values and each != label), None)
    wanted = [*filter(None, dict.fromkeys((image, label, chosen.group, identifier)))]
    names = hub.classes.get(label)
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
         "label": pa.int64() if names else pa.string(), "group": pa.string()},
        {"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})}
        if names else None)

    def row_of(row: dict[str, Any]) -> dict[str, Any]:
        data, path = row[image]
        if identifier and row[identifier] is not None:
            path = str(row[identifier])
        return {"image": {"bytes": data, "path": path and photos.nfc(path)},
                "label": row[label] if names or row[label] is None else str(row[label]),
                "group": str(row[chosen.group]) if chosen.group else ""}

    files = [folder / f"{split if len(splits) > 1 else 'all'}.parquet" for split in splits]
    with logger.progress(sum(hub.splits[split] for split in splits), 0) as advance:
        for split, file in zip(splits, files, strict=True):
            if file.exists():
                advance("images", hub.splits[split])
                continue
            with store.atomic_write(file) as partial, pq.ParquetWriter(
                    partial, schema, compression="none", use_dictionary=False) as writer:
                rows = map(row_of, hub.read(split, image, wanted))
                while some := [*itertools.islice(rows, ROWS)]:
                    writer.write_table(pa.Table.from_pylist(some, schema))
                    advance("images", len(some))
    listing = parquet.listed(folder, files, Columns("image", "label", "group"))
    if len(held := sorted({photo.label for photo in listing.photos} - {""})) < 2:
        raise UserError(f"{hub.name} holds {len(held)} class ({', '.join(held)}), and a classifier "
                        "needs two")
    return listing


def tfds(name: str) -> Hub:
    """A data set of TensorFlow Datasets."""
    catalog = "https://www.tensorflow.org/datasets/catalog lists the names"
    with asking("tensorflow-datasets", "tfds", name, catalog):
        library = importlib.import_module("tensorflow_datasets")
        builder = (library.builder_from_directory(name) if Path(name).is_dir()
                   else library.builder(name))
        builder.download_and_prepare()
    info, types = builder.info, library.features

    def read(split: str, image: str, wanted: list[str]) -> Iterator[dict[str, Any]]:
        decoders = library.decode.PartialDecoding(
            dict.fromkeys(wanted, True), decoders={image: library.decode.SkipDecoding()})
        with asking("tensorflow-datasets", "tfds", name, catalog):
            for row in builder.as_dataset(split, decoders=decoders, shuffle_files=False,
                                          read_config=library.ReadConfig(try_autocache=False)
                                          ).as_numpy_iterator():
                yield {key: (value, None) if key == image else
                       value.decode("utf-8", "backslashreplace") if isinstance(value, bytes)
                       else value.item() for key, value in row.items()}

    kinds = {key: "image" if isinstance(each, types.Image) else "" if each.shape != () else "value"
             for key, each in info.features.items()
             if not np.issubdtype(each.np_dtype, np.inexact)}
    classes = {key: each.names for key, each in info.features.items()
               if isinstance(each, types.ClassLabel)}
    return Hub(info.full_name, [key for key in kinds if kinds[key] == "image"], classes,
               [key for key in kinds if kinds[key] == "value" and key not in classes],
               {split: each.num_examples for split, each in info.splits.items()},
               [[each.name, each.num_bytes, [*each.shard_lengths]]
                for each in info.splits.values()], read)


def hugging_face(name: str, config: str | None = None) -> Hub:
    """A data set of Hugging Face, or of a folder that their library reads."""
    catalog = "https://huggingface.co/datasets lists the names"
    with asking("datasets", "huggingface", name, catalog):
        library = importlib.import_module("datasets")
        every = library.load_dataset(name, config)
    types = next(iter(every.values())).features

    def read(split: str, image: str, wanted: list[str]) -> Iterator[dict[str, Any]]:
        rows = every[split].select_columns(wanted).cast_column(image, library.Image(decode=False))
        for row in rows:
            data, path = (row[image] or {}).get("bytes"), (row[image] or {}).get("path")
            if data is None and path and Path(path).is_file():
                data = Path(path).read_bytes()
            yield row | {image: (data, path and Path(path).name)}

    return Hub(f"{name}{f' ({config})' if config else ''}",
               [key for key, each in types.items() if isinstance(each, library.Image)],
               {key: each.names for key, each in types.items()
                if isinstance(each, library.ClassLabel)},
               [key for key, each in types.items() if isinstance(each, library.Value)
                and each.dtype.lstrip("u").startswith(("int", "string", "large_string"))],
               {split: len(each) for split, each in every.items()},
               {split: each._fingerprint for split, each in every.items()}, read)


@contextlib.contextmanager
def asking(package: str, extra: str, name: str, catalog: str) -> Iterator[None]:
    """Turns what a library raises, which may be anything, into one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package.replace("-", "_"):
            raise UserError(f"data from-{extra} needs the package {package}: pip install -c "
                            f"constraints.txt -e '.[{extra}]'") from error
        why = first_line(error).rstrip(" .:")
        raise UserError(f"{package} does not give {name} ({why})", catalog) from error

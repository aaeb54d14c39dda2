"""status.json: the progress of a run, its environment, and how it ended. No TensorFlow here."""

import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerexp.errors import UserError
from flowerexp.runs import store

STATES = ("new", "running", "interrupted", "failed", "done")
OLD_NAMES = {"beginning": "provenance"}
"""Keys of earlier versions -> the fields that replaced them."""
Scalars = dict[str, str | int | float | None]


@dataclass(frozen=True)
class RunStatus:
    """The contents of status.json; unknown fields are None or empty, and left out of the file."""

    state: str = "new"
    """One of STATES."""
    error: str | None = None
    """The error message of a failed run, a sentence."""
    traceback: str | None = None
    stopped_early: str | None = None
    """A sentence that tells at which epoch and why the run stopped early."""
    epochs_done: int | None = None
    epochs: int | None = None
    """The planned number of epochs."""
    started: str | None = None
    """The local start time in ISO 8601; `updated` and `ended` have the same format."""
    updated: str | None = None
    ended: str | None = None
    working_directory: str | None = None
    """The directory of the run's command, to which its relative paths refer."""
    code_path: list[str] = field(default_factory=list)
    """Folders from which the user's own parts are imported."""
    host: str | None = None
    pid: int | None = None
    """The process that trains the run, or trained it last."""
    versions: dict[str, str] = field(default_factory=dict)
    git: Scalars = field(default_factory=dict)
    """The project's commit and whether files were changed, see `provenance.commit`."""
    hardware: str | None = None
    """A sentence that tells the devices and why they were chosen."""
    data: Scalars = field(default_factory=dict)
    """The source of the images, their number, size and cache."""
    skipped: dict[str, Any] = field(default_factory=dict)
    """The records that dataset.on_bad_record=skip left out."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about the data, which the summary repeats."""
    valid: str | None = None
    """The checksum of the validation images' ids and labels, see `store.valid_checksum`."""
    provenance: Scalars = field(default_factory=dict)
    """The numbers of the plan, the fingerprint of the data as `data`, and of the user's own parts
    the hashes of their sources."""
    others: dict[str, Any] = field(default_factory=dict)
    """The keys of another version, kept as they are."""

    @classmethod
    def load(cls, folder: Path) -> "RunStatus":
        """Loads the status of a run folder; that of a new run if there is no file yet.

        Raises:
            UserError: for a file that holds no status, or a field of the wrong type.
        """
        path, remedy = folder / store.STATUS, "remove it, the checkpoints tell how far the run is"
        if not path.exists():
            return cls()
        values = store.read_json(path)
        if not isinstance(values, dict):
            raise UserError(f"{path} holds no status", remedy)
        values = {OLD_NAMES.get(key, key): value for key, value in values.items()}
        types = typing.get_type_hints(cls)
        del types["others"]
        others = {key: values.pop(key) for key in sorted(values.keys() - types.keys())}
        for name, value in values.items():
            if not has_type(value, types[name]):
                raise UserError(f"{path}: {name} must not be {value!r}", remedy)
        status = cls(**values, others=others)
        if status.state not in STATES:
            raise UserError(f"{path} knows no state '{status.state}': it is one of "
                            f"{', '.join(STATES)}")
        return status

    @classmethod
    def load_or_new(cls, folder: Path) -> "RunStatus":
        """As `load`, but a damaged file gives a new run's status, because no run depends on it."""
        try:
            return cls.load(folder)
        except UserError:
            return cls()

    @property
    def image_size(self) -> int | None:
        """The height and width of the images in pixels."""
        size = self.data.get("image_size")
        return size if isinstance(size, int) else None

    def save(self, folder: Path) -> None:
        values = {name: value for name, value in vars(self).items() if value not in (None, {}, [])}
        store.write_json(folder / store.STATUS, values.pop("others", {}) | values, indent=1)


def has_type(value: Any, wanted: Any) -> bool:
    """Whether a value from JSON, and each value in its list or dict, has the type of a field."""
    container = typing.get_origin(wanted)
    if container not in (dict, list):
        return wanted is Any or isinstance(value, wanted)
    inner = typing.get_args(wanted)[-1]
    values = value.values() if isinstance(value, dict) else value
    return isinstance(value, container) and all(has_type(each, inner) for each in values)

"""status.json: the progress of a run, its environment, and how it ended. No TensorFlow here."""

import typing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from flowerexp.errors import UserError
from flowerexp.runs import store

STATES = ("new", "running", "interrupted", "failed", "done")
OLD_NAMES = {"beginning": "provenance"}
"""Keys of earlier versions -> the fields that replaced them."""


@dataclass(frozen=True)
class RunStatus:
    """The contents of status.json; unknown fields are None or empty, and left out of the file.

    Keys of other versions are ignored.
    """

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
    git: dict[str, Any] = field(default_factory=dict)
    """The project's commit and whether files were changed, see `provenance.commit`."""
    hardware: str | None = None
    """A sentence that tells the devices and why they were chosen."""
    data: dict[str, Any] = field(default_factory=dict)
    """The source of the images, their number, size and cache."""
    skipped: dict[str, Any] = field(default_factory=dict)
    """The records that dataset.on_bad_record=skip left out."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """The numbers of the plan, and the fingerprint of the data as `data`."""

    @classmethod
    def load(cls, folder: Path) -> "RunStatus":
        """Loads the status of a run folder; that of a new run if there is no file yet.

        Raises:
            UserError: for a file that holds no status, or a field of the wrong type.
        """
        path = folder / store.STATUS
        if not path.exists():
            return cls()
        values = store.read_json(path)
        if not isinstance(values, dict):
            raise UserError(f"{path} holds no status: remove it, the checkpoints tell how far the "
                            "run is")
        values = {OLD_NAMES.get(key, key): value for key, value in values.items()}
        types, known = typing.get_type_hints(cls), dict[str, Any]()
        for each in fields(cls):
            if each.name not in values:
                continue
            value, wanted = values[each.name], types[each.name]
            container = typing.get_origin(wanted)
            if not isinstance(value, container if container in (dict, list) else wanted):
                raise UserError(f"{path}: {each.name} must not be {value!r}: remove the file, the "
                                "checkpoints tell how far the run is")
            known[each.name] = value
        status = cls(**known)
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

    def save(self, folder: Path) -> None:
        store.write_json(folder / store.STATUS, {
            name: value for name, value in asdict(self).items() if value not in (None, {}, [])},
            indent=1)

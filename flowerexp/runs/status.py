"""status.json: how far a run came, on what it ran, and how it ended. No TensorFlow here."""

import typing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from flowerexp.errors import UserError
from flowerexp.runs import store

STATES = ("new", "running", "interrupted", "failed", "done")
OLD_NAMES = {"beginning": "provenance"}
"""Keys of earlier versions, and the fields that they are now."""


@dataclass(frozen=True)
class RunStatus:
    """What status.json holds; what is not known is None or empty, and is left out of the file.

    Keys of other versions are ignored.
    """

    state: str = "new"
    """One of STATES."""
    error: str | None = None
    """The sentence that a failed run ended with."""
    traceback: str | None = None
    stopped_early: str | None = None
    """The sentence that says at which epoch and why."""
    epochs_done: int | None = None
    epochs: int | None = None
    """How many are planned."""
    started: str | None = None
    """Local time in ISO 8601, as the next two."""
    updated: str | None = None
    ended: str | None = None
    working_directory: str | None = None
    """The directory of the run's command, from which its relative paths start."""
    code_path: list[str] = field(default_factory=list)
    """Folders from which the user's own parts are imported."""
    host: str | None = None
    pid: int | None = None
    """The process that runs it, or ran it last."""
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    """The project's commit and whether files were changed, as of `provenance.commit`."""
    hardware: str | None = None
    """The devices and why they were chosen, in a sentence."""
    data: dict[str, Any] = field(default_factory=dict)
    """Where the images come from, their number, size and cache."""
    skipped: dict[str, Any] = field(default_factory=dict)
    """The records that dataset.on_bad_record=skip left out."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """The numbers of the plan, and the fingerprint of the data as `data`."""

    @classmethod
    def load(cls, folder: Path) -> "RunStatus":
        """The status of a run folder; that of a new run where there is no file yet.

        Raises:
            UserError: for a file that holds no status, or a field of another type.
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
        """As `load`, but that of a new run where the file is damaged: no run depends on it."""
        try:
            return cls.load(folder)
        except UserError:
            return cls()

    def save(self, folder: Path) -> None:
        store.write_json(folder / store.STATUS, {
            name: value for name, value in asdict(self).items() if value not in (None, {}, [])},
            indent=1)

"""What a run was made with: package versions and the project's git commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from flowerexp import __version__
from flowerexp.errors import first_line

PROJECT = Path(__file__).resolve().parents[2]
GIT_SECONDS = 5.0
"""The timeout of git in seconds; a network disk may be slow."""


def versions() -> dict[str, str]:
    """The versions of Python, this package and the packages that affect results."""
    found: dict[str, str] = {"python": platform.python_version(), "flowerexp": __version__}
    for package in ("tensorflow", "tensorflow-tpu", "keras", "tf_keras", "numpy", "efficientnet"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit(project: Path = PROJECT) -> dict[str, Any] | None:
    """The commit of the project's checkout, and whether tracked files have changed since.

    Returns:
        {"commit": 40 hex digits, "changed": bool}, or {"error": git's message} if git fails; None
        without a checkout.
    """
    if not (project / ".git").exists():  # an installed package has no repository
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        found = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True,
                               stdin=subprocess.DEVNULL, timeout=GIT_SECONDS,
                               env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"}).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": first_line(getattr(error, "stderr", None) or error)}
    return {"commit": found.removesuffix("-dirty"), "changed": found.endswith("-dirty")}

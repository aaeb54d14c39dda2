"""Downloads the competition's files with kagglehub, which resumes and caches downloads."""

import json
import shlex
from pathlib import Path

from flowerexp.data.sources import CLASSES_FILE, COMPETITION, NAMES_FILE, size_in_name
from flowerexp.errors import UserError, first_line
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
CREDENTIALS = ("make a token at https://www.kaggle.com/settings (API, Create New Token), set "
               "KAGGLE_API_TOKEN to it or save the older kaggle.json as ~/.kaggle/kaggle.json, and "
               f"accept the rules at {PAGE}/rules")


def run(out: Path, logger: RunLogger) -> None:
    """Downloads the files and logs how to train on them; raises UserError as `fetch`."""
    sizes = fetch(out)
    logger.info(f"{out}: the competition's files, {', '.join(map(str, sizes))} pixels")
    size = 192 if 192 in sizes else sizes[0]
    logger.info("to train: flowerexp run "
                + shlex.join([f"dataset=flowers_{size}", f"dataset.root={out}"]))


def fetch(out: Path) -> list[int]:
    """Downloads the competition's files and links their folders into `out`.

    Returns:
        The sizes of the images, in pixels.

    Raises:
        UserError: without kagglehub, credentials, accepted rules or a network, or if `out` holds
            other folders of these names.
    """
    source = download()
    folders = {size: path for path in sorted(source.glob("tfrecords-jpeg-*"))
               if (size := size_in_name(path.name)) is not None}
    if not folders:
        raise UserError(f"{source} holds no folder tfrecords-jpeg-SxS: remove it and rerun the "
                        "command")
    out.mkdir(parents=True, exist_ok=True)
    for path in folders.values():
        link = out / path.name
        if not (link.is_symlink() and link.resolve() == path.resolve()):
            if link.exists() or link.is_symlink():
                raise UserError(f"{link} exists and is not of the competition: give another folder")
            link.symlink_to(path.resolve(), target_is_directory=True)
    store.write_text(out / NAMES_FILE, "".join(
        f"{name}\n" for name in json.loads(CLASSES_FILE.read_text(encoding="utf-8"))))
    return sorted(folders)


def download() -> Path:
    """The folder of kagglehub's cache, or of a Kaggle notebook, with the competition's files."""
    try:
        import kagglehub
        import requests
        from kagglehub import exceptions
    except ModuleNotFoundError as error:
        raise UserError("data kaggle needs the package kagglehub: pip install -c constraints.txt "
                        "-e '.[kaggle]'") from error
    try:
        return Path(kagglehub.competition_download(COMPETITION))
    except exceptions.UnauthenticatedError as error:
        raise UserError(f"Kaggle gives the competition's files only to its users: {CREDENTIALS}"
                        ) from error
    except requests.exceptions.HTTPError as error:
        code = error.response.status_code if error.response is not None else "an error"
        raise UserError(f"Kaggle answers {code} for {PAGE}: {CREDENTIALS}") from error
    except requests.exceptions.RequestException as error:
        raise UserError(f"Kaggle cannot be reached ({first_line(error)}): is this machine online? "
                        "Rerun the command to resume") from error
    except (ValueError, exceptions.DataCorruptionError, exceptions.BackendError) as error:
        raise UserError(f"Kaggle's files cannot be downloaded ({first_line(error)}): rerun the "
                        f"command, or {CREDENTIALS}") from error

"""The competition's files through kagglehub, which keeps and resumes them in its own cache."""

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
    """Fetches the files and says how to train with them; raises UserError as `fetch`."""
    sizes = fetch(out)
    logger.info(f"{out}: the competition's files, {', '.join(map(str, sizes))} pixels")
    size = 192 if 192 in sizes else sizes[0]
    logger.info("to train: flowerexp run "
                + shlex.join([f"dataset=flowers_{size}", f"dataset.root={out}"]))


def fetch(out: Path) -> list[int]:
    """Downloads the competition's files and links their folders into `out`.

    Returns:
        The sizes of the images that are there, in pixels.

    Raises:
        UserError: without kagglehub, credentials, the rules accepted, or a network, and where `out`
            holds other folders of these names.
    """
    source = download()
    folders = {size: path for path in sorted(source.glob("tfrecords-jpeg-*"))
               if (size := size_in_name(path.name)) is not None}
    if not folders:
        raise UserError(f"{source} holds no folder tfrecords-jpeg-SxS: remove it and run the same "
                        "command again")
    out.mkdir(parents=True, exist_ok=True)
    for path in folders.values():
        link = out / path.name
        if not (link.is_symlink() and link.resolve() == path.resolve()):
            if link.exists() or link.is_symlink():
                raise UserError(f"{link} is there and not of the competition: give another folder")
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
        raise UserError(f"Kaggle gives the competition's files to its users only: {CREDENTIALS}"
                        ) from error
    except requests.exceptions.HTTPError as error:
        code = error.response.status_code if error.response is not None else "an error"
        raise UserError(f"Kaggle answers {code} for {PAGE}: {CREDENTIALS}") from error
    except requests.exceptions.RequestException as error:
        raise UserError(f"Kaggle cannot be reached ({first_line(error)}): is this machine online? "
                        "The same command goes on") from error
    except (ValueError, exceptions.DataCorruptionError, exceptions.BackendError) as error:
        raise UserError(f"Kaggle's files cannot be had ({first_line(error)}): run the same command "
                        f"again, or {CREDENTIALS}") from error

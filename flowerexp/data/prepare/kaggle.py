"""Downloads the competition's files with kagglehub, which resumes and caches downloads."""

import json
import shlex
from pathlib import Path

from flowerexp.data import class_names, layouts
from flowerexp.data.sources import CLASSES_FILE, COMPETITION
from flowerexp.errors import UserError, first_line
from flowerexp.runs import store
from flowerexp.runs.log import RunLogger

PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
CREDENTIALS = ("make a token at https://www.kaggle.com/settings (API, Create New Token), set "
               "KAGGLE_API_TOKEN to it or save the older kaggle.json as ~/.kaggle/kaggle.json, and "
               f"accept the rules at {PAGE}/rules")


def run(out: Path, logger: RunLogger) -> None:
    """Downloads the competition's files, links their folders into `out`, logs how to train on them.

    Raises:
        UserError: without kagglehub, credentials, accepted rules or a network, or if `out` holds
            other folders of these names.
    """
    source = download()
    folders = {size: path for path in sorted(source.glob("tfrecords-jpeg-*"))
               if (size := layouts.size_in_name(path.name)) is not None}
    if not folders:
        raise UserError(f"{source} holds no folder tfrecords-jpeg-SxS: remove it and rerun the "
                        "command")
    out.mkdir(parents=True, exist_ok=True)
    for path in folders.values():
        link = out / path.name
        if link.is_symlink() and link.resolve() == path.resolve():
            continue
        if link.exists() or link.is_symlink():
            raise UserError(f"{link} exists and is not of the competition: give another folder")
        link.symlink_to(path.resolve(), target_is_directory=True)
    names = json.loads(CLASSES_FILE.read_text(encoding="utf-8"))
    store.write_text(out / class_names.CONVERTED, "".join(f"{name}\n" for name in names))
    logger.info(f"{out}: the competition's files, {', '.join(map(str, sorted(folders)))} pixels")
    option = f"dataset=flowers_{192 if 192 in folders else min(folders)}"
    logger.info(f"to train: flowerexp run {shlex.join([option, f'dataset.root={out}'])}")


def download() -> Path:
    """The folder of kagglehub's cache, or of a Kaggle notebook, with the competition's files."""
    try:
        import kagglehub
        from kagglehub import exceptions
        from requests.exceptions import HTTPError, RequestException
    except ModuleNotFoundError as error:
        raise UserError("data kaggle needs the package kagglehub: pip install -c constraints.txt "
                        "-e '.[kaggle]'") from error
    try:
        return Path(kagglehub.competition_download(COMPETITION))
    except exceptions.UnauthenticatedError as error:
        raise UserError(f"Kaggle gives the competition's files only to its users: {CREDENTIALS}"
                        ) from error
    except HTTPError as error:
        code = error.response.status_code if error.response is not None else "an error"
        raise UserError(f"Kaggle answers {code} for {PAGE}: {CREDENTIALS}") from error
    except RequestException as error:
        raise UserError(f"Kaggle cannot be reached ({first_line(error)}): is this machine online? "
                        "Rerun the command to resume") from error
    except (ValueError, exceptions.DataCorruptionError, exceptions.BackendError) as error:
        raise UserError(f"Kaggle's files cannot be downloaded ({first_line(error)}): rerun the "
                        f"command, or {CREDENTIALS}") from error

"""Downloads that resume after a broken connection and are verified by their md5.

Pooch and keras.utils.get_file verify and unpack, but restart a transfer that broke off.
"""

import gzip
import hashlib
import shutil
import tarfile
import time
import zlib
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich import progress
from rich.console import Console

from flowerexp.errors import UserError
from flowerexp.runs import store

CHUNK = 2**16
"""Bytes per read."""
PATIENCE = 60
"""Seconds without a byte after which a connection is closed."""
TRIES = 3
"""Maximum connections per file; each resumes where the previous one ended."""
NOT_SATISFIABLE = 416
BUSY = (429, 500, 502, 503, 504)


def fetch(url: str, path: Path, md5: str, console: Console, tries: int = TRIES) -> None:
    """Downloads a file, unless it exists with the right md5.

    Received bytes are kept in `<path>.partial` until the file is complete, the server's version in
    `.partial.version`. A resumed transfer that ends with another md5 (the file has changed in
    between) is restarted once.

    Args:
        url: http or https.
        path: path of the file, whose folder is created.
        md5: md5 of the complete file, 32 hexadecimal digits.
        console: shows the progress.
        tries: connections before giving up.

    Raises:
        UserError: for a server that cannot be reached or refuses, a broken transfer, or another
            md5 (the file is removed).
    """
    if path.exists():
        if md5_of(path) == md5:
            return
        path.unlink()
        console.print(f"{path} is damaged and downloaded again", markup=False, soft_wrap=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    version = path.with_name(f"{path.name}.partial.version")
    for _ in range(2):
        resumed = transfer(url, partial, version, console, tries)
        found = md5_of(partial)
        version.unlink(missing_ok=True)
        if found == md5:
            store.sync(partial)
            partial.rename(path)
            return
        partial.unlink()
        if not resumed:
            break
        console.print(f"{url} has changed and is downloaded again", markup=False, soft_wrap=True)
    raise UserError(f"{url}: md5 is {found}, not {md5}: the download is damaged, or the file is "
                    "another one; it was removed: rerun the command")


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def transfer(url: str, partial: Path, version: Path, console: Console, tries: int) -> bool:
    """Completes `partial`; returns whether any of it is from an earlier connection."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url} is not a web address: give http:// or https://")
    for attempt in range(tries):
        time.sleep(2 ** (attempt - 1) if attempt else 0)
        try:
            return receive(url, partial, version, console)
        except HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code not in BUSY:
                raise UserError(f"{url}: {reason}: is the address right?") from error
        except URLError as error:
            raise UserError(f"{url} cannot be reached ({error.reason}): is this machine online?"
                            ) from error
        except (HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(error) or type(error).__name__
    raise UserError(f"{url}: {reason}: rerun the command to resume")


def receive(url: str, partial: Path, version: Path, console: Console) -> bool:
    """One connection; returns whether it resumed."""
    have = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"User-Agent": "flowerexp"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if version.exists():
            request.add_header("If-Range", version.read_text(encoding="utf-8"))
    try:
        response = urlopen(request, timeout=PATIENCE)
    except HTTPError as error:
        if error.code == NOT_SATISFIABLE and have:
            return True  # complete, or another file: the md5 decides
        raise
    with response:
        resumed: bool = response.status == 206
        # A weak ETag does not guarantee equal bytes, and no server resumes for it.
        tag = response.headers.get("ETag", "W/")
        current = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
        version.unlink(missing_ok=True)
        if current:
            version.write_text(current, encoding="utf-8")
        size = int(response.headers.get("Content-Length", 0))
        title = partial.name.removesuffix(".partial")
        with partial.open("ab" if resumed else "wb") as file, \
                shown(response, size, title, console) as source:
            shutil.copyfileobj(source, file, CHUNK)
            done, whole = file.tell(), size + resumed * have
    if done < whole:
        raise ConnectionError(f"the connection broke off after {done} of {whole} bytes")
    return resumed


def shown(file: Any, size: int, title: str, console: Console) -> AbstractContextManager[BinaryIO]:
    """The file with a bar of the bytes that are read from it, in a terminal only."""
    return progress.wrap_file(file, size, description=title, console=console, transient=True,
                              disable=not console.is_terminal)


def unpack(archive: Path, folder: Path, console: Console) -> None:
    """Unpacks a tar archive to `folder`, which is created complete or not at all.

    Raises:
        UserError: for an archive that is damaged, or whose members would leave the folder.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    size, title = archive.stat().st_size, f"unpacking {archive.name}"
    try:
        with archive.open("rb") as file, shown(file, size, title, console) as source, \
                tarfile.open(fileobj=source) as opened:
            opened.extractall(partial, filter="data")
        partial.rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}): remove it and rerun the "
                        "command") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)

"""Downloads that resume after a broken connection and are verified by their md5."""

import contextlib
import gzip
import hashlib
import json
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from flowerexp.errors import UserError
from flowerexp.runs import store

CHUNK = 2**18
"""Bytes per read."""
PATIENCE = 60
"""Seconds without a byte after which a connection is closed."""
TRIES = 3
"""Maximum connections per file; each resumes where the previous one ended."""
NOT_SATISFIABLE = 416
BUSY = (429, 500, 502, 503, 504)


class BrokenOff(Exception):  # noqa: N818 -- not an error: the next connection resumes
    """A connection that ended early; the message says why."""


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def bar_of(console: Console) -> Progress:
    """A progress bar of bytes, in a terminal only."""
    return Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), DownloadColumn(),
                    TransferSpeedColumn(), TimeRemainingColumn(compact=True), TextColumn("left"),
                    console=console, transient=True, disable=not console.is_terminal)


def fetch(url: str, path: Path, md5: str, console: Console, tries: int = TRIES) -> None:
    """Downloads a file, unless it exists with the right md5.

    Received bytes are kept in `<path>.partial` until the file is complete, the server's version in
    `.partial.json`. A resumed transfer that ends with another md5 (the file has changed in
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
    partial, mark = path.with_name(f"{path.name}.partial"), path.with_name(
        f"{path.name}.partial.json")
    for _ in range(2):
        resumed = transfer(url, partial, mark, console, tries)
        found = md5_of(partial)
        if found == md5:
            store.sync(partial)
            partial.rename(path)
            mark.unlink(missing_ok=True)
            return
        partial.unlink()
        mark.unlink(missing_ok=True)
        if not resumed:
            break
        console.print(f"{url} has changed and is downloaded again",
                      markup=False, soft_wrap=True)
    raise UserError(f"{url}: md5 is {found}, not {md5}: the download is damaged, or the file is "
                    "another one; it was removed: rerun the command")


def transfer(url: str, partial: Path, mark: Path, console: Console, tries: int) -> bool:
    """Completes `partial`; returns whether any of it is from an earlier connection."""
    with bar_of(console) as bar:
        task = bar.add_task(partial.name.removesuffix(".partial"), total=None)

        def show(done: int, whole: int | None) -> None:
            bar.update(task, completed=done, total=whole)

        for attempt in range(tries):
            try:
                return receive(url, partial, mark, show)
            except BrokenOff as broken:
                reason = str(broken)
            if attempt + 1 < tries:
                time.sleep(2 ** attempt)
    raise UserError(f"{url}: {reason}: rerun the command to resume")


def receive(url: str, partial: Path, mark: Path, show: Callable[[int, int | None], None]) -> bool:
    """One connection; returns whether it resumed. Raises BrokenOff or UserError."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url} is not a web address: give http:// or https://")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "flowerexp"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        with contextlib.suppress(OSError, ValueError):
            request.add_header("If-Range", json.loads(mark.read_text(encoding="utf-8")))
    try:
        with connect(request) as response:
            resumed = response.status == 206 and response.headers.get(
                "Content-Range", "").startswith(f"bytes {have}-")
            if response.status == 206 and not resumed:
                raise UserError(f"{url}: the server sent another range than was requested: "
                                f"remove {partial} and rerun the command")
            # A weak ETag does not guarantee equal bytes, and no server resumes for it.
            version = response.headers.get("ETag", "")
            version = "" if version.startswith("W/") else version
            version = version or response.headers.get("Last-Modified", "")
            if version:
                store.write_json(mark, version)
            else:
                mark.unlink(missing_ok=True)
            length = response.headers.get("Content-Length")
            done = have if resumed else 0
            whole = done + int(length) if length else None
            with partial.open("ab" if resumed else "wb") as file:
                while chunk := response.read1(CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    show(done, whole)
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise BrokenOff(f"the connection broke off ({error or type(error).__name__})") from error
    except urllib.error.HTTPError as error:
        if error.code == NOT_SATISFIABLE and have:
            return True  # complete, or another file: the md5 decides
        if error.code in BUSY:
            raise BrokenOff(f"the server answers {error.code} {error.reason}") from error
        raise UserError(f"{url}: the server answers {error.code} {error.reason}: is the address "
                        "right?") from error
    if whole is not None and done < whole:
        raise BrokenOff(f"the connection broke off after {done} of {whole} bytes")
    return resumed


def connect(request: urllib.request.Request) -> HTTPResponse:
    """Opens a connection; raises UserError if the server cannot be reached."""
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise UserError(f"{request.full_url} cannot be reached ({error.reason}): is this machine "
                        "online?") from error
    return response


def unpack(archive: Path, folder: Path, console: Console) -> None:
    """Unpacks a tar archive to `folder`, which is created complete or not at all.

    Raises:
        UserError: for an archive that is damaged, or whose members would leave the folder.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with bar_of(console) as bar, tarfile.open(archive) as opened:
            task = bar.add_task(f"unpacking {archive.name}", total=archive.stat().st_size)
            for member in opened:
                opened.extract(member, partial, filter="data")
                bar.update(task, completed=min(member.offset_data, archive.stat().st_size))
        partial.rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}): remove it and rerun the "
                        "command") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)

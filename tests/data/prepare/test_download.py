"""Fetching from a real server: whole, broken off, changed, refused; and the two data sets of it."""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.io import savemat
from typer.testing import CliRunner

from flowerexp.cli.main import app
from flowerexp.data import records, sources
from flowerexp.data.prepare import checks, download, oxford102
from flowerexp.data.prepare.convert import ConversionOptions
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from tests.processes import wait_for
from tests.servers import Files, serving

QUIET = Console(quiet=True)


def md5(data):
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def files():
    data = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
    return Files({"a.bin": data})


@pytest.fixture
def home(files):
    with serving(files) as address:
        yield address


def fetch(home, path, data, tries=1):
    download.fetch(f"{home}a.bin", path, md5(data), QUIET, tries)


def ranges(files):
    return [(asked, status) for _, asked, _, status in files.requests]


def test_a_file_arrives_whole_and_only_once(files, home, tmp_path):
    path = tmp_path / "new folder" / "a.bin"
    fetch(home, path, files.content["a.bin"])
    assert path.read_bytes() == files.content["a.bin"]
    assert [each.name for each in path.parent.iterdir()] == ["a.bin"]
    fetch(home, path, files.content["a.bin"])
    assert ranges(files) == [(None, 200)]


def test_a_second_call_goes_on_where_the_connection_broke_off(files, home, tmp_path):
    files.cut_after = 100_001
    with pytest.raises(UserError, match=r"after 100001 of 300000 bytes: rerun the command"):
        fetch(home, tmp_path / "a.bin", files.content["a.bin"])
    assert (tmp_path / "a.bin.partial").read_bytes() == files.content["a.bin"][:100_001]
    assert not (tmp_path / "a.bin").exists()
    files.cut_after = None
    fetch(home, tmp_path / "a.bin", files.content["a.bin"])
    assert (tmp_path / "a.bin").read_bytes() == files.content["a.bin"]
    assert ranges(files) == [(None, 200), ("bytes=100001-", 206)]
    assert files.requests[1][2] == files.tag
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]


def test_one_call_connects_again(files, home, tmp_path):
    files.cut_after = 150_000
    fetch(home, tmp_path / "a.bin", files.content["a.bin"], tries=2)
    assert ranges(files) == [(None, 200), ("bytes=150000-", 206)]
    assert (tmp_path / "a.bin").read_bytes() == files.content["a.bin"]


def test_a_server_that_is_busy_is_asked_again(files, home, tmp_path):
    files.busy = 1
    fetch(home, tmp_path / "a.bin", files.content["a.bin"], tries=2)
    assert ranges(files) == [(None, 503), (None, 200)]


def test_a_process_killed_in_mid_transfer_goes_on(files, home, tmp_path):
    files.cut_after, files.held = 200_000, threading.Event()
    program = ("import sys; from rich.console import Console; from pathlib import Path;"
               "from flowerexp.data.prepare import download;"
               "download.fetch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Console())")
    path, partial = tmp_path / "a.bin", tmp_path / "a.bin.partial"
    process = subprocess.Popen([sys.executable, "-c", program, f"{home}a.bin", str(path),
                                md5(files.content["a.bin"])], stderr=subprocess.DEVNULL)
    wait_for(lambda: process.poll() is not None
             or (partial.exists() and partial.stat().st_size > 0))
    process.kill()
    process.wait()
    files.held.set()
    have = partial.stat().st_size
    assert 0 < have <= 200_000
    files.cut_after = None
    fetch(home, path, files.content["a.bin"])
    assert ranges(files)[-1] == (f"bytes={have}-", 206)
    assert path.read_bytes() == files.content["a.bin"]


def test_a_server_without_ranges_starts_anew(files, home, tmp_path):
    files.ranges = False
    (tmp_path / "a.bin.partial").write_bytes(files.content["a.bin"][:1000])
    fetch(home, tmp_path / "a.bin", files.content["a.bin"])
    assert ranges(files) == [("bytes=1000-", 200)]
    assert (tmp_path / "a.bin").read_bytes() == files.content["a.bin"]


@pytest.mark.parametrize("tag", ['"two"', None])
def test_a_file_that_changed_meanwhile_is_fetched_anew(files, home, tmp_path, tag):
    """By the server's mark; and without one by the md5, after a transfer for nothing."""
    files.tag = files.tag if tag else None
    files.cut_after = 100_000
    with pytest.raises(UserError):
        fetch(home, tmp_path / "a.bin", files.content["a.bin"])
    files.cut_after, files.tag = None, tag
    files.content["a.bin"] = files.content["a.bin"][::-1]
    fetch(home, tmp_path / "a.bin", files.content["a.bin"])
    assert (tmp_path / "a.bin").read_bytes() == files.content["a.bin"]
    assert ranges(files)[1:] == ([("bytes=100000-", 200)] if tag
                                 else [("bytes=100000-", 206), (None, 200)])


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_partial_file_with_nothing_missing(files, home, tmp_path, extra):
    (tmp_path / "a.bin.partial").write_bytes(files.content["a.bin"] + extra)
    fetch(home, tmp_path / "a.bin", files.content["a.bin"])
    assert (tmp_path / "a.bin").read_bytes() == files.content["a.bin"]
    assert [status for _, status in ranges(files)] == ([416, 200] if extra else [416])


def test_another_md5_is_refused_and_nothing_stays(files, home, tmp_path):
    with pytest.raises(UserError) as mistake:
        fetch(home, tmp_path / "a.bin", b"another")
    found = md5(files.content["a.bin"])
    assert f"md5 is {found}, not {md5(b'another')}" in str(mistake.value)
    assert "it was removed: rerun the command" in str(mistake.value)
    assert list(tmp_path.iterdir()) == []
    assert len(files.requests) == 1


def test_a_damaged_file_is_fetched_again(files, home, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"half")
    fetch(home, tmp_path / "a.bin", files.content["a.bin"])
    assert (tmp_path / "a.bin").read_bytes() == files.content["a.bin"]


def test_mistakes_are_one_sentence(files, home, tmp_path):
    for url, words in ((f"{home}b.bin", "answers 404"), ("http://127.0.0.1:9/a", "be reached"),
                       ("file:///etc/passwd", "not a web address"), ("a", "not a web")):
        with pytest.raises(UserError, match=words) as mistake:
            download.fetch(url, tmp_path / "x", md5(b""), QUIET, 1)
        assert "\n" not in str(mistake.value)
    assert list(tmp_path.iterdir()) == []


def archive_of(members):
    """A .tgz of names with bytes, or with a member made by hand."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                archive.addfile(member)
    return file.getvalue()


@pytest.mark.parametrize("members", [
    {"good": b"1", "../evil": b"2"}, {"good": b"1", "/tmp/../evil/../../evil": b"2"},
    {"link": (tarfile.SYMTYPE, "../.."), "link/evil": b"2"},
    {"link": (tarfile.LNKTYPE, "../../secret")}, {"device": (tarfile.CHRTYPE, "")}])
def test_no_member_of_an_archive_leaves_its_folder(tmp_path, members):
    place = tmp_path / "in" / "here"
    place.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (place / "a.tgz").write_bytes(archive_of(members))
    with pytest.raises(UserError, match=r"a\.tgz cannot be unpacked"):
        download.unpack(place / "a.tgz", place / "photos", QUIET)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tgz", "here", "in", "secret"]


def test_a_truncated_archive_leaves_nothing(tmp_path):
    data = archive_of({"a": os.urandom(200_000)})
    for cut in (100_000, 5):
        (tmp_path / "a.tgz").write_bytes(data[:cut])
        with pytest.raises(UserError, match="remove it and rerun the command"):
            download.unpack(tmp_path / "a.tgz", tmp_path / "photos", QUIET)
        assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


LABELS = [3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 3, 1]
SPLITS = {"trnid": [1, 2, 3], "valid": [10, 5, 6], "tstid": [4, 12, 7, 8, 9, 11]}


def matrix(**rows):
    file = io.BytesIO()
    savemat(file, {key: np.array([row], np.uint16) for key, row in rows.items()})
    return file.getvalue()


@pytest.fixture(scope="module")
def oxford():
    """A server of three archives in the layout of Oxford's, twelve photos of three classes."""
    random, members = np.random.default_rng(1), {}
    for number in range(1, 13):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8)).resize((50, 40)).save(
            file, "JPEG")
        members[f"jpg/image_{number:05d}.jpg"] = file.getvalue()
    files = Files({"102flowers.tgz": archive_of(members), "imagelabels.mat": matrix(labels=LABELS),
                   "setid.mat": matrix(**SPLITS)})
    with serving(files) as address:
        yield files, address


def checksums(files):
    return {name: md5(data) for name, data in files.content.items()}


def run_oxford(oxford, out, size=24, **options):
    files, home = oxford
    files.requests.clear()
    return oxford102.run(out, ConversionOptions(size), 2, RunLogger(), home, checksums(files),
                         **options)


def test_oxford_becomes_the_official_splits(oxford, tmp_path, capsys):
    files, _ = oxford
    files.cut_after = len(files.content["102flowers.tgz"]) * 2 // 3  # of the archive only
    assert run_oxford(oxford, tmp_path)
    files.cut_after = None
    assert [status for *_, status in files.requests] == [200, 200, 200, 206]
    source = sources.find(sources.TFRecords(str(tmp_path)))
    assert source.class_names == ("pink primrose", "hard-leaved pocket orchid", "canterbury bells")
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        table = records.read(source.files[split], source.spec(split))
        assert sorted(table.ids) == sorted(f"image_{number:05d}.jpg" for number in SPLITS[key])
        if split != "test":
            assert table.labels.tolist() == [LABELS[int(name[6:11]) - 1] - 1 for name in table.ids]
    lines = (tmp_path / "tfrecords-jpeg-24x24/test_labels.csv").read_text().splitlines()
    assert lines == ["id,label", *(f"image_{number:05d}.jpg,{LABELS[number - 1] - 1}"
                                   for number in sorted(SPLITS["tstid"]))]
    checked = checks.check(source)
    assert (checked.errors, checked.warnings) == ([], [])
    assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == sorted(files.content)

    assert run_oxford(oxford, tmp_path)  # again: nothing to do
    assert "was made before" in capsys.readouterr().out
    assert run_oxford(oxford, tmp_path, 16)  # another size: of the same archives
    assert files.requests == []
    assert "dataset.image_size=16" in capsys.readouterr().out


def test_a_photo_that_is_not_in_the_archive_is_listed(tmp_path):
    data = archive_of({f"jpg/image_{number:05d}.jpg": image_bytes(number) for number in (1, 2)})
    files = Files({"102flowers.tgz": data, "imagelabels.mat": matrix(labels=[1, 2, 1]),
                   "setid.mat": matrix(trnid=[1], valid=[2], tstid=[3])})
    with serving(files) as address:
        assert not run_oxford((files, address), tmp_path)
    listed = (tmp_path / "tfrecords-jpeg-24x24/unreadable.csv").read_text()
    assert listed == "path,reason\nimage_00003.jpg,No such file or directory\n"


def image_bytes(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 30, 3), np.uint8)).save(
        file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(("content", "words"), [
    ({"imagelabels.mat": matrix(other=[1])}, "does not hold the numbers 'labels'"),
    ({"imagelabels.mat": b"no matrix at all"}, "does not hold the numbers 'labels'"),
    ({"imagelabels.mat": b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"}, "HDF"),
    ({"imagelabels.mat": matrix(labels=[1, 2])}, "names image 3 in trnid"),
    ({"imagelabels.mat": matrix(labels=[103] * 12)}, "no label from 1 to 102"),
    ({"setid.mat": matrix(trnid=[1], valid=[1], tstid=[2])}, "names image 1 twice")])
def test_lists_of_another_layout_are_refused(oxford, tmp_path, content, words):
    files = Files({**oxford[0].content, **content})
    with serving(files) as address, pytest.raises(UserError, match=words):
        run_oxford((files, address), tmp_path)


def test_the_command_holds_a_server_to_the_real_checksums(oxford, tmp_path):
    done = CliRunner().invoke(app, ["data", "oxford102", str(tmp_path), "--home", oxford[1]])
    assert done.exit_code == 1
    real = oxford102.CHECKSUMS["imagelabels.mat"]
    assert f"not {real}: the download is damaged" in done.output
    assert not list(tmp_path.rglob("*.mat*"))
    assert (real, oxford102.CHECKSUMS["102flowers.tgz"]) == (
        "e0620be6f572b9609742df49c70aed4d", "52808999861908f626f3c1f4e79d11fa")


def test_the_names_of_oxford_are_those_of_the_real_photos(shared):
    import json

    names = json.loads(oxford102.NAMES_FILE.read_text(encoding="utf-8"))
    assert names == (shared / "data/oxford102/classes.txt").read_text().splitlines()


def kaggle(tmp_path, monkeypatch, **environment):
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nothing"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(app, ["data", "kaggle", str(tmp_path / "out")])


def test_kaggle_without_its_package_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # as if it were not installed
    done = kaggle(tmp_path, monkeypatch)
    assert done.exit_code == 1
    assert "pip install -c constraints.txt -e '.[kaggle]'" in done.output


needs_kagglehub = pytest.mark.skipif(importlib.util.find_spec("kagglehub") is None,
                                     reason="the extra kaggle is not installed")


@needs_kagglehub
def test_kaggle_without_credentials_says_what_to_do(tmp_path, monkeypatch):
    done = kaggle(tmp_path, monkeypatch)
    assert done.exit_code == 1
    for words in ("KAGGLE_API_TOKEN", "~/.kaggle/kaggle.json",
                  "https://www.kaggle.com/competitions/tpu-getting-started/rules"):
        assert words in done.output
    assert not (tmp_path / "out").exists()


@needs_kagglehub
def test_files_that_kagglehub_holds_are_linked_and_found(tiny, tmp_path, monkeypatch):
    """kagglehub's own cache of an earlier download, which it gives without asking anyone."""
    held = tmp_path / "cache/competitions/tpu-getting-started"
    held.mkdir(parents=True)
    (held / "tfrecords-jpeg-16x16").symlink_to(tiny)
    (held.parent / "tpu-getting-started.complete").touch()
    done = kaggle(tmp_path, monkeypatch)
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    assert f"flowerexp run dataset=flowers_16 dataset.root={out}" in done.output
    source = sources.find(sources.TFRecords(str(out)))
    assert source.image_size == 16
    assert len(source.class_names) == 104
    assert kaggle(tmp_path, monkeypatch).exit_code == 0
    (out / "tfrecords-jpeg-16x16").unlink()
    (out / "tfrecords-jpeg-16x16").mkdir()
    assert "not of the competition" in kaggle(tmp_path, monkeypatch).output

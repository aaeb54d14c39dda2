"""Conversions that are stopped, killed, kept out or refused: one goes on to the same bytes."""

import contextlib
import json
import os
import resource
import shutil
import signal
import sqlite3

import filelock
import pytest

from flowerexp.data.prepare import convert
from flowerexp.errors import UserError
from tests import forked
from tests.photo_folders import files_of, garden, picture, run, save
from tests.processes import read, wait_for


def test_a_second_one_on_the_same_folder_is_kept_out(tmp_path):
    images = garden(tmp_path / "photos", {"a": 9, "z": 1})
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out/.lock"), \
            pytest.raises(UserError, match="is in use by another process"):
        run(images, tmp_path / "out")
    assert run(images, tmp_path / "out")


@pytest.mark.parametrize("stage", ["finished", "unfinished"])
def test_another_recipe_or_other_photos_are_not_mixed_in(tmp_path, stage):
    images, out = garden(tmp_path / "photos", {"a": 9, "b": 5}), tmp_path / "out"
    run(images, out)
    if stage == "unfinished":
        plan = read(out, "tfrecords-jpeg-16x16/conversion.json")
        shutil.rmtree(out)
        (out / ".conversion-16x16").mkdir(parents=True)
        (out / ".conversion-16x16/plan.json").write_text(json.dumps(plan))
    before = files_of(out)
    for options, words in (({"val": 0.2}, "made with --val 0.15 where this command says 0.2"),
                           ({"seed": 3}, "made with --seed 0 where this command says 3")):
        with pytest.raises(UserError, match=words):
            run(images, out, **options)
    os.utime(images / "a/1.jpg", (1, 1))
    with pytest.raises(UserError, match="made from other photos, or they have changed"):
        run(images, out)
    assert files_of(out) == before
    assert run(images, out, size=12)  # another size is another folder


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(tmp_path):
    """With a limit on the size of files, which the system refuses as it does a full disk."""
    images, out = garden(tmp_path / "photos", {"a": 60, "b": 9}), tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match="rerun the command to resume") as mistake:
            run(images, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(mistake.value)
    assert run(images, out)
    assert run(images, tmp_path / "whole")
    assert files_of(out) == files_of(tmp_path / "whole")


def stored(out):
    """How many photos a running conversion has stored for good."""
    for path in out.rglob("photos.sqlite"):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(
                sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as database:
            return database.execute("SELECT count(*) FROM photos").fetchone()[0]
    return 0


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_midway_it_goes_on_to_the_same_bytes(tmp_path, stop, capsys):
    images, out = tmp_path / "photos", tmp_path / "out"
    garden(images, {"a": 10, "b": convert.COMMIT - 10})
    large = save(images / "c/0.jpg", picture(5000, 2000, 2000))
    for number in range(1, 20):  # those that are stored next take a while
        os.link(large, images / f"c/{number}.jpg")
    process = forked.Command(["-m", "flowerexp", "data", "from-folder", images, out, "--size", "16",
                              "--workers", "1"], tmp_path)
    wait_for(lambda: process.poll() is not None or stored(out))
    process.send_signal(stop)
    said, wrong = process.communicate(timeout=60)
    assert process.returncode == (130 if stop == signal.SIGINT else -stop), wrong
    assert ("interrupted: rerun the command to resume" in said) == (stop == signal.SIGINT)
    assert wrong == ""
    assert stored(out) == convert.COMMIT
    assert not (out / "tfrecords-jpeg-16x16").exists()
    assert run(images, out)
    assert (f"{convert.COMMIT} of {convert.COMMIT + 20} photos were converted before"
            in capsys.readouterr().out)
    assert run(images, tmp_path / "uninterrupted")
    assert files_of(out) == files_of(tmp_path / "uninterrupted")


def test_killed_while_records_are_written_or_before_tidying_up(tmp_path, monkeypatch):
    """What a kill leaves behind there is laid down by hand."""
    images, out = garden(tmp_path / "photos", {"a": 30, "b": 30}), tmp_path / "out"
    run(images, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        run(images, out)
    work, target = out / ".conversion-16x16", out / "tfrecords-jpeg-16x16"
    assert work.exists()
    run(images, out)  # killed after the last rename
    assert not work.exists()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        shutil.move(target, tmp_path / "aside")
        run(images, out)
    target.rename(work / "result")  # killed before it
    (kept,) = (work / "result/train").iterdir()
    (lost,) = (work / "result/val").iterdir()
    lost.rename(lost.with_name(f".partial-{lost.name}"))
    (work / "result/conversion.json").unlink()
    inode = kept.stat().st_ino
    run(images, out)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert (target / "train" / kept.name).stat().st_ino == inode


@pytest.mark.parametrize("damage", ["picture", "file"])
def test_stored_photos_that_are_damaged_are_named(tmp_path, monkeypatch, damage):
    images, out = garden(tmp_path / "photos", {"a": 10, "z": 1}), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        run(images, out)
    shutil.rmtree(out / "tfrecords-jpeg-16x16")
    path = out / ".conversion-16x16/photos.sqlite"
    data = bytearray(path.read_bytes())
    place = data.rindex(b"\xff\xd9") - 9 if damage == "picture" else 0
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"photos\.sqlite is damaged \(.*\): remove .*16x16 and re"):
        run(images, out)

"""Conversions that are stopped, killed, kept out or refused: one goes on to the same bytes."""

import json
import os
import resource
import shutil
import signal

import filelock
import pytest

from flowerexp.data.prepare import parts, photos
from flowerexp.errors import UserError
from flowerexp.runs.log import RunLogger
from tests import forked
from tests.photo_folders import files_of, garden, picture, run, save
from tests.processes import read, wait_for


def test_a_second_one_on_the_same_folder_is_kept_out(tmp_path):
    images = garden(tmp_path / "photos", {"a": 9})
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


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_midway_it_goes_on_to_the_same_bytes(tmp_path, stop, capsys):
    images, out = tmp_path / "photos", tmp_path / "out"
    garden(images, {"a": 10, "b": parts.PART - 10})
    large = save(images / "c/0.jpg", picture(5000, 2000, 2000))
    for number in range(1, 20):  # the second part takes a while
        os.link(large, images / f"c/{number}.jpg")
    process = forked.Command(["-m", "flowerexp", "data", "from-folder", images, out, "--size", "16",
                              "--workers", "1"], tmp_path)
    wait_for(lambda: process.poll() is not None or list(out.rglob("part-*.json")))
    process.send_signal(stop)
    said, wrong = process.communicate(timeout=60)
    assert process.returncode == (130 if stop == signal.SIGINT else -stop), wrong
    assert ("interrupted: rerun the command to resume" in said) == (stop == signal.SIGINT)
    assert wrong == ""
    assert [path.name for path in out.rglob("part-*.json")] == ["part-000000.json"]
    assert not (out / "tfrecords-jpeg-16x16").exists()
    assert run(images, out)
    assert f"{parts.PART} of {parts.PART + 20} photos were converted" in capsys.readouterr().out
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


def test_a_damaged_part_is_named(tmp_path):
    images, work = garden(tmp_path / "photos", {"a": 10}), tmp_path / "work"
    every = photos.listed(images).photos
    parts.convert(every, work, 16, 1, RunLogger())
    path = parts.part_file(work, 0, ".tfrec")
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    reader = parts.Parts(work)
    with pytest.raises(UserError, match=r"part-000000\.tfrec is damaged: remove"):
        [reader.image(parts.Converted(photo, 0, row, "")) for row, photo in enumerate(every)]

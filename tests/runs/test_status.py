"""status.json: typed fields, both spellings of the provenance, and what a damaged one says."""

import json
from dataclasses import replace

import pytest

from flowerexp.errors import UserError
from flowerexp.runs.status import RunStatus


def test_a_folder_without_a_status_is_a_new_run(tmp_path):
    assert RunStatus.load(tmp_path) == RunStatus()
    assert RunStatus().state == "new"


def test_what_is_saved_is_loaded_and_what_is_unknown_is_left_out(tmp_path):
    status = RunStatus(state="failed", error="no space", epochs_done=0, pid=7,
                       provenance={"replicas": 2, "data": "content-0123456789abcdef"})
    status.save(tmp_path)
    assert RunStatus.load(tmp_path) == status
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "state": "failed", "error": "no space", "epochs_done": 0, "pid": 7,
        "provenance": {"replicas": 2, "data": "content-0123456789abcdef"}}


def test_earlier_spelling_and_keys_of_other_versions(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps(
        {"state": "done", "beginning": {"replicas": 2}, "mood": "calm"}))
    found = RunStatus.load(tmp_path)
    assert found == RunStatus(state="done", provenance={"replicas": 2}, others={"mood": "calm"})
    replace(found, epochs=3).save(tmp_path)  # an older version keeps what a newer one wrote
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "mood": "calm", "state": "done", "provenance": {"replicas": 2}, "epochs": 3}


@pytest.mark.parametrize(("text", "part"), [
    ("[]", "holds no status"), ("3", "holds no status"), ("{", "cannot be read"),
    ('{"state": "tired"}', "knows no state 'tired'"), ('{"state": null}', "state must not be None"),
    ('{"error": 5}', "error must not be 5"), ('{"epochs": "9"}', "epochs must not be '9'"),
    ('{"provenance": "x"}', "provenance must not be 'x'"), ('{"state": [1]}', "must not be [1]"),
    ('{"working_directory": 5}', "working_directory must not be 5"),
    ('{"code_path": ["a", 5]}', "code_path must not be"), ('{"data": {"train": []}}', "data must"),
    ('{"provenance": {"replicas": [1]}}', "provenance must not be"),
    ('{"beginning": [1]}', "provenance must not be [1]")])
def test_damaged_status_is_named_and_no_run_depends_on_it(tmp_path, text, part):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(UserError) as mistake:
        RunStatus.load(tmp_path)
    assert str(tmp_path / "status.json") in str(mistake.value)
    assert part in str(mistake.value)
    assert RunStatus.load_or_new(tmp_path) == RunStatus()

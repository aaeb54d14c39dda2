"""What is declared: bounded, pinned, and the same for the TPU."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines):
    found = (Requirement(line) for line in lines if line and not line.startswith(("#", "-")))
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pins():
    return requirements((ROOT / "constraints.txt").read_text().splitlines())


def test_every_dependency_is_bounded_on_both_sides_and_pinned_inside():
    declared = requirements(PROJECT["dependencies"])
    assert str(declared["tensorflow"].specifier) in (">=2.20,<2.22", "<2.22,>=2.20")
    extras = PROJECT["optional-dependencies"]
    for extra in ("launchers", "optuna", "kaggle", "dev"):
        declared |= requirements(extras[extra])
    declared.pop("flowerexp")  # the project's own extras, for its developers
    for name, requirement in declared.items():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, name
        pinned = pins()[name].specifier
        assert re.fullmatch(r"==[\w.]+", str(pinned)), name
        assert requirement.specifier.contains(str(pinned).removeprefix("==")), name


def test_the_tpu_set_is_the_same_but_for_tensorflow():
    tpu = requirements((ROOT / "requirements-tpu.txt").read_text().splitlines())
    declared = requirements(PROJECT["dependencies"])
    assert set(tpu) - {"tensorflow-tpu"} == set(declared) - {"tensorflow"}
    for name in set(tpu) & set(declared) - {"tensorboard"}:
        assert tpu[name].specifier == declared[name].specifier, name
    assert tpu["tensorflow-tpu"].specifier.contains("2.20.0")


def test_nothing_brings_a_second_tensorflow_to_a_tpu():
    """Both wheels write the module `tensorflow`; what is installed last would win."""
    tpu = requirements((ROOT / "requirements-tpu.txt").read_text().splitlines())
    for name in set(tpu) - {"tensorflow-tpu"}:
        needed = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        assert "tensorflow" not in {one.name for one in needed if not one.marker}, name
    command = ('pip install -r requirements-tpu.txt && pip install --no-deps "tf_keras==2.20.*" '
               "-e .")
    assert command in (ROOT / "requirements-tpu.txt").read_text()
    assert command in (ROOT / "README.md").read_text()


def test_no_file_names_a_package_host():
    for name in ("constraints.txt", "requirements-tpu.txt", "pyproject.toml"):
        assert "://" not in (ROOT / name).read_text()


def test_the_readme_has_its_two_commands_with_an_environment_of_their_own():
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^# (Train|Test)\b.*\n(.+)$", text, re.MULTILINE)
    assert [title for title, _ in commands] == ["Train", "Test"]
    for _, command in commands:
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")
        assert "-c constraints.txt" in command
    assert commands[0][1].endswith(".venv/bin/python run.py")
    assert ".venv/bin/python -m pytest" in commands[1][1]

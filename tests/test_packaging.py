"""What is declared: bounded, pinned, and the same for the TPU. The wheel, installed anywhere."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands of an environment with the wheel of this tree, and its environ.

    The dependencies are those of the tests' own environment, without its flowerexp.
    """
    place = tmp_path_factory.mktemp("wheel")
    tree = place / "tree"  # a build leaves files in the tree
    for name in ("flowerexp", "conf"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, tree)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index",
                    "--wheel-dir", place, tree], check=True)
    (wheel,) = place.glob("flowerexp-*.whl")
    venv.create(place / "venv", symlinks=True)
    bin_folder = place / "venv" / "bin"
    (site,) = place.glob("venv/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    subprocess.run([*pip, "--python", bin_folder / "python", "install", "--no-deps", "--no-index",
                    "--no-compile", wheel], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return bin_folder, environment | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}


def flowerexp(installed, folder, *words):
    bin_folder, environment = installed
    return subprocess.run([bin_folder / "flowerexp", *map(str, words)], cwd=folder, text=True,
                          env=environment, capture_output=True, timeout=120)


@pytest.fixture
def empty_folder(tmp_path):
    (tmp_path / "an empty folder").mkdir()
    return tmp_path / "an empty folder"


def files_below(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_every_file_of_the_package_and_of_conf(installed):
    (package,) = installed[0].parent.glob("lib/python*/site-packages/flowerexp")
    assert files_below(package) == files_below(ROOT / "flowerexp") | {
        Path("conf") / name for name in files_below(ROOT / "conf")}


def test_the_installed_command_composes_and_prints_its_own_name(installed, empty_folder):
    shown = flowerexp(installed, empty_folder, "run", "model=mobilenet", "--cfg", "job")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "name: MobileNet" in shown.stdout
    page = flowerexp(installed, empty_folder, "run", "--help").stdout
    assert "flowerexp run model=efficientnet_b7" in page
    assert "run.py" not in page
    assert "efficientnet_b3" in page
    assert flowerexp(installed, empty_folder, "--version").stdout.startswith("flowerexp 0.")
    mistake = flowerexp(installed, empty_folder, "run", "model=3")
    assert mistake.returncode == 1
    assert "flowerexp run --help" in mistake.stderr
    assert list(empty_folder.iterdir()) == []


def test_a_sweep_of_the_installed_command_with_an_option_of_ones_own(installed, empty_folder, tiny):
    """Composed, run in a process of its own and compared, all below the current folder."""
    option = empty_folder / "my conf" / "loop" / "short.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("defaults: [optimized, _self_]\nepochs: 1\nbatch_size_per_replica: 4\n")
    done = flowerexp(installed, empty_folder, "run", "-m", "--config-dir", "my conf", "loop=short",
                     "dataset=tfrecords", f"dataset.root={tiny}", "hardware=cpu", "seed=3",
                     "callbacks=none")
    assert done.returncode == 0, done.stderr
    (history,) = empty_folder.glob("outputs/**/history.json")
    assert list(json.loads(history.read_text())) == ["0"]
    table = history.parents[1] / "comparison.csv"
    assert table.read_text().count("\n") == 2
    assert not [path for path in empty_folder.iterdir() if path.name not in ("my conf", "outputs")]


COMPLETION = """
eval "$({program} -sc install=bash)"
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
words=($COMP_LINE); COMP_CWORD=$(( ${{#words[@]}} - 1 ))
hydra_bash_completion
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(("line", "expected"), [
    ("flowerexp run model=dense", "model=densenet121 model=densenet169 model=densenet201"),
    ("flowerexp run -m model=mobilenet loop.ep", "loop.epochs="),
    ("flowerexp run --config-dir own loss=m", "loss=mine"),
    ("flowerexp comp", "compare"),
    ("python run.py samp", "sampling. sampling="),
])
def test_bash_completes_groups_options_keys_and_commands(installed, tmp_path, line, expected):
    (tmp_path / "own" / "loss").mkdir(parents=True)
    (tmp_path / "own" / "loss" / "mine.yaml").touch()
    shutil.copy(ROOT / "run.py", tmp_path)
    program = "python run.py" if line.startswith("python") else "flowerexp"
    done = subprocess.run(["bash", "-c", COMPLETION.format(program=program, line=line)],
                          cwd=tmp_path, env=installed[1], capture_output=True, text=True,
                          timeout=60)
    assert done.stdout.split() == expected.split(), done.stderr

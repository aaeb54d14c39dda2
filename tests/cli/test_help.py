"""The help page, and what --help, --cfg, --version and refused commands import."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import flowerexp
from flowerexp import composition, identity

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"

PROGRAM = """
import os, runpy, sys
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as `python run.py` does
code = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    code = ended.code
print("tensorflow" in sys.modules, "keras" in sys.modules, code, file=sys.stderr)
"""


def run_main(folder, *arguments):
    """stdout of run.py, and whether TensorFlow and Keras were imported and how it ended."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, ROOT / "run.py", *arguments],
                           cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    return ended.stdout, ended.stderr.strip()


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return run_main(tmp_path_factory.mktemp("help"), "--help")


@pytest.fixture(scope="module")
def page(shown):
    return shown[0]


@pytest.fixture(scope="module")
def sections(page):
    """The indented lines below each heading of the page."""
    found, heading = {}, None
    for line in page.splitlines():
        if re.match(r"\S", line):
            heading = line.strip()
            found[heading] = []
        elif heading:
            found[heading].append(line)
    return found


def section(sections, start):
    (name,) = [name for name in sections if name.startswith(start)]
    return sections[name]


def test_help_imports_no_tensorflow(shown):
    assert shown[1] == "False False 0"


def test_hydra_itself_would_print_the_same_page(page, tmp_path):
    assert run_main(tmp_path, "seed=0", "--help")[0] == page


def test_cfg_job_prints_the_config_and_imports_no_tensorflow(tmp_path):
    printed, ended = run_main(tmp_path, "model=densenet121", "--cfg", "job")
    assert ended == "False False 0"
    composed = yaml.safe_load(printed)
    assert composed["model"]["name"] == "DenseNet121"
    assert set(composed) >= {"seed", "hardware", "dataset", "loop", "schedule", "results"}
    assert list(tmp_path.iterdir()) == []


def test_cfg_job_prints_values_where_conf_refers_to_other_keys(tmp_path):
    printed, _ = run_main(tmp_path, "experiment=original", "--cfg", "job")
    for key in ("start_lr", "max_lr", "end_lr"):
        assert f"  {key}: 1.0e-05\n" in printed
    refers, _ = run_main(tmp_path, "--cfg", "hydra")
    assert "${name}" in refers


def test_flags_may_be_between_overrides(tmp_path):
    printed, ended = run_main(tmp_path, "model=densenet121", "--cfg", "job", "seed=7")
    assert ended == "False False 0"
    composed = yaml.safe_load(printed)
    assert (composed["model"]["name"], composed["seed"]) == ("DenseNet121", 7)


@pytest.mark.parametrize("mistake", ["loop.epochs=0", "loop.epochs=x", "model=resnet"])
def test_refused_command_imports_no_tensorflow(tmp_path, mistake):
    ended = run_main(tmp_path, mistake)[1]
    assert ended.startswith("False False flowerexp: ")


def test_page_fits_a_terminal(page):
    assert [line for line in page.splitlines() if len(line) > 80] == []
    assert page.isascii()


def test_page_names_every_option_of_each_group_its_default_first(sections):
    lines = "\n".join(section(sections, "Groups and their options"))
    blocks = re.split(r"^  (?=\w)", lines, flags=re.MULTILINE)[1:]
    groups = {words[0]: words[1:] for words in (re.findall(r"[\w()]+", each) for each in blocks)}
    assert {group: set(options) - {"(none)"} for group, options in groups.items()} == {
        folder.name: {file.stem for file in folder.glob("*.yaml")}
        for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra"}
    assert [options[0] for group, options in groups.items()
            if group in ("hardware", "loss", "experiment")] == ["auto", "cross_entropy", "(none)"]


@pytest.fixture(scope="module")
def valid_keys():
    composition.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[
            "augmentation=[flip,perspective,rotation,colour,cutmix,gridmask]"])
    plain = OmegaConf.to_container(composed)
    return {*composition.known_keys(), *identity.flatten(plain)}


def test_every_key_of_the_page_is_in_the_schema(page, sections, valid_keys):
    listed = [line.strip().partition("=")[0] for line in section(sections, "Common keys")
              if re.match(r"  \S", line)]
    assert len(listed) >= 10
    assert set(listed) - valid_keys == set()
    dotted = re.findall(r"\b([a-z_]+(?:\.[a-z_]+)+)=", page)
    assert set(dotted) - valid_keys == set()


def examples(sections):
    text = re.sub(r"\\\n\s*", "", "\n".join(section(sections, "Examples")))
    return [shlex.split(line)[2:] for line in text.splitlines()
            if line.strip().startswith("python run.py")]


def test_five_example_commands_or_more(sections):
    commands = examples(sections)
    assert len({tuple(each) for each in commands}) >= 5
    assert [] in commands


def test_every_example_composes_and_checks(sections, tmp_path):
    composition.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in examples(sections):
            # Of a sweep, the first job.
            given = [re.sub(r"\b(FOLDER|FILE|NAME)\b", str(tmp_path), each).partition(",")[0]
                     for each in overrides if not each.startswith("-")]
            assert composition.check(compose("config", overrides=given)) is not None


def test_version_is_printed_without_tensorflow(tmp_path):
    assert run_main(tmp_path, "--version") == (f"flowerexp {flowerexp.__version__}\n",
                                               "False False 0")


def test_page_names_its_own_next_steps(page):
    for words in ("--cfg job", "--hydra-help", "--config-dir", "-sc install=bash", "outputs/"):
        assert words in page

"""The shape of the package: who imports whom, what imports TensorFlow, and how long things are.

Imports are read from the source. The arrows that are allowed between packages are those drawn in
docs/architecture.md, so that the picture is true.
"""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "efficientnet"}
PACKAGES = ("api", "augment", "cli", "comparison", "data", "data.prepare", "inference", "models",
            "plots", "runs", "strategy", "sweeps", "train")
ABOVE_THE_GROUND = ("composition", "eda")
"""Modules at the top level that import packages, and are drawn; the others are the ground."""
WITHOUT_FRAMEWORKS = ("api", "augment", "cli", "comparison", "plots", "runs", "sweeps", "ground",
                      "composition", "data.sampling", "data.batching", "strategy.factory")
"""Packages and modules whose import does not import TensorFlow: arrays and files suffice."""

FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
         for path in sorted((ROOT / "flowerexp").rglob("*.py"))}
"""Module -> its file."""
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(tree, everywhere=True):
    """The modules that a module imports; without `everywhere`, those that importing it imports."""
    nodes = list(ast.walk(tree)) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in FILES else node.module


def place(module):
    """The node of the picture in which a module is drawn."""
    inside = module.removeprefix("flowerexp").lstrip(".")
    if inside in ("", "__main__"):
        return {"": "api", "__main__": "cli"}[inside]
    for package in sorted(PACKAGES, key=len, reverse=True):
        if inside == package or inside.startswith(f"{package}."):
            return package.rpartition(".")[2]
    return inside if inside in ABOVE_THE_GROUND else "ground"


def arrows(trees):
    """Node of the picture -> the nodes that it imports, anywhere in its modules."""
    found = {}
    for module, tree in trees.items():
        here = place(module)
        there = found.setdefault(here, set())
        # The root module is imported for __version__ alone.
        there |= {place(name) for name in imports(tree)
                  if name in FILES and name != "flowerexp"} - {here}
    return found


def drawn():
    """The arrows of the picture, without those to the ground."""
    picture = re.search(r"```mermaid\n(.+?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return {source: set(re.findall(r"\w+", targets))
            for source, targets in re.findall(r"^ *(\w+) --> (.+)$", picture[1], re.MULTILINE)}


def without_ground(found):
    return {node: there - {"ground"} for node, there in found.items() if there - {"ground"}}


def test_packages_import_each_other_as_drawn():
    assert without_ground(arrows(TREES)) == drawn()


def test_the_ground_imports_nothing_above_it():
    assert arrows(TREES)["ground"] == set()


def test_there_is_no_circle_between_packages():
    order = tuple(TopologicalSorter(drawn()).static_order())  # raises CycleError
    assert {*drawn()} <= {*order}


def test_there_is_no_circle_between_modules_that_are_imported_together():
    graph = {module: {name for name in imports(tree, everywhere=False) if name in FILES}
             for module, tree in TREES.items()}
    packages = {module for module, path in FILES.items() if path.name == "__init__.py"}
    graph = {module: there - packages for module, there in graph.items()
             if module not in packages}
    assert {*graph} <= {*TopologicalSorter(graph).static_order()}  # raises CycleError


def test_an_import_that_is_not_drawn_is_seen():
    wrong = {**TREES, "flowerexp.runs.store": ast.parse(
        "def late():\n    from flowerexp.train import trainer")}
    assert "train" in arrows(wrong)["runs"]
    assert without_ground(arrows(wrong)) != drawn()


def imported_with(module):
    """Every module that is imported when `module` is."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        for each in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
            if each not in found:
                found.add(each)
                if each in TREES:
                    waiting.extend(imports(TREES[each], everywhere=False))
    return found


@pytest.mark.parametrize("place_or_module", WITHOUT_FRAMEWORKS)
def test_no_framework_is_imported_for_arrays_and_files(place_or_module):
    modules = [module for module in FILES if module == f"flowerexp.{place_or_module}"
               or place(module) == place_or_module]
    assert modules
    assert {module: imported_with(module) & FRAMEWORKS for module in modules} == {
        module: set() for module in modules}


@pytest.mark.parametrize("module", FILES)
def test_files_and_functions_are_short(module):
    length = FILES[module].read_text(encoding="utf-8").count("\n")
    assert length <= MOST_LINES
    functions = [node for node in ast.walk(TREES[module])
                 if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert {name: lines for name, lines in lengths.items()
            if lines > MOST_LINES_OF_A_FUNCTION} == {}


def test_the_readme_has_a_line_for_every_package_and_module_of_the_root():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## Code layout\n.*?```\n(.+?)```", text, re.DOTALL)[1]
    listed = re.findall(r"^ +(\w+(?:/\w+)*/|\w+\.py) ", tree, re.MULTILINE)
    modules = {path.name for path in (ROOT / "flowerexp").glob("*.py")} - {"__main__.py"}
    packages = {package.replace(".", "/") + "/" for package in PACKAGES}
    assert set(listed) >= modules | packages
    names = {path.parent for path in FILES.values() if path.name == "__init__.py"}
    assert names - {ROOT / "flowerexp"} == {ROOT / "flowerexp" / name for name in packages}
    for name in listed:
        assert (ROOT / "flowerexp" / name).exists() or (ROOT / name).exists(), name

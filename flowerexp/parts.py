"""The parts of a run: classes named by `_target_` and constructed with the other keys of the node.

    # conf/loss/focal.yaml
    _target_: flowerexp.models.losses.Focal
    gamma: 2.0

This module constructs every part, built-in or the user's own. A built-in part is a dataclass,
constructed, and so validated, with the config. A part of another package is imported on first use,
never because a run folder names it (`check_trusted`). No TensorFlow here.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowerexp.config import TYPED
from flowerexp.errors import UserError, first_line
from flowerexp.hints import hint

TARGET = "_target_"

OWN = {"dataset": "flowerexp.data.sources", "model": "flowerexp.models.backbones",
       "model.head": "flowerexp.models.heads", "sampling": "flowerexp.data.sampling",
       "augmentation": "flowerexp.augment", "schedule": "flowerexp.models.schedules",
       "optimizer": "flowerexp.models.optimizers", "loss": "flowerexp.models.losses",
       "callbacks": "flowerexp.train.callbacks", "metrics": "flowerexp.metrics"}
"""Config group -> the module, or package of modules, of its built-in parts."""
CALLS = {"dataset": "source()", "model": "backbone(image_size)",
         "model.head": "head(features, num_classes)",
         "sampling": "sampler(labels, seed, epoch, draw)",
         "augmentation": "transform(images, keys) or mix(images, keys, micro_batch)",
         "schedule": "schedule(updates)", "optimizer": "optimizer(learning_rate)",
         "loss": "loss(labels, logits, class_counts)", "callbacks": "on_update(state)",
         "metrics": "metric(confusion, labels, probabilities)"}
"""Config group -> how its parts are called."""
KERAS = {"optimizer": ("keras.optimizers", "tf_keras.optimizers"),
         "augmentation": ("keras.layers", "tf_keras.layers")}
"""Config group -> modules of Keras whose classes can be parts directly."""

LOADERS = ("TFSMLayer", "Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
"""Layers of Keras that run code which their arguments name."""


def names_objects(value: Any) -> bool:
    """Whether an argument holds a mapping, by which Keras names any module's objects."""
    return isinstance(value, Mapping) or (isinstance(value, list | tuple)
                                          and any(map(names_objects, value)))


@dataclass(frozen=True)
class Part:
    """A part of Keras or of the user, which is imported when it is built."""

    group: str
    """Its place in the config, for example `loss` or `augmentation.noise`."""
    target: str
    """The import path of a class or another callable."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of its constructor."""

    def __str__(self) -> str:
        return f"{self.group} ({self.target})"

    @property
    def is_of_keras(self) -> bool:
        modules = KERAS.get(self.group.partition(".")[0], ())
        module, _, name = self.target.rpartition(".")
        return (module in modules and name[:1].isupper() and name not in LOADERS
                and not any(map(names_objects, self.keys.values())))

    @property
    def factory(self) -> Callable[..., Any]:
        """The object that the target names; importing it runs its module."""
        return locate(self.group, self.target)

    @functools.cached_property
    def instance(self) -> Any:
        """The object, constructed with the keys on first use."""
        return self.build()

    def build(self, **arguments: Any) -> Any:
        """The object, constructed with the keys and `arguments`.

        Raises:
            UserError: for a target that cannot be imported, keys that it does not take, or
                whatever its constructor raises.
        """
        self.check_signature(**arguments)
        with failures_named(self):
            return self.factory(**self.keys, **arguments)

    def check_signature(self, **arguments: Any) -> None:
        """Raises UserError for arguments that the constructor does not take or never gets."""
        try:
            signature = inspect.signature(self.factory)
        except ValueError:  # a builtin that does not tell its signature
            return
        cls, own = TYPED.get(self.group, (None, None))
        for each in dataclasses.fields(cls) if cls else ():
            if each.name in signature.parameters and each.name != own:
                raise UserError(f"{self} takes {each.name}, but {self.group}.{each.name} is a key "
                                "of the run and would not reach it: rename that argument")
        try:
            signature.bind(**self.keys, **arguments)
        except TypeError as error:
            raise UserError(f"{self}: {first_line(error)}; it is constructed with its keys, and "
                            f"its signature is {signature}") from error


@contextlib.contextmanager
def failures_named(part: Any) -> Iterator[None]:
    """Converts any exception of a user's part into a UserError that names the part."""
    try:
        yield
    except Exception as error:
        if not isinstance(part, Part):
            raise
        if isinstance(error, UserError) and str(error).startswith(str(part)):  # named inside
            raise
        if isinstance(error, UserError):
            raise UserError(f"{part}: {error}") from error
        call = CALLS.get(part.group) or CALLS[part.group.partition(".")[0]]
        expected = f"; it is called as {call}" * isinstance(error, TypeError)
        raise UserError(f"{part} failed: {type(error).__name__}: {first_line(error)}{expected} "
                        "(the traceback: HYDRA_FULL_ERROR=1, and a run's run.log)") from error


def is_own(part: Any) -> bool:
    """Whether a part is the user's, neither built in nor of Keras."""
    return isinstance(part, Part) and not part.is_of_keras


def check(group: str, node: Any) -> Any:
    """Converts a config node to its part: a built-in one is constructed, others become a `Part`.

    Raises:
        UserError: for a node without `_target_`, a built-in part that does not exist, or a key or
            value that it rejects.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get(TARGET), str):
        raise UserError(f"{group} must name its class: give {group}.{TARGET}=package.module.Class "
                        "and the class's keys beside it")
    target, keys = node[TARGET], {key: node[key] for key in node if key != TARGET}
    check_plain(group, keys)
    for key in keys:
        if str(key).startswith("_") and str(key).endswith("_"):
            raise UserError(f"{group}.{key} is not supported: a part has {TARGET} and the keys of "
                            "its constructor")
    if target.partition(".")[0] != "flowerexp":
        return Part(group, target, keys)
    return construct(group, built_in(group, target), keys)


def check_plain(key: str, value: Any) -> None:
    """Raises UserError for a value that the JSON of a checkpoint would not give back."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_plain(f"{key}.{name}", inner)
        return
    try:
        kept = orjson.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):  # bytes, infinity, NaN
        kept = ...
    if kept != value:
        raise UserError(f"{key}={value!r} cannot be recorded with the run: give a finite number of "
                        "64 bits, a text, true, false, null, or a list or mapping of these")


def built_in(group: str, target: str) -> type:
    """The class of a built-in part; raises UserError for any other target."""
    module, _, name = target.rpartition(".")
    package = OWN.get(group) or OWN[group.partition(".")[0]]
    found = None
    if f"{module}.".startswith(f"{package}."):
        with contextlib.suppress(ModuleNotFoundError):
            found = vars(importlib.import_module(module)).get(name)
    # Only a dataclass defined in that module: a config must not call any other function.
    if not (dataclasses.is_dataclass(found) and isinstance(found, type)
            and found.__module__ == module):
        raise UserError(f"{group}.{TARGET}={target} does not exist: the built-in parts are in "
                        f"{package}, and each option of {group.partition('.')[0]} names its own")
    return found


def construct(group: str, cls: type, keys: Mapping[str, Any]) -> Any:
    """An instance of a part's dataclass; raises UserError for the first wrong key or value."""
    names = [each.name for each in dataclasses.fields(cls) if each.init]
    for key in keys:
        if key not in names:
            known = [f"{group}.{name}" for name in names]
            raise UserError(f"unknown key {group}.{key}{hint(f'{group}.{key}', known)} "
                            f"({cls.__name__} takes {', '.join(names) or 'no key'})")
    node = OmegaConf.structured(cls)
    OmegaConf.set_readonly(node, False)
    try:
        return OmegaConf.to_object(OmegaConf.merge(node, dict(keys)))
    except UserError as error:
        raise UserError(f"{group}.{error}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{group}.{getattr(error, 'full_key', None) or ''}: "
                        f"{first_line(error)}") from error


def built(part: Any) -> Any:
    """The object of a part; one of another package is constructed now, once."""
    return part.instance if isinstance(part, Part) else part


def try_all(chosen: Iterable[Any]) -> None:
    """Constructs every part and throws it away: a wrong one is found before any data is read.

    The run's own are constructed later, when its seed and precision are set.
    """
    for part in chosen:
        if not isinstance(part, Part):
            continue
        rate = {"learning_rate": 0.0} if part.group == "optimizer" and inspect.isclass(
            part.factory) and "learning_rate" in inspect.signature(part.factory).parameters else {}
        if rate or part.is_of_keras:
            part.check_signature(**rate)
        else:
            part.build()


def locate(group: str, target: str) -> Callable[..., Any]:
    """The callable at an import path; raises UserError if it cannot be imported or called."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises on import
        raise UserError(f"{group}.{TARGET}={target} cannot be imported ({first_line(error)}): a "
                        "part is named by package.module.Class, and its file lies in the folder "
                        "that holds the --config-dir, or is installed") from error
    if not callable(found):
        raise UserError(f"{group}.{TARGET}={target} must be a class or a function, not "
                        f"{type(found).__name__}")
    factory: Callable[..., Any] = found
    return factory


def plain(part: Any) -> dict[str, Any]:
    """The config node of a part: `_target_` and its keys."""
    if isinstance(part, Part):
        return {TARGET: part.target, **part.keys}
    cls = type(part)
    return {TARGET: f"{cls.__module__}.{cls.__qualname__}",
            **{each.name: getattr(part, each.name) for each in dataclasses.fields(part)
               if each.init}}


def replace(part: Any, **keys: Any) -> Any:
    """A copy of the part with other values of some of its keys."""
    if not isinstance(part, Part):
        names = {each.name for each in dataclasses.fields(part)}
        return dataclasses.replace(part, **{key: value for key, value in keys.items()
                                            if key in names})
    present = {key: value for key, value in keys.items() if key in part.keys}
    return dataclasses.replace(part, keys={**part.keys, **present})


def name(part: Any) -> str:
    """A part's name in sentences and tables: `cross_entropy` for CrossEntropy."""
    if isinstance(part, Part):
        return part.target.rpartition(".")[2]
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", type(part).__name__).lower()


def describe(part: Any) -> str:
    """A part in a sentence: its name, and its `str` if it defines one."""
    text = str(built(part))
    words = "" if text.startswith((f"{type(built(part)).__name__}(", "<")) else f", {text}"
    return (part.target if isinstance(part, Part) else name(part)) + words


def check_trusted(chosen: Iterable[Any], trust_code: bool) -> None:
    """Raises UserError for the first part of a run folder that is neither built-in nor of Keras."""
    for part in () if trust_code else chosen:
        if is_own(part):
            raise UserError(f"the run uses code of its own, {part.group}.{TARGET}={part.target}: "
                            "look at it, and give --trust-code (in Python trust_code=True) to "
                            "run it")


def code_folder(part: Part) -> Path | None:
    """The folder from which the module of a part is imported; it is looked up, not imported."""
    try:
        spec = importlib.util.find_spec(part.target.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    place = next(iter(spec.submodule_search_locations or ()), None) or spec.origin
    return Path(place).resolve().parent if place else None


def add_import_paths(folders: Iterable[str]) -> None:
    """Lets this process import the modules of these folders."""
    sys.path.extend(folder for folder in folders if folder not in sys.path)


def source_hash(part: Part) -> str:
    """The first 16 digits of a SHA-256 of a part's module and of the user's modules that it
    imports, directly or not: those of the same folder, or of the same installed package. This
    project's own are left out, because its version and commit are recorded.
    """
    folder, module = code_folder(part), part.target.rpartition(".")[0]
    if folder is None:
        return "not found"
    installed = folder.name in ("site-packages", "dist-packages")
    waiting, found = [module], dict[str, bytes]()
    while waiting:
        name = waiting.pop()
        path, top = folder.joinpath(*name.split(".")), name.partition(".")[0]
        file = next((each for each in (path / "__init__.py", path.with_suffix(".py"))
                     if each.is_file()), None)
        if file is None or name in found or top == "flowerexp" or (
                installed and top != module.partition(".")[0]):
            continue
        found[name] = file.read_bytes()
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for imported in (package, *imported_modules(found[name], package)):
            waiting += itertools.accumulate(imported.split("."), "{}.{}".format)
    digest = hashlib.sha256()
    for name, source in sorted(found.items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()[:16]


def imported_modules(source: bytes, package: str) -> Iterator[str]:
    """Absolute names of a module's imports; for `from x import y` both x and x.y."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # importing it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package.split(".")[:len(package.split(".")) - node.level + 1]
                base = ".".join([*kept, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)

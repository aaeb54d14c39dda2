"""Connects Hydra and the schema: composes, checks and names configs, and explains errors.

`register` gives Hydra the schema, `check` turns a composed config into a `Config`, `explain` turns
errors of Hydra and OmegaConf into one sentence. No TensorFlow here.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, errors

from flowerexp import augment, identity, parts
from flowerexp.config import NAMED_PARTS, PARTS, TYPED, Common, Config, Schema, checked_name
from flowerexp.errors import UserError, first_line, printable
from flowerexp.hints import hint, nearest
from flowerexp.models import backbones

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader, several times as fast as OmegaConf's and equivalent for its files."""
TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""Whether the user set the variable; flowerexp.cli.run sets it later, so that Hydra raises."""

STRUCTURED = re.compile(r"""[][{}'"\\]|(^|,)\s*[A-Za-z_]\w*\s*\(""")
"""Matches the value of an override that is not plain text: brackets, quotes, function calls."""

RESERVED = ("loss", "acc", "recall", "precision", "f1", "head", "medium", "tail", "epoch")
"""Names of the numbers in histories and tables."""
TEXT_KEYS = ("name", "dataset.root", "dataset.class_names", "dataset.groups",
             "dataset.import_dir", "dataset.columns.path", "dataset.columns.label",
             "dataset.columns.group", "dataset.columns.split", "model.weights",
             "hardware.tpu_name")
PATTERN_KEYS = ("dataset.group_pattern",)
"""Keys of regular expressions, whose brackets and commas mean nothing to Hydra."""
ALIASES = {"data.exif": "dataset.exif"}
"""Other spellings of keys on the command line."""
LITERAL = re.compile(r"[-+]?[\d_]*\.?[\d_]+([eE][-+]?\d+)?\.?|true|false|inf|nan", re.I)
"""A value that Hydra would read as a number or a truth value."""
DECIMAL = re.compile(r"[-+]?(?=\d*[.eE])(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def register() -> None:
    """Registers the schema of the root config and the resolvers that name folders."""
    ConfigStore.instance().store(name="schema", node=Schema)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)


def check(composed: DictConfig) -> Config:
    """Converts a composed config to a typed one; raises UserError for the first wrong key.

    Plain values are merged into the schema once more, because `+key=value` bypasses it. Built-in
    parts are constructed; others become `parts.Part`, and their modules are not imported.
    """
    for key in sorted(OmegaConf.missing_keys(composed)):
        value = "FOLDER" if key.endswith(".root") else "VALUE"
        raise UserError(f"{key} has no value and needs one: give {key}={value}")
    try:
        plain: Any = OmegaConf.to_container(composed, resolve=True)
        nodes = identity.current(plain)
        for group, (cls, part) in TYPED.items():
            node = nodes.get(group)
            node = dict(node) if isinstance(node, Mapping) else {}
            typed = {each.name: node.pop(each.name) for each in dataclasses.fields(cls)
                     if each.name in node and each.name != part}
            nodes[group] = {**typed, part: node}
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), nodes))
    except errors.OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, Config)
    for group, (_, part) in TYPED.items():
        holder = getattr(config, group)
        setattr(holder, part, parts.check(group, getattr(holder, part)))
    config.model.head = parts.check("model.head", config.model.head)
    for group in PARTS:
        setattr(config, group, parts.check(group, getattr(config, group)))
    for group in NAMED_PARTS:
        setattr(config, group, {name: parts.check(f"{group}.{name}", node)
                                for name, node in getattr(config, group).items()})
    backbones.check_scaling(config.model)
    augment.check_transforms(config.augmentation)
    stops = any(parts.name(part) == "early_stopping" for part in config.callbacks.values())
    if config.loop.patience is not None and not stops:
        raise UserError("loop.patience needs the callback early_stopping, which this command does "
                        "not choose: add callbacks=[early_stopping,...]")
    check_held_out(config)
    for name in config.metrics:
        if name in RESERVED:
            raise UserError(f"metrics.{name} has the name of a number that every run has: choose "
                            f"another than {', '.join(RESERVED)}")
    return config


def check_held_out(config: Config) -> None:
    """Raises UserError for keys that need validation images where all are trained on."""
    if config.train_on != "all":
        return
    patience = any(getattr(part, "patience", None) is not None
                   for part in config.callbacks.values())
    needing = {"loop.patience": config.loop.patience is not None or patience,
               "results.use=best": config.results.use == "best",
               "dataset.validation": config.dataset.validation is not None,
               "dataset.folds": config.dataset.folds is not None}
    if named := [key for key, is_set in needing.items() if is_set]:
        raise UserError(f"train_on=all holds out no validation images, which {named[0]} needs: "
                        "leave one of them out")


def run_name(name: str | None, seed: int, overrides: list[str],
             unnamed: Sequence[str] = ()) -> str:
    """The name of a run's folder, below outputs/ or below the folder of its sweep.

    It joins the experiment, the changed keys in alphabetical order and the seed.

    Args:
        name: the user's choice, which is returned unchanged.
        overrides: the overrides of the command or the job.
        unnamed: keys to leave out, because all jobs of a sweep share them.

    Raises:
        UserError: for a name that cannot be a folder, before Hydra creates it.
    """
    if name is not None:
        return checked_name(name)
    values = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    experiment = values.pop("experiment", "")
    changed = [f"{key}={short_number(values[key])}" for key in sorted(values)
               if key not in (*identity.PLACE_KEYS, *identity.TIME_KEYS, *unnamed, "seed", "sweep")]
    words = ([experiment] if experiment else []) + changed or ["default"]
    return f"{path_safe('+'.join(words))}+seed={seed}"


def short_number(value: str, longest: int = 16) -> str:
    """A decimal number of more than `longest` characters as four digits and a hash, the same for
    every spelling of the number; any other value as it is.
    """
    if len(value) <= longest or not DECIMAL.fullmatch(value):
        return value
    exact = repr(float(value))
    return exact if len(exact) <= longest else f"{float(value):.4g}-{short_hash(exact)}"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def sweep_name(name: str | None, sweep: str | None, overrides: list[str],
               params: Mapping[str, str] | None) -> str:
    """The name of a sweep's folder below outputs/: the given one, its option, or its swept keys."""
    if name is not None:
        return checked_name(name)
    return sweep or path_safe("+".join(swept_keys(overrides, params))) or "default"


def swept_keys(overrides: Sequence[str], params: Mapping[str, str] | None) -> list[str]:
    """The keys that take several values, in alphabetical order; see `sweep_overrides`."""
    return sorted(key.lstrip("+~") for key, override in sweep_overrides(overrides, params).items()
                  if override.is_sweep_override())


def sweep_overrides(overrides: Sequence[str], params: Mapping[str, str] | None
                    ) -> dict[str, Override]:
    """The parsed overrides of a sweep by key.

    Args:
        overrides: the overrides of the command line.
        params: the params of the sweeper's config; the command line takes precedence.
    """
    texts = [*(f"{key}={value}" for key, value in (params or {}).items()), *overrides]
    return {override.get_key_element(): override
            for override in OverridesParser.create().parse_overrides(texts)}


def path_safe(text: str, longest: int = 80) -> str:
    """`text` as the name of a folder: characters other than [A-Za-z0-9._=+-] become `-`.

    A name of more than `longest` characters is cut and ends with a hash of the text.
    """
    safe = re.sub(r"[^A-Za-z0-9._=+-]+", "-", text).lstrip(".-")
    if len(safe) <= longest:
        return safe
    return f"{safe[:longest - 9]}-{short_hash(text)}"


def quoted(overrides: Sequence[str]) -> list[str]:
    """The overrides with quotes around each plain value that Hydra's grammar rejects.

    For example `outputs/model=mobilenet+seed=0/best.h5`. Commas separate values of a sweep, as
    usual.
    """
    parser = OverridesParser.create()

    def quote(value: str, is_text: bool) -> str:
        if is_text and LITERAL.fullmatch(value):  # 1.10 is a name or a path, not a number
            return f"'{value}'"
        try:
            parser.parse_override(f"key={value}")
        except HydraException:
            return f"'{value}'"
        return value

    def one(override: str) -> str:
        key, equals, value = override.partition("=")
        key = ALIASES.get(key, key)
        override = key + equals + value
        if key.lstrip("+") in PATTERN_KEYS and value[:1] not in ("'", '"') and value != "null":
            escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + "\\'" * bool(match[2]),
                             value)
            return f"{key}='{escaped}'"
        if STRUCTURED.search(value) or not value.isprintable():
            return override
        is_text = key.lstrip("+") in TEXT_KEYS
        return key + equals + ",".join(quote(each, is_text) for each in value.split(","))

    return [one(override) for override in overrides]


def check_group_overrides(overrides: Sequence[str]) -> None:
    """Raises UserError for GROUP=VALUE whose value cannot name an option.

    Hydra raises a plain ValueError for it, which cannot be told from a bug.
    """
    options = [override for override in overrides if "=" in override]
    for override in OverridesParser.create().parse_overrides(options):
        group = override.key_or_group
        if (override.is_sweep_override() or override.is_delete()
                or not (group == "" or (conf_folder() / group).is_dir())):
            continue
        if not isinstance(override.value(), str | list | dict):
            raise UserError(f"{override.input_line} chooses no option: write {group or 'GROUP'}="
                            f"OPTION (to list them: {run_command()} --help)")


def check_sweep_level_keys(overrides: Sequence[str]) -> None:
    """Raises UserError for a sweep-level key in the command of a single run."""
    if any(override.lstrip("+").startswith("on_failure=") for override in overrides):
        raise UserError("on_failure is supported in a sweep only: add -m or sweep=NAME, or leave "
                        "it out")


def add_import_path(config_dir: Path) -> None:
    """Lets this process and its children import the modules next to the user's `--config-dir`.

    Its options name classes of these modules. Installed modules of the same name take precedence.
    """
    if not config_dir.is_dir():
        raise UserError(f"--config-dir={config_dir} does not exist: give the folder that holds "
                        "GROUP/OPTION.yaml")
    folder = str(config_dir.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (os.environ.get("PYTHONPATH"), folder)))


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Exits with one sentence for a mistake of the user; a bug keeps its traceback.

    With HYDRA_FULL_ERROR=1 in the environment, a mistake of the user shows its traceback too.
    """
    try:
        yield
    except (UserError, HydraException, errors.OmegaConfBaseException, OSError,
            KeyboardInterrupt) as error:
        if TRACEBACKS:
            raise
        sys.exit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt)
                 else f"flowerexp: {printable(explain(error))}")


def for_hydra(overrides: Sequence[str], config_dir: Path | None = None) -> list[str]:
    """Overrides in the form that Hydra takes: quoted, checked, with the user's own options.

    Args and errors: see `compose`.
    """
    given = quoted(overrides)
    check_group_overrides(given)
    if config_dir is None:
        return given
    add_import_path(config_dir)
    path = str(config_dir.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{path}']", *given]


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """Composes a config outside of `flowerexp run`; call `register` first.

    Args:
        config_dir: the user's own options, like `--config-dir`.

    Raises:
        UserError: for a config_dir that does not exist; Hydra and OmegaConf raise other errors.
    """
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra_compose("config", for_hydra(overrides, config_dir))


def explain(error: BaseException) -> str:
    """One sentence for an error of Hydra or OmegaConf, with the nearest valid name."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    ours = [str(link) for link in chain if isinstance(link, UserError)]  # raised by a resolver too
    return next(filter(None, [*ours, *map(explain_alone, chain)]), first_line(error))


def explain_alone(error: BaseException) -> str | None:
    """The sentence of one error in a chain, if it is of a kind that has one."""
    text, key = first_line(error), str(getattr(error, "full_key", None) or "")
    match error:
        case MissingConfigException() if "/" in str(error.missing_cfg_file):
            group, _, option = str(error.missing_cfg_file).rpartition("/")
            options = sorted(error.options or option_files(group))
            return (f"{group}={option} does not exist: {group} is one of {', '.join(options)}"
                    + nearest(option, options))
        case OverrideParseException():
            return (f"the override {error.override} cannot be read: write key=value, and quote a "
                    "value with commas, brackets or quotes: \"key='a, b'\"")
        case OSError():
            return f"{error.filename}: {error.strerror}" if error.filename else text
        case errors.ConfigAttributeError() | errors.ConfigKeyError():
            return unknown_key(key)
        case errors.InterpolationResolutionError():
            return f"{key} refers to another key that does not resolve: {text}"
        case errors.ValidationError():
            return f"{key}: {text}"
    if present := re.match(r"Could not append .* already at '(.+?)'|Multiple values for (.+?)\. ",
                           f"{text} "):
        return f"{present[1] or present[2]} is in the config already: set it once, without a +"
    return f"{text}: several values are a sweep, add -m" if "Ambiguous value" in text else None


def option_files(group: str) -> dict[str, list[str]]:
    """The options of a group in conf/, and the dotted keys of each."""
    return {path.stem: list(identity.flatten(yaml.load(path.read_bytes(), YAML_LOADER)))
            for path in sorted((conf_folder() / group).glob("*.yaml"))}


def unknown_key(key: str) -> str:
    """The sentence for a key that the composed config does not have."""
    group, _, rest = key.partition(".")
    options = option_files(group) if rest else {}
    having = [option for option, keys in options.items() if rest in keys or rest == option]
    if having:
        return f"{key} needs {group}={' or '.join(having)}, which this command does not choose"
    return f"unknown key {key}{hint(key, known_keys())} (all keys: {run_command()} --cfg job)"


def known_keys() -> list[str]:
    """The groups, the keys of the schema, and those of the options of every part."""
    keys = [*vars(Schema()), *identity.flatten(dataclasses.asdict(Common())), "experiment", "sweep"]
    for group, (cls, part) in TYPED.items():
        keys += [f"{group}.{each.name}" for each in dataclasses.fields(cls) if each.name != part]
    for group in (*TYPED, *PARTS, *NAMED_PARTS):
        for option in option_files(group).values():
            keys += [f"{group}.{key}" for key in option]
    return list(dict.fromkeys(keys))


def conf_folder() -> Path:
    """The folder of the config groups: in the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.with_name("conf")


def run_command() -> str:
    """The command that starts a run: `python run.py` in a checkout, otherwise `flowerexp run`."""
    if Path(sys.argv[0]).name != "flowerexp" and conf_folder().with_name("run.py").exists():
        return "python run.py"
    return "flowerexp run"

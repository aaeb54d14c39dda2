"""The identity of a run: the config keys that can change its numbers, and how two runs differ.

Also upgrades configs of the first version, which named parts by `kind` and not by `_target_`.
No TensorFlow here.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from flowerexp import parts
from flowerexp.config import Config, Hardware, Loop, ResultsOptions

PLACE_KEYS = ("name", "fresh", "compared_with", "dry_run", "on_failure")
"""Keys for a run's folder, baselines and sweep, which are not part of its identity."""
TIME_KEYS = ("loop.checkpoint_minutes", "loop.max_minutes")
"""Keys left out of names, so that a run with another quota resumes in its folder."""
INERT_KEYS = ("dataset.root", "dataset.cache", "dataset.memory_gb", "loop.log_interval",
              "model.summary", *TIME_KEYS)
"""Keys that cannot change a run's numbers; the data are compared by their fingerprint."""
STREAM_KEYS = ("dataset.cache", "dataset.memory_gb")
"""The ones among these that affect the order of a run that streams from its files."""

FIRST_VERSION: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "dataset": ("kind", {"auto": "flowerexp.data.sources.Auto",
                         "sample": "flowerexp.data.sources.Sample",
                         "flowers": "flowerexp.data.sources.Flowers",
                         "tfrecords": "flowerexp.data.sources.TFRecords"}),
    "model": ("source", {"flowerexp": "flowerexp.models.backbones.SmallCNN",
                         "keras": "flowerexp.models.backbones.KerasApplication",
                         "efficientnet": "flowerexp.models.backbones.EfficientNet"}),
    "sampling": ("kind", {"original": "flowerexp.data.sampling.Original",
                          "oversample": "flowerexp.data.sampling.Oversample",
                          "class_weight": "flowerexp.data.sampling.ClassWeight"}),
    "schedule": ("kind", {"constant": "flowerexp.models.schedules.Constant",
                          "exponential": "flowerexp.models.schedules.Exponential",
                          "linear": "flowerexp.models.schedules.Linear",
                          "cosine": "flowerexp.models.schedules.Cosine"}),
    "optimizer": ("kind", {"adam": "flowerexp.models.optimizers.Adam",
                           "adamw": "flowerexp.models.optimizers.AdamW",
                           "sgd": "flowerexp.models.optimizers.SGD"}),
    "loss": ("kind", {"cross_entropy": "flowerexp.models.losses.CrossEntropy",
                      "focal": "flowerexp.models.losses.Focal",
                      "logit_adjusted": "flowerexp.models.losses.LogitAdjusted"}),
}
"""Group -> the key that named its part in the first version, and the targets of its values.

Runs are still compared by these values: `loss.kind` is `focal`.
"""
TRANSFORMS: Mapping[str, str] = {
    "perspective": "geometric.Perspective", "flip": "geometric.Flip",
    "rotation": "geometric.Rotation", "colour": "color.ColorJitter", "cutmix": "mixing.CutMix",
    "mixup": "mixing.MixUp", "gridmask": "erasing.GridMask"}
"""The transforms of the first version, in flowerexp.augment."""
EARLY_STOPPING = "flowerexp.train.callbacks.EarlyStopping"
CALLBACKS = {
    "tensorboard": {parts.TARGET: "flowerexp.train.callbacks.TensorBoard"},
    "early_stopping": {parts.TARGET: EARLY_STOPPING},
    "figures": {parts.TARGET: "flowerexp.train.callbacks.Figures"}}
"""The callbacks of every run of the first version."""
HEAD = "flowerexp.models.heads.Pooled"
"""The head of the first version, and the default."""


def current(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Upgrades a config, as nested dicts: its parts are named by `_target_`, not by kind."""
    upgraded = dict(plain)
    for group, (key, targets) in FIRST_VERSION.items():
        node = plain.get(group)
        if isinstance(node, Mapping) and parts.TARGET not in node and str(node.get(key)) in targets:
            kept = {name: value for name, value in node.items()
                    if name != key and value is not None}
            upgraded[group] = {parts.TARGET: targets[node[key]], **kept}
            if group == "model":
                upgraded[group].setdefault("head", {parts.TARGET: HEAD})
    if "callbacks" not in plain and "loop" in plain:
        loop = plain["loop"]
        patience = loop.get("patience") if isinstance(loop, Mapping) else None
        upgraded["callbacks"] = {**CALLBACKS, "early_stopping": {
            **CALLBACKS["early_stopping"], "patience": patience}}
    transforms = plain.get("augmentation")
    if isinstance(transforms, Mapping):
        upgraded["augmentation"] = {
            name: {parts.TARGET: f"flowerexp.augment.{TRANSFORMS[name]}", **node}
            if name in TRANSFORMS and isinstance(node, Mapping) and parts.TARGET not in node
            else node for name, node in transforms.items()}
    return upgraded


def plain(config: Config) -> dict[str, Any]:
    """The config as nested dicts, as Hydra composes them: the inverse of `composition.check`."""
    nodes = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    for name, node in nodes.items():
        if isinstance(node, Hardware | Loop | ResultsOptions):
            nodes[name] = dataclasses.asdict(node)
    model, optimizer = dict(vars(config.model)), dict(vars(config.optimizer))
    dataset = dict(vars(config.dataset))
    nodes["dataset"] = parts.plain(dataset.pop("source")) | dataset
    nodes["model"] = (parts.plain(model.pop("backbone")) | model
                      | {"head": parts.plain(config.model.head)})
    nodes["optimizer"] = parts.plain(optimizer.pop("algorithm")) | optimizer
    for name in ("sampling", "schedule", "loss"):
        nodes[name] = parts.plain(nodes[name])
    for group in ("augmentation", "callbacks", "metrics"):
        nodes[group] = {name: parts.plain(part) for name, part in nodes[group].items()}
    return nodes


def all_parts(config: Config) -> Iterator[Any]:
    """The parts of a run."""
    yield from (config.dataset.source, config.model.backbone, config.model.head, config.sampling,
                config.schedule, config.optimizer.algorithm, config.loss)
    for group in (config.augmentation, config.callbacks, config.metrics):
        yield from group.values()


def sources(config: Config) -> dict[str, str]:
    """`source of loss (my.Loss)` -> a hash of the code, for each of the user's own parts."""
    return {f"source of {part}": parts.source_hash(part) for part in all_parts(config)
            if isinstance(part, parts.Part) and not part.is_of_keras}


def code_path(config: Config) -> list[str]:
    """The folders from which the user's own parts are imported."""
    folders = [parts.code_folder(part) for part in all_parts(config)
               if isinstance(part, parts.Part) and not part.is_of_keras]
    return [str(folder) for folder in dict.fromkeys(folders) if folder is not None]


def flatten(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Every leaf of nested dicts by its dotted key."""
    def walk(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        leaves: dict[str, Any] = {}
        for key, inner in value.items():
            leaves |= walk(f"{prefix}.{key}" if prefix else key, inner)
        # The order of transforms is part of a run's identity.
        return leaves | ({"augmentation": list(value)} if prefix == "augmentation" else {})

    return walk("", plain)


def keys(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of a config, as nested dicts, that can change the numbers of its run.

    The cache of images does not, except that `dataset.cache=none` has an order of its own. A
    built-in part is given by its short name, without the keys that are not set.
    """
    leaves = flatten(current(plain))
    streamed = leaves.get("dataset.cache") == "none"
    found = {}
    for key, value in leaves.items():
        group, _, name = key.partition(".")
        if key in PLACE_KEYS or (key in INERT_KEYS and not (streamed and key in STREAM_KEYS)):
            continue
        if value is None and group != "sampling" and is_built_in(leaves, group):
            continue
        if name == parts.TARGET and group in FIRST_VERSION:
            label, targets = FIRST_VERSION[group]
            kinds = {target: kind for kind, target in targets.items()}
            key, value = (f"{group}.{label}", kinds[value]) if str(value) in kinds else (key, value)
        elif key.endswith(f".{parts.TARGET}") and str(value).startswith("flowerexp.") and (
                group == "callbacks" or value == HEAD or value == (
                    f"flowerexp.augment.{TRANSFORMS.get(name.partition('.')[0])}")):
            continue
        found[key] = value
        if key == "sampling.kind":  # every sampler of the first version had the key
            found.setdefault("sampling.target_count", None)
    stops = [leaves.get(key.removesuffix(parts.TARGET) + "patience")
             for key, value in leaves.items()
             if key.startswith("callbacks.") and value == EARLY_STOPPING]
    if "loop.patience" in found:  # of all that stop early, the first does
        found["loop.patience"] = min((each for each in stops if each is not None), default=None)
    return without_built_in_callbacks(found, leaves)


def is_built_in(leaves: Mapping[str, Any], group: str) -> bool:
    """Whether the part of a group is one that the first version had."""
    targets = FIRST_VERSION.get(group, ("", {}))[1].values()
    return str(leaves.get(f"{group}.{parts.TARGET}")) in targets


def without_built_in_callbacks(found: dict[str, Any], leaves: Mapping[str, Any]
                               ) -> dict[str, Any]:
    """The keys without those of built-in callbacks: early stopping counts as loop.patience."""
    def reports(key: str) -> bool:
        group, _, rest = key.partition(".")
        target = leaves.get(f"{group}.{rest.partition('.')[0]}.{parts.TARGET}")
        return group == "callbacks" and str(target).startswith("flowerexp.")

    return {key: value for key, value in found.items() if not reports(key)}


def differences(one: Config, other: Config) -> list[str]:
    """`key: value in one, value in other` for every key that makes them different runs."""
    left, right = keys(plain(one)), keys(plain(other))
    return [f"{key}: {left.get(key, 'not set')} there, {right.get(key, 'not set')} here"
            for key in sorted(left.keys() | right.keys())
            if left.get(key, ...) != right.get(key, ...)]

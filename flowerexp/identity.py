"""The identity of a run: the config keys that can change its numbers, and how two runs differ.

Also upgrades configs of the first version, which named parts by `kind` and not by `_target_`.
No TensorFlow here.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flowerexp import parts
from flowerexp.config import NAMED_PARTS, PARTS, TYPED, Config

PLACE_KEYS = ("name", "fresh", "compared_with", "dry_run", "on_failure")
"""Keys for a run's folder, baselines and sweep, which are not part of its identity."""
TIME_KEYS = ("loop.checkpoint_minutes", "loop.max_minutes")
"""Keys left out of names, so that a run with another quota resumes in its folder."""
STREAM_KEYS = ("dataset.cache", "dataset.memory_gb")
"""Keys that affect the order of a run that streams from its files, and no other run."""
INERT_KEYS = ("dataset.root", "dataset.import_dir", *STREAM_KEYS, "loop.log_interval",
              "model.summary", *TIME_KEYS)
"""Keys that cannot change a run's numbers; the data are compared by their fingerprint."""

LATER_KEYS: Mapping[str, Any] = {
    "train_on": "train", "dataset.resize": "crop", "dataset.exif": True,
    "dataset.validation": None, "dataset.folds": None, "dataset.fold": None,
    "dataset.pool": "train", "dataset.split_seed": 0, "dataset.group_pattern": None,
    "dataset.groups": None, "dataset.long_tail": None}
"""Keys that came later -> the value that all runs before had, which is not compared."""

CONTENT = "content-"
"""The prefix of a fingerprint of content."""
WEAKER = ("its data were identified by the names and sizes of their files only, which a later "
          "version does by content: a change inside of a file would not be seen")

FIRST_VERSION: Mapping[str, Mapping[str, str]] = {
    group: {kind: f"{parts.OWN[group]}.{name}" for kind, name in classes.items()}
    for group, classes in {
        "dataset": {"auto": "Auto", "sample": "Sample", "flowers": "Flowers",
                    "tfrecords": "TFRecords"},
        "model": {"flowerexp": "SmallCNN", "keras": "KerasApplication",
                  "efficientnet": "EfficientNet"},
        "sampling": {"original": "Original", "oversample": "Oversample",
                     "class_weight": "ClassWeight"},
        "schedule": {"constant": "Constant", "exponential": "Exponential", "linear": "Linear",
                     "cosine": "Cosine"},
        "optimizer": {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"},
        "loss": {"cross_entropy": "CrossEntropy", "focal": "Focal",
                 "logit_adjusted": "LogitAdjusted"}}.items()}
"""Group -> the name of a part in the first version -> its target; runs are still compared by these
names: `loss.kind` is `focal`.
"""
IMPLIED: Mapping[str, str] = {
    "model.head": "flowerexp.models.heads.Pooled",
    **{f"augmentation.{name}": f"flowerexp.augment.{target}" for name, target in {
        "perspective": "geometric.Perspective", "flip": "geometric.Flip",
        "rotation": "geometric.Rotation", "colour": "color.ColorJitter", "cutmix": "mixing.CutMix",
        "mixup": "mixing.MixUp", "gridmask": "erasing.GridMask"}.items()}}
"""Node -> the target that it had in the first version, which named none there."""
EARLY_STOPPING = "flowerexp.train.callbacks.EarlyStopping"
CALLBACKS = {
    "tensorboard": {parts.TARGET: "flowerexp.train.callbacks.TensorBoard"},
    "early_stopping": {parts.TARGET: EARLY_STOPPING},
    "figures": {parts.TARGET: "flowerexp.train.callbacks.Figures"}}
"""The callbacks of every run of the first version."""


class Fingerprint(NamedTuple):
    """What identifies the data of a run.

    content: a hash of class names, ids, labels and stored bytes in their order.
    listing: that of the first versions, a hash of the files' names and sizes and of the images of
        each class, which does not see changes inside of files; runs made with it are compared by
        it.
    """

    content: str
    listing: str

    def like(self, recorded: Any) -> str:
        """The fingerprint of the kind that a run has recorded, if it has one."""
        return self.listing if is_listing(recorded) else self.content


def is_listing(recorded: Any) -> bool:
    """Whether a recorded fingerprint is one of the first versions."""
    return isinstance(recorded, str) and not recorded.startswith(CONTENT)


def kind_key(group: str) -> str:
    """The key that named the part of a group in the first version."""
    return "source" if group == "model" else "kind"


def current(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Upgrades a config, as nested dicts: its parts are named by `_target_`, not by kind."""
    upgraded = dict(plain)
    for group, targets in FIRST_VERSION.items():
        node, key = plain.get(group), kind_key(group)
        if isinstance(node, Mapping) and parts.TARGET not in node and str(node.get(key)) in targets:
            kept = {name: value for name, value in node.items()
                    if name != key and value is not None}
            upgraded[group] = {parts.TARGET: targets[node[key]], **kept}
            if group == "model":
                upgraded[group].setdefault("head", {parts.TARGET: IMPLIED["model.head"]})
    if "callbacks" not in plain and "loop" in plain:
        patience = mapping(plain["loop"]).get("patience")
        upgraded["callbacks"] = {**CALLBACKS, "early_stopping": {
            **CALLBACKS["early_stopping"], "patience": patience}}
    if transforms := mapping(plain.get("augmentation")):
        upgraded["augmentation"] = {
            name: {parts.TARGET: IMPLIED[f"augmentation.{name}"], **node}
            if f"augmentation.{name}" in IMPLIED and isinstance(node, Mapping)
            and parts.TARGET not in node else node for name, node in transforms.items()}
    return upgraded


def mapping(node: Any) -> Mapping[str, Any]:
    """The node; an empty one for what is no mapping, in a config that was damaged."""
    return node if isinstance(node, Mapping) else {}


def plain(config: Config) -> dict[str, Any]:
    """The config as nested dicts, as Hydra composes them: the inverse of `composition.check`."""
    nodes = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    for name in ("hardware", "loop", "results"):
        nodes[name] = dataclasses.asdict(nodes[name])
    for group, (_, part) in TYPED.items():
        typed = dict(vars(nodes[group]))
        nodes[group] = parts.plain(typed.pop(part)) | typed
    nodes["model"]["head"] = parts.plain(config.model.head)
    for group in PARTS:
        nodes[group] = parts.plain(nodes[group])
    for group in NAMED_PARTS:
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
    return {f"source of {part}": parts.source_hash(part)
            for part in filter(parts.is_own, all_parts(config))}


def code_path(config: Config) -> list[str]:
    """The folders from which the user's own parts are imported."""
    folders = dict.fromkeys(map(parts.code_folder, filter(parts.is_own, all_parts(config))))
    return [str(folder) for folder in folders if folder is not None]


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every leaf of nested dicts by its dotted key."""
    leaves: dict[str, Any] = {}
    for name, value in plain.items():
        key = f"{prefix}.{name}" if prefix else name
        leaves |= flatten(value, key) if isinstance(value, dict) else {key: value}
    # The order of transforms is part of a run's identity.
    return leaves | ({"augmentation": list(plain)} if prefix == "augmentation" else {})


def keys(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of a config, as nested dicts, that can change the numbers of its run.

    The cache of images does not, except that `dataset.cache=none` has an order of its own. A
    built-in part is given by its short name, without the keys that are not set; of the built-in
    callbacks only early stopping counts, as `loop.patience`.
    """
    nodes = current(plain)
    callbacks = {name: mapping(node) for name, node in mapping(nodes.get("callbacks")).items()}
    leaves = flatten(nodes | {"callbacks": {
        name: node for name, node in callbacks.items()
        if not str(node.get(parts.TARGET)).startswith("flowerexp.")}})
    streamed = leaves.get("dataset.cache") == "none"
    found = {}
    for key, value in leaves.items():
        group, _, name = key.partition(".")
        kinds = {target: kind for kind, target in FIRST_VERSION.get(group, {}).items()}
        kind = kinds.get(str(leaves.get(f"{group}.{parts.TARGET}")))
        if (key in PLACE_KEYS or (key in INERT_KEYS and not (streamed and key in STREAM_KEYS))
                or value == LATER_KEYS.get(key, ...)
                or (value is None and group != "sampling" and kind is not None)
                or value == IMPLIED.get(key.removesuffix(f".{parts.TARGET}"), ...)):
            continue
        if name == parts.TARGET and kind is not None:
            key, value = f"{group}.{kind_key(group)}", kind
        found[key] = value
        if key == "sampling.kind":  # every sampler of the first version had the key
            found.setdefault("sampling.target_count", None)
    if "loop.patience" in found:  # of all that stop early, the first does
        stops = [node.get("patience") for node in callbacks.values()
                 if node.get(parts.TARGET) == EARLY_STOPPING]
        found["loop.patience"] = min((each for each in stops if each is not None), default=None)
    return found


def differences(one: Config, other: Config) -> list[str]:
    """`key: value in one, value in other` for every key that makes them different runs."""
    left, right = keys(plain(one)), keys(plain(other))
    return [f"{key}: {left.get(key, 'not set')} there, {right.get(key, 'not set')} here"
            for key in sorted(left.keys() | right.keys())
            if left.get(key, ...) != right.get(key, ...)]

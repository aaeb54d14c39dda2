"""Composed configs: defaults, keys, the folder of a command, and what differs between two."""

import re

import pytest
from hydra import compose
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from flowerexp import composition, identity, parts
from flowerexp.data.sampling import Original
from flowerexp.errors import UserError
from flowerexp.models.backbones import SmallCNN
from tests.compose import checked

pytestmark = pytest.mark.usefixtures("hydra_of_the_project")


# Defaults and keys

def test_defaults_are_those_that_were_asked_for():
    run = checked()
    assert run.hardware.kind == "auto"
    assert parts.name(run.dataset.source) == "auto"
    assert run.model.backbone == SmallCNN()
    assert run.sampling == Original()
    assert run.augmentation == {}
    assert run.loop.steps_per_execution == "epoch"
    assert run.loop.batch_size_per_replica == 16
    assert run.loop.eval_batch_size_per_replica == 64
    assert run.loop.gradient_accumulation_steps == 1
    assert run.loop.lr_scaling == 1.0
    assert run.loop.keep_example_budget is False
    assert parts.name(run.schedule) == "constant"
    assert run.schedule.end_lr in (None, run.schedule.max_lr)
    assert run.model.dropout == 0.05
    assert run.model.trainable is True
    assert run.results.use == "last"
    assert run.seed == 0
    assert run.name is None
    assert run.fresh is False


KEYS = [f"{group}.{key}".lstrip(".") for group, keys in {
    "": ("seed", "name"),
    "hardware": ("kind", "replicas", "precision", "jit_compile", "tpu_name", "tpu_zone",
                 "tpu_project"),
    "dataset": ("root", "image_size", "num_classes", "class_names", "cache", "memory_gb"),
    "model": ("_target_", "name", "weights", "input_scaling", "dropout", "trainable", "summary"),
    "sampling": ("_target_",),
    "loop": ("epochs", "batch_size_per_replica", "eval_batch_size_per_replica",
             "gradient_accumulation_steps", "steps_per_execution", "lr_scaling",
             "keep_example_budget", "log_interval", "checkpoint_minutes", "max_minutes",
             "patience"),
    "schedule": ("_target_", "start_lr", "max_lr", "end_lr", "warmup"),
    "results": ("use",),
}.items() for key in keys]


def test_every_key_is_in_the_composed_config():
    composed = compose("config")
    assert [key for key in KEYS if OmegaConf.select(composed, key, default=...) is ...] == []


def test_value_of_the_command_line_arrives_with_its_type():
    run = checked("seed=7", "hardware=cpu", "hardware.replicas=2", "dataset.class_names=[a,b]",
                  "loop.steps_per_execution=5", "schedule=cosine", "schedule.end_lr=0",
                  "model.trainable=false", "results.use=best", "model.weights=null")
    assert run.seed == 7
    assert run.hardware.replicas == 2
    assert run.dataset.source.class_names == ["a", "b"]
    assert run.loop.steps_per_execution == 5
    assert run.schedule.end_lr == 0.0
    assert run.model.trainable is False
    assert run.results.use == "best"
    assert run.model.backbone.weights is None


def test_greatest_learning_rate_is_the_models_unless_told_otherwise():
    assert checked().schedule.max_lr == 1e-3
    assert checked("model=xception").schedule.max_lr == 1e-5
    assert checked("model=xception", "schedule=linear").schedule.max_lr == 1e-5
    assert checked("model=xception", "schedule.max_lr=3e-4").schedule.max_lr == 3e-4


@pytest.mark.parametrize("kind", ["exponential", "linear", "cosine"])
def test_decaying_schedule_takes_another_end(kind):
    assert checked(f"schedule={kind}", "schedule.end_lr=1e-6").schedule.end_lr == 1e-6


def test_constant_schedule_takes_its_own_end():
    assert checked("schedule.max_lr=1e-4", "schedule.end_lr=1e-4").schedule.end_lr == 1e-4


# Folder names

@pytest.mark.parametrize(("overrides", "folder"), [
    ([], "default+seed=0"),
    (["loop.epochs=3"], "loop.epochs=3+seed=0"),
    (["model=xception", "loop.epochs=3"], "loop.epochs=3+model=xception+seed=0"),
    (["loop.epochs=3", "model=xception"], "loop.epochs=3+model=xception+seed=0"),
    (["loop.epochs=5", "loop.epochs=3"], "loop.epochs=3+seed=0"),
    (["+loop.epochs=3"], "loop.epochs=3+seed=0"),
    (["seed=0", "loop.epochs=3", "fresh=true"], "loop.epochs=3+seed=0"),
    (["dataset.root=/data/my flowers"], "dataset.root=-data-my-flowers+seed=0"),
    (["augmentation=[flip,perspective]"], "augmentation=-flip-perspective-+seed=0"),
    (["dataset=sample", "experiment=rare_classes"], "rare_classes+dataset=sample+seed=0"),
    (["experiment=rare_classes"], "rare_classes+seed=0"),
    (["loop.max_minutes=9", "loop.checkpoint_minutes=1"], "default+seed=0"),
])
def test_run_name(overrides, folder):
    assert composition.run_name(None, 0, overrides) == folder


def test_run_name_ends_with_the_seed():
    assert composition.run_name(None, 12, ["seed=12", "zebra=1"]) == "zebra=1+seed=12"


def test_given_name_wins():
    assert composition.run_name("mine", 3, ["name=mine", "seed=3", "loop.epochs=3"]) == "mine"


def test_long_run_name_is_cut_and_told_apart_by_a_hash():
    root = "dataset.root=" + "/folder" * 30
    one, other = (composition.run_name(None, 5, [root + end]) for end in ("/a", "/b"))
    assert one != other
    assert one[:60] == other[:60]
    assert re.fullmatch(r".{71}-[0-9a-f]{8}\+seed=5", one)


LONG = "schedule.max_lr=0.0012520653814999472"


def test_long_number_is_shortened_and_told_apart_by_a_hash():
    one = composition.run_name(None, 0, [LONG])
    assert re.fullmatch(r"schedule\.max_lr=0\.001252-[0-9a-f]{8}\+seed=0", one)
    assert one != composition.run_name(None, 0, [LONG[:-1] + "9"])
    assert one == composition.run_name(None, 0, ["schedule.max_lr=1.2520653814999472e-3"])


@pytest.mark.parametrize("value", ["1e-3", "0.001", "0.00012345678901", "20261127203159123456",
                                   "e1234567890123456789", "outputs/model=a+seed=0/w.h5"])
def test_short_numbers_and_other_values_keep_their_spelling(value):
    """Old folders are resumed by the command that made them."""
    name = composition.run_name(None, 0, [f"model.weights={value}"])
    assert name == f"model.weights={value.replace('/', '-')}+seed=0"


def test_digits_beyond_the_precision_of_a_number_do_not_count():
    assert composition.short_number("0.10000000000000001") == "0.1"


OWN_FOLDERS = ["outputs/model=mobilenet+seed=0/w.h5", "outputs/default+seed=0/w.h5",
               "outputs/loop.epochs=3+model=xception+seed=0/w.h5",
               "outputs/augmentation=-flip-perspective-+seed=0/w.h5"]


@pytest.mark.parametrize("path", [*OWN_FOLDERS, "/data/größe/photos (1)", "~/w#1.h5", "a=b=c"])
def test_value_is_taken_as_typed(path):
    overrides = composition.quoted([f"model.weights={path}"])
    assert compose("config", overrides).model.weights == path


@pytest.mark.parametrize("pattern", [r"^(p\d+)_", r"(a,b){1,2}$", r"it's|\\", r"[^'\"]+\'"])
def test_a_regular_expression_is_taken_as_typed(pattern):
    overrides = composition.quoted([f"dataset.group_pattern={pattern}"])
    assert compose("config", overrides).dataset.group_pattern == pattern


def test_own_folders_are_values_of_a_sweep():
    """Commas separate them; each is one value of the choice."""
    (override,) = composition.quoted([f"model.weights={','.join(OWN_FOLDERS)},null"])
    swept = composition.sweep_overrides([override], {})["model.weights"]
    assert [str(value).strip("'") for value in swept.sweep_string_iterator()] == [
        *OWN_FOLDERS, "null"]


@pytest.mark.parametrize("override", [
    "loop.epochs=3", "model.weights='a=b'", 'name="a b"', "dataset.class_names=[a,b]", "~name",
    "seed=choice(1,2)", "seed=1,2,3", "name=", "loop.epochs", "dataset.class_names={a:b}",
    "name=it's", "seed=range(1, 3)", "schedule.max_lr=interval(1e-4,1e-2)"])
def test_value_with_a_meaning_to_hydra_is_left_to_it(override):
    assert composition.quoted([override]) == [override]


def test_data_exif_is_dataset_exif():
    assert composition.quoted(["data.exif=false", "seed=1"]) == ["dataset.exif=false", "seed=1"]


def test_lists_in_another_order_are_other_runs():
    one, other = (composition.run_name(None, 0, [f"augmentation=[{names}]"])
                  for names in ("flip,colour", "colour,flip"))
    assert one != other


keys = st.sampled_from([key for key in KEYS if key not in ("seed", "name")] + ["experiment"])
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, values, max_size=6), st.integers(0, 2**31 - 1), st.data())
def test_run_name_is_one_safe_path_component_whatever_the_order(changed, seed, data):
    overrides = [f"{key}={value}" for key, value in changed.items()]
    name = composition.run_name(None, seed, overrides)
    assert re.fullmatch(r"[A-Za-z0-9_=+][A-Za-z0-9._=+-]*", name)
    assert len(name) <= 110
    assert name.endswith(f"+seed={seed}")
    assert composition.run_name(None, seed, data.draw(st.permutations(overrides))) == name


# What differs between two configs

def test_differences_name_the_keys():
    found = identity.differences(
        checked(), checked("loop.epochs=3", "model.dropout=0.5", "seed=4"))
    assert [each.partition(":")[0] for each in found] == ["loop.epochs", "model.dropout", "seed"]
    assert "30" in found[0]
    assert "3" in found[0].partition(",")[2]


def test_same_command_differs_in_nothing():
    command = ("model=mobilenet", "dataset.class_names=[a,b]", "augmentation=flip")
    assert identity.differences(checked(*command), checked(*command)) == []


def test_another_place_is_no_difference():
    assert identity.differences(checked(), checked("name=mine", "fresh=true")) == []


def test_default_written_out_is_no_difference():
    assert identity.differences(checked(), checked("loop.epochs=30", "schedule=constant")) == []


def test_order_of_transforms_is_a_difference():
    found = identity.differences(checked("augmentation=[flip,perspective]"),
                                    checked("augmentation=[perspective,flip]"))
    assert [each.partition(":")[0] for each in found] == ["augmentation"]


def test_parameter_of_a_transform_is_a_difference():
    found = identity.differences(
        checked("augmentation=flip"),
        checked("augmentation=flip", "augmentation.flip.horizontal=0.25"))
    assert len(found) == 1
    assert found[0].startswith("augmentation.flip.horizontal: 0.5 there, 0.25 here")


def test_learning_rate_that_follows_from_the_model_is_a_difference():
    found = identity.differences(checked(), checked("model=xception"))
    assert "schedule.max_lr" in [each.partition(":")[0] for each in found]


@pytest.mark.parametrize("changed", [
    ["callbacks=[tensorboard]"], ["callbacks.early_stopping.patience=2"], ["loop.patience=4"]])
def test_runs_that_stop_otherwise_are_other_runs(changed):
    command = ["loop.patience=3"] if changed[0].startswith("callbacks.") else []
    assert identity.differences(checked("loop.patience=3"),
                                checked(*command, *changed)) != []


def test_reports_are_no_part_of_a_run():
    assert identity.differences(checked(), checked("callbacks=[early_stopping]")) == []


def test_patience_without_its_callback_is_refused():
    with pytest.raises(UserError, match=r"loop\.patience needs the callback early_stopping"):
        checked("loop.patience=3", "callbacks=none")


@pytest.mark.parametrize(("override", "typed"), [
    ("name=1.10", "name='1.10'"), ("dataset.root=2024.10", "dataset.root='2024.10'"),
    ("model.weights=1e3", "model.weights='1e3'"), ("name=true", "name='true'"),
    ("model.weights=null", "model.weights=null"), ("loop.epochs=10", "loop.epochs=10")])
def test_text_that_looks_like_a_number_stays_text(override, typed):
    assert composition.quoted([override]) == [typed]


def test_a_built_in_part_of_another_group_is_refused():
    for override in ("loss._target_=flowerexp.models.optimizers.Adam",
                     "model.head._target_=flowerexp.models.backbones.SmallCNN"):
        with pytest.raises(UserError, match="does not exist"):
            checked(override)


@pytest.mark.parametrize("node", [
    {"_target_": "keras.layers.TFSMLayer", "filepath": "evil"},
    {"_target_": "tf_keras.layers.deserialize", "config": {"module": "os"}},
    {"_target_": "keras.layers.RandomFlip", "mode": {"class_name": "function", "module": "os"}},
    {"_target_": "os.system", "command": "true"}])
def test_what_could_run_code_of_a_folder_needs_trust(node):
    part = parts.check("augmentation.x", node)
    with pytest.raises(UserError, match="--trust-code"):
        parts.check_trusted([part], False)
    parts.check_trusted([parts.check("augmentation.x", {"_target_": "keras.layers.RandomFlip",
                                                       "mode": "horizontal"})], False)


@pytest.mark.parametrize("value", [
    float("inf"), float("nan"), b"bytes", 2**64 + 1, "\ud800", [1.0, -float("inf")],
    {"a": float("nan")}, [{1: 2}]])
def test_a_key_that_a_checkpoint_would_not_give_back_is_refused(value):
    with pytest.raises(UserError, match=r"^loss\.beta.*cannot be recorded with the run") as mistake:
        parts.check("loss", {"_target_": "my.Loss", "beta": value})
    str(mistake.value).encode()
    assert "\n" not in str(mistake.value)


def test_a_key_may_hold_whatever_yaml_and_json_have_in_common():
    keys = {"a": {0: 1.0, "b": [None, True, "text", 1e300, 2**63, {"c": -0.5}]}, "d": 5e-324}
    assert parts.check("loss", {"_target_": "my.Loss", **keys}).keys == keys

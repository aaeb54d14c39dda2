"""The command line: every mistake in one sentence, every option file sound, every run its folder.

Most mistakes are composed in this process, through the same `one_sentence` that `run.py` ends with;
a few are real commands.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from flowerexp import composition, config
from flowerexp.config import Config

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
RUN = ROOT / "run.py"

GROUPS = ("hardware", "dataset", "model", "sampling", "augmentation", "loop", "schedule",
          "optimizer", "loss")
REQUIRED = {"model/keras_application": "model.name=ResNet50",
            "dataset/tfrecords": "dataset.root=somewhere",
            "sampling/oversample": "sampling.target_count=200"}
"""What an option needs besides its own name."""


@pytest.fixture(scope="module", autouse=True)
def hydra_of_the_project():
    composition.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    assert not GlobalHydra.instance().is_initialized()


def checked(*overrides):
    return composition.check(compose("config", overrides=list(overrides)))


def sentence(*overrides):
    """What run.py ends with for a command."""
    with pytest.raises(SystemExit) as ended, composition.one_sentence():
        checked(*overrides)
    return ended.value.code


# A command, the key that its sentence must name, and a hint that it must hold.
MISTAKES = [
    # wrong type
    ("loop.epochs=abc", "loop.epochs", "abc"),
    ("loop.epochs=1.5", "loop.epochs", "1.5"),
    ("loop.epochs=true", "loop.epochs", "bool"),
    ("loop.epochs=null", "loop.epochs", ""),
    ("loop.epochs=[1,2]", "loop.epochs", ""),
    ("loop.epochs=", "loop.epochs", ""),
    ("++loop.epochs=x", "loop.epochs", "'x'"),
    ("loop.gradient_accumulation_steps=8.5", "loop.gradient_accumulation_steps", "8.5"),
    ("loop.steps_per_execution=1.5", "loop.steps_per_execution", "1.5"),
    ("loop.steps_per_execution=epochs", "loop.steps_per_execution", "`epoch`"),
    ("seed=abc", "seed", "abc"),
    ("seed=1e3", "seed", "1000.0"),
    ("fresh=maybe", "fresh", "bool"),
    ("hardware.jit_compile=maybe", "hardware.jit_compile", "bool"),
    ("dataset.image_size=64.5", "dataset.image_size", "64.5"),
    ("dataset.root=[a]", "dataset.root", ""),
    ("dataset.class_names=3", "dataset.class_names", "list"),
    ("dataset.class_names=[]", "dataset.class_names", "list"),
    ("dataset.class_names=[a,1]", "dataset.class_names", "list"),
    ("dataset.class_names={a:1}", "dataset.class_names", "list"),
    ("schedule.max_lr=high", "schedule.max_lr", "high"),
    # out of range
    ("seed=-1", "seed", "-1"),
    ("seed=2147483648", "seed", "2147483647"),
    ("hardware.replicas=0", "hardware.replicas", "at least 1"),
    ("hardware.kind=npu", "hardware.kind", "'tpu'"),
    ("hardware.precision=float16", "hardware.precision", "mixed_float16"),
    ("dataset.cache=decode", "dataset.cache", "did you mean 'decoded'"),
    ("dataset.image_size=0", "dataset.image_size", "at least 1"),
    ("dataset.num_classes=0", "dataset.num_classes", "at least 1"),
    ("dataset.memory_gb=0", "dataset.memory_gb", "greater than 0"),
    ("dataset.memory_gb=nan", "dataset.memory_gb", "finite"),
    ("dataset.memory_gb=inf", "dataset.memory_gb", "finite"),
    ("model.dropout=1", "model.dropout", "under 1"),
    ("model.dropout=-0.1", "model.dropout", "at least 0"),
    ("model.dropout=nan", "model.dropout", "nan"),
    ("model.input_scaling=units", "model.input_scaling", "did you mean 'unit'"),
    ("model=mobilenet model.alpha=0", "model.alpha", "greater than 0"),
    ("model=mobilenet model.alpha=nan", "model.alpha", "nan"),
    ("model.learning_rate=0", "model.learning_rate", "greater than 0"),
    ("sampling=oversample sampling.target_count=0", "sampling.target_count", "at least 1"),
    ("loop.epochs=0", "loop.epochs", "at least 1"),
    ("loop.batch_size_per_replica=0", "loop.batch_size_per_replica", "at least 1"),
    ("loop.eval_batch_size_per_replica=0", "loop.eval_batch_size_per_replica", "at least 1"),
    ("loop.gradient_accumulation_steps=0", "loop.gradient_accumulation_steps", "at least 1"),
    ("loop.log_interval=0", "loop.log_interval", "at least 1"),
    ("loop.steps_per_execution=0", "loop.steps_per_execution", "at least 1"),
    ("loop.lr_scaling=0", "loop.lr_scaling", "greater than 0"),
    ("loop.lr_scaling=inf", "loop.lr_scaling", "finite"),
    ("schedule.max_lr=0", "schedule.max_lr", "greater than 0"),
    ("schedule.max_lr=nan", "schedule.max_lr", "finite"),
    ("schedule.start_lr=-1", "schedule.start_lr", "at least 0"),
    ("schedule.start_lr=nan", "schedule.start_lr", "nan"),
    ("schedule=cosine schedule.end_lr=-1", "schedule.end_lr", "at least 0"),
    ("schedule.warmup=1.1", "schedule.warmup", "from 0 to 1"),
    ("schedule.warmup=-0.1", "schedule.warmup", "from 0 to 1"),
    ("schedule.warmup=nan", "schedule.warmup", "nan"),
    ("schedule.kind=cosin", "schedule.kind", "did you mean 'cosine'"),
    ("optimizer.beta_1=1", "optimizer.beta_1", "under 1"),
    ("optimizer.epsilon=0", "optimizer.epsilon", "greater than 0"),
    ("optimizer.clip_norm=0", "optimizer.clip_norm", "greater than 0"),
    ("optimizer.weight_decay=-1", "optimizer.weight_decay", "at least 0"),
    ("loss.label_smoothing=1", "loss.label_smoothing", "under 1"),
    ("loss=focal loss.gamma=-1", "loss.gamma", "at least 0"),
    ("loss=logit_adjusted loss.tau=inf", "loss.tau", "inf"),
    ("results.use=first", "results.use", "last, best"),
    ("name=a/b", "name", "hydra.run.dir"),
    ("name=..", "name", "hydra.run.dir"),
    ("name=' '", "name", "hydra.run.dir"),
    # unknown key, option or group, with the nearest name
    ("loop.epoch=3", "loop.epoch", "did you mean 'loop.epochs'"),
    ("loops.epochs=3", "loops", "did you mean 'loop'"),
    ("schedule.maxlr=1", "schedule.maxlr", "did you mean 'schedule.max_lr'"),
    ("nam=a", "nam", "did you mean 'name'"),
    ("sede=3", "sede", "did you mean 'seed'"),
    ("optimiser=adam", "optimiser", "did you mean 'optimizer'"),
    ("model=efficientnet_b9", "model", "did you mean 'efficientnet_b"),
    ("model=resnet50", "model", "did you mean 'resnet50v2'"),
    ("model=densenet", "model", "did you mean 'densenet"),
    ("sampling=oversample_200", "sampling", "did you mean 'oversample_"),
    ("schedule=cosin", "schedule", "did you mean 'cosine'"),
    ("loop=Optimized", "loop", "did you mean 'optimized'"),
    ("loss=crossentropy", "loss", "did you mean 'cross_entropy'"),
    # + brings no key past the schema
    ("+loop.epochz=3", "loop.epochz", "did you mean 'loop.epochs'"),
    ("++loop.epochz=3", "loop.epochz", "did you mean 'loop.epochs'"),
    ("+foo=1", "foo", "no key"),
    ("+loop.epochs=3", "loop.epochs", ""),
    # a value is missing
    ("model=keras_application", "model.name", "model.name=VALUE"),
    ("dataset=tfrecords", "dataset.root", "dataset.root=FOLDER"),
    ("sampling=oversample", "sampling.target_count", "sampling=oversample"),
    ("model.name=${nope}", "model.name", "nope"),
    # keys that contradict each other
    ("schedule.end_lr=1e-6", "schedule.end_lr", "schedule=constant"),
    ("schedule=exponential schedule.end_lr=0", "schedule.end_lr", "schedule=linear"),
    ("model.alpha=0.5", "model.alpha", "small_cnn"),
    ("model=densenet121 model.alpha=0.5", "model.alpha", "DenseNet121"),
    ("model.weights=noisy-student", "model.weights", "EfficientNet"),
    ("model=xception model.weights=noisy-student", "model.weights", "Xception"),
    ("model.weights=imagenet", "model.weights", "small_cnn"),
    ("model.input_scaling=preprocess_input", "model.input_scaling", "keras.applications"),
    ("hardware=tpu hardware.replicas=8", "hardware.replicas", "hardware=tpu"),
    ("hardware=workers hardware.replicas=2", "hardware.replicas", "hardware=workers"),
    ("hardware=cpu hardware.tpu_name=a", "hardware.tpu_name", "hardware=tpu"),
    ("hardware=gpu hardware.tpu_zone=a", "hardware.tpu_zone", "hardware=tpu"),
    ("sampling.target_count=10", "sampling.target_count", "sampling=oversample"),
    ("sampling=class_weight sampling.target_count=10", "sampling.target_count", "class_weight"),
    ("dataset.class_names=[a,b] dataset.num_classes=3", "dataset.class_names", "2 names"),
    ("optimizer.momentum=0.5", "optimizer.momentum", "optimizer=adam"),
    ("optimizer=sgd optimizer.beta_1=0.5", "optimizer.beta_1", "optimizer=sgd"),
    ("loss=focal loss.label_smoothing=0.1", "loss.label_smoothing", "loss=focal"),
    ("loop.patience=0", "loop.patience", "at least 1"),
    ("loop.max_minutes=0", "loop.max_minutes", "greater than 0"),
    ("loop.checkpoint_minutes=-1", "loop.checkpoint_minutes", "greater than 0"),
    ("hardware=workers loop.max_minutes=5", "loop.max_minutes", "hardware=workers"),
    ("hardware=workers loop.checkpoint_minutes=5", "loop.checkpoint_minutes", "leave it out"),
    ("loss.gamma=1", "loss.gamma", "cross_entropy"),
    # what is no override at all
    ("loop.epochs", "loop.epochs", "key=value"),
    ("model", "model", "key=value"),
    ("loop.epochs=1,2", "loop.epochs", ""),
]


@pytest.mark.parametrize(("command", "key", "hint"), MISTAKES, ids=[each[0] for each in MISTAKES])
def test_mistake_is_one_sentence_that_names_its_key(command, key, hint):
    words = [command] if "' '" in command else command.split(" ")
    text = sentence(*words)
    assert text.startswith("flowerexp: ")
    assert "\n" not in text
    assert re.search(rf"(?<![\w.]){re.escape(key)}(?![\w]|\.\w)", text), text
    assert hint in text


def command(folder, *overrides, program=RUN):
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return subprocess.run([sys.executable, program, *overrides], cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("overrides", [
    "loop.epochs=abc", "loop.epochs=0", "loop.epoch=3", "model=efficientnet_b9", "+foo=1",
    "model=keras_application", "schedule.end_lr=1e-6", "hardware=tpu hardware.replicas=2",
    "name=a/b", "name=..", "name=''", pytest.param(f"name={'long' * 70}", id="name=longlong..."),
    "sampling=300", "loop=null", "=3",
])
def test_refused_command_leaves_one_line_and_nothing_else(tmp_path, overrides):
    ended = command(tmp_path, *overrides.split())
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("flowerexp: ")
    assert ended.stderr.count("\n") == 1
    outputs = tmp_path / "outputs"
    assert not outputs.exists() or not list(outputs.iterdir())
    assert [path.name for path in tmp_path.iterdir()] in ([], ["outputs"])


def test_full_error_shows_the_traceback(tmp_path):
    ended = subprocess.run([sys.executable, RUN, "loop.epochs=abc"], cwd=tmp_path,
                           env={**os.environ, "HYDRA_FULL_ERROR": "1"}, capture_output=True,
                           text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


# The option files

OPTIONS = sorted(f"{path.parent.name}/{path.stem}" for path in CONF.glob("*/*.yaml"))


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_checks(option):
    group, _, name = option.partition("/")
    assert checked(f"{group}={name}", *filter(None, [REQUIRED.get(option)])) is not None


@pytest.mark.parametrize("option", sorted(REQUIRED))
def test_option_without_its_required_value_is_refused(option):
    group, _, name = option.partition("/")
    assert REQUIRED[option].partition("=")[0] in sentence(f"{group}={name}")


TYPES = {each.name: each.default_factory for each in dataclasses.fields(Config)
         if dataclasses.is_dataclass(each.default_factory)}


@pytest.mark.parametrize("option", [each for each in OPTIONS if each.partition("/")[0] in TYPES])
def test_option_file_has_keys_of_the_schema_only(option):
    keys = set(yaml.safe_load((CONF / f"{option}.yaml").read_text(encoding="utf-8")) or {})
    known = {each.name for each in dataclasses.fields(TYPES[option.partition("/")[0]])}
    assert keys - known - {"defaults"} == set()


def test_every_group_of_the_design_has_options():
    assert {option.partition("/")[0] for option in OPTIONS} >= set(GROUPS)


MODELS = {
    "xception": "Xception", "densenet121": "DenseNet121", "densenet169": "DenseNet169",
    "densenet201": "DenseNet201", "resnet50v2": "ResNet50V2", "resnet101v2": "ResNet101V2",
    "resnet152v2": "ResNet152V2", "inceptionv3": "InceptionV3",
    "inceptionresnetv2": "InceptionResNetV2", "mobilenet": "MobileNet", "small_cnn": "small_cnn",
    **{f"efficientnet_b{size}": f"EfficientNetB{size}" for size in range(8)},
}


@pytest.mark.parametrize("option", MODELS)
def test_model_option_names_its_backbone(option):
    model = checked(f"model={option}").model
    assert model.name == MODELS[option]
    family = {"small_cnn": ("flowerexp", None)}.get(
        option, ("efficientnet" if option.startswith("efficientnet") else "keras", "imagenet"))
    assert (model.source, model.weights) == family


@pytest.mark.parametrize(("option", "target"), [("oversample_100", 100), ("oversample_300", 300),
                                                ("oversample_782", 782)])
def test_oversampling_option_has_the_target_of_its_name(option, target):
    assert checked(f"sampling={option}").sampling == config.Sampling("oversample", target)


@pytest.mark.parametrize("size", [192, 224, 331, 512])
def test_flowers_option_has_the_size_of_its_name(size):
    dataset = checked(f"dataset=flowers_{size}").dataset
    assert (dataset.kind, dataset.image_size) == ("flowers", size)


@pytest.mark.parametrize(("option", "steps", "accumulation", "scaling"), [
    ("usual", 1, 1, 1.0), ("optimized", "epoch", 1, 1.0), ("accumulate_8", "epoch", 8, 1.0),
    ("accumulate_8_lr_x8", "epoch", 8, 8.0)])
def test_loop_option(option, steps, accumulation, scaling):
    loop = checked(f"loop={option}").loop
    assert (loop.steps_per_execution, loop.gradient_accumulation_steps, loop.lr_scaling) == (
        steps, accumulation, scaling)


# Defaults and keys

def test_defaults_are_those_that_were_asked_for():
    run = checked()
    assert run.hardware.kind == "auto"
    assert run.dataset.kind == "auto"
    assert (run.model.name, run.model.weights) == ("small_cnn", None)
    assert run.sampling.kind == "original"
    assert run.augmentation == {}
    assert run.loop.steps_per_execution == "epoch"
    assert run.loop.batch_size_per_replica == 16
    assert run.loop.eval_batch_size_per_replica == 64
    assert run.loop.gradient_accumulation_steps == 1
    assert run.loop.lr_scaling == 1.0
    assert run.loop.keep_example_budget is False
    assert run.schedule.kind == "constant"
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
    "model": ("name", "weights", "input_scaling", "dropout", "trainable", "summary", "alpha"),
    "sampling": ("kind", "target_count"),
    "loop": ("epochs", "batch_size_per_replica", "eval_batch_size_per_replica",
             "gradient_accumulation_steps", "steps_per_execution", "lr_scaling",
             "keep_example_budget", "log_interval", "checkpoint_minutes", "max_minutes",
             "patience"),
    "schedule": ("kind", "start_lr", "max_lr", "end_lr", "warmup"),
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
    assert run.dataset.class_names == ["a", "b"]
    assert run.loop.steps_per_execution == 5
    assert run.schedule.end_lr == 0.0
    assert run.model.trainable is False
    assert run.results.use == "best"
    assert run.model.weights is None


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
    found = composition.differences(
        checked(), checked("loop.epochs=3", "model.dropout=0.5", "seed=4"))
    assert [each.partition(":")[0] for each in found] == ["loop.epochs", "model.dropout", "seed"]
    assert "30" in found[0]
    assert "3" in found[0].partition(",")[2]


def test_same_command_differs_in_nothing():
    command = ("model=mobilenet", "dataset.class_names=[a,b]", "augmentation=flip")
    assert composition.differences(checked(*command), checked(*command)) == []


def test_another_place_is_no_difference():
    assert composition.differences(checked(), checked("name=mine", "fresh=true")) == []


def test_default_written_out_is_no_difference():
    assert composition.differences(checked(), checked("loop.epochs=30", "schedule=constant")) == []


def test_order_of_transforms_is_a_difference():
    found = composition.differences(checked("augmentation=[flip,perspective]"),
                                    checked("augmentation=[perspective,flip]"))
    assert [each.partition(":")[0] for each in found] == ["augmentation"]


def test_parameter_of_a_transform_is_a_difference():
    found = composition.differences(
        checked("augmentation=flip"),
        checked("augmentation=flip", "augmentation.flip.horizontal=0.25"))
    assert len(found) == 1
    assert found[0].startswith("augmentation.flip.horizontal: 0.5 there, 0.25 here")


def test_learning_rate_that_follows_from_the_model_is_a_difference():
    found = composition.differences(checked(), checked("model=xception"))
    assert "schedule.max_lr" in [each.partition(":")[0] for each in found]


EXPERIMENTS = {
    # loop, accumulation, rate, sampling, N, augmentation, compared with
    "original": (1, 1, 1, "original", None, [], []),
    "optimized_loop": ("epoch", 1, 1, "original", None, [], ["original"]),
    "accumulate_8": ("epoch", 8, 1, "original", None, [], ["optimized_loop"]),
    "accumulate_8_lr_x8": ("epoch", 8, 8, "original", None, [],
                           ["accumulate_8", "optimized_loop"]),
    "oversample_100": ("epoch", 8, 8, "oversample", 100, [], ["accumulate_8_lr_x8"]),
    "oversample_300": ("epoch", 8, 8, "oversample", 300, [],
                       ["oversample_100", "accumulate_8_lr_x8"]),
    "oversample_300_fewer_epochs": ("epoch", 8, 8, "oversample", 300, [], ["accumulate_8_lr_x8"]),
    "perspective": ("epoch", 8, 8, "oversample", 300, ["perspective"], ["oversample_300"]),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_the_run_of_its_name(name):
    each = checked(f"experiment={name}")
    loop = each.loop
    assert (loop.steps_per_execution, loop.gradient_accumulation_steps, loop.lr_scaling,
            each.sampling.kind, each.sampling.target_count, list(each.augmentation),
            each.compared_with) == EXPERIMENTS[name]
    assert (each.model.name, each.model.weights, each.model.input_scaling,
            each.model.dropout) == ("EfficientNetB7", "imagenet", "unit", 0.05)
    assert (each.dataset.kind, each.dataset.image_size) == ("flowers", 192)
    assert (loop.epochs, loop.batch_size_per_replica, loop.eval_batch_size_per_replica,
            loop.log_interval) == (30, 16, 64, 10)
    assert (each.schedule.kind, each.schedule.max_lr, each.schedule.warmup,
            each.optimizer.kind) == ("constant", 1e-5, 0.2, "adam")
    assert loop.keep_example_budget == (name == "oversample_300_fewer_epochs")


def test_the_command_line_wins_over_an_experiment():
    each = checked("experiment=perspective", "model=small_cnn", "dataset=sample", "loop=usual",
                   "augmentation=none", "sampling.target_count=40")
    assert (each.model.name, each.dataset.kind, each.loop.gradient_accumulation_steps,
            each.augmentation, each.sampling.target_count) == ("small_cnn", "sample", 1, {}, 40)


def test_every_experiment_and_what_it_is_compared_with_exists():
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} == set(EXPERIMENTS)
    for name in EXPERIMENTS:
        assert set(checked(f"experiment={name}").compared_with) <= set(EXPERIMENTS) - {name}

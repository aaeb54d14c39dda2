"""Every option file is sound, and every experiment is the run of its name."""

import dataclasses
import re

import pytest
import yaml

from flowerexp import identity, parts
from flowerexp.config import Common
from flowerexp.data import sampling
from flowerexp.models import schedules
from flowerexp.models.backbones import EfficientNet, KerasApplication, SmallCNN
from tests.compose import CONF, ROOT, checked, sentence

pytestmark = pytest.mark.usefixtures("hydra_of_the_project")

GROUPS = ("hardware", "dataset", "model", "sampling", "augmentation", "loop", "schedule",
          "optimizer", "loss")
REQUIRED = {"model/keras_application": "model.name=ResNet50",
            "dataset/images": "dataset.root=somewhere",
            "dataset/tfrecords": "dataset.root=somewhere",
            "sampling/oversample": "sampling.target_count=200"}
"""What an option needs besides its own name."""



OPTIONS = sorted(f"{path.parent.name}/{path.stem}" for path in CONF.glob("*/*.yaml"))


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_checks(option):
    group, _, name = option.partition("/")
    assert checked(f"{group}={name}", *filter(None, [REQUIRED.get(option)])) is not None


@pytest.mark.parametrize("option", sorted(REQUIRED))
def test_option_without_its_required_value_is_refused(option):
    group, _, name = option.partition("/")
    assert REQUIRED[option].partition("=")[0] in sentence(f"{group}={name}")


TYPES = {each.name: each.default_factory for each in dataclasses.fields(Common)
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
    assert model.backbone.name == MODELS[option]
    family = {"small_cnn": (SmallCNN, None)}.get(
        option, (EfficientNet if option.startswith("efficientnet") else KerasApplication,
                 "imagenet"))
    assert (type(model.backbone), model.backbone.weights) == family


@pytest.mark.parametrize(("option", "target"), [("oversample_100", 100), ("oversample_300", 300),
                                                ("oversample_782", 782)])
def test_oversampling_option_has_the_target_of_its_name(option, target):
    assert checked(f"sampling={option}").sampling == sampling.Oversample(target)


@pytest.mark.parametrize("size", [192, 224, 331, 512])
def test_flowers_option_has_the_size_of_its_name(size):
    dataset = checked(f"dataset=flowers_{size}").dataset
    assert (parts.name(dataset.source), dataset.source.image_size) == ("flowers", size)


@pytest.mark.parametrize(("option", "steps", "accumulation", "scaling"), [
    ("usual", 1, 1, 1.0), ("optimized", "epoch", 1, 1.0), ("accumulate_8", "epoch", 8, 1.0),
    ("accumulate_8_lr_x8", "epoch", 8, 8.0)])
def test_loop_option(option, steps, accumulation, scaling):
    loop = checked(f"loop={option}").loop
    assert (loop.steps_per_execution, loop.gradient_accumulation_steps, loop.lr_scaling) == (
        steps, accumulation, scaling)


NOTEBOOK = {
    "dataset.kind": "flowers", "dataset.image_size": 192,
    "model.name": "EfficientNetB7", "model.source": "efficientnet", "model.weights": "imagenet",
    "model.input_scaling": "unit", "model.dropout": 0.05, "model.trainable": True,
    "sampling.kind": "original", "sampling.target_count": None, "augmentation": [],
    "loop.epochs": 30, "loop.batch_size_per_replica": 16, "loop.eval_batch_size_per_replica": 64,
    "loop.steps_per_execution": "epoch", "loop.gradient_accumulation_steps": 1,
    "loop.lr_scaling": 1.0, "loop.keep_example_budget": False, "loop.patience": None,
    "schedule.start_lr": 1e-5, "schedule.max_lr": 1e-5, "schedule.end_lr": 1e-5,
    "schedule.warmup": 0.2, "optimizer.kind": "adam", "optimizer.beta_1": 0.9,
    "optimizer.beta_2": 0.999, "optimizer.epsilon": 1e-7, "optimizer.clip_norm": None,
    "loss.kind": "cross_entropy", "loss.label_smoothing": 0.0,
}
"""The notebook's keys, of all of its eight trainings where EXPERIMENTS says nothing else."""
ACCUMULATE = {"loop.gradient_accumulation_steps": 8}
SCALED = {**ACCUMULATE, "loop.lr_scaling": 8.0}
OVERSAMPLE_300 = {**SCALED, "sampling.kind": "oversample", "sampling.target_count": 300}
EXPERIMENTS = {
    "original": ({"loop.steps_per_execution": 1}, []),
    "optimized_loop": ({}, ["original"]),
    "accumulate_8": (ACCUMULATE, ["optimized_loop"]),
    "accumulate_8_lr_x8": (SCALED, ["accumulate_8", "optimized_loop"]),
    "oversample_100": ({**OVERSAMPLE_300, "sampling.target_count": 100}, ["accumulate_8_lr_x8"]),
    "oversample_300": (OVERSAMPLE_300, ["oversample_100", "accumulate_8_lr_x8"]),
    "oversample_300_fewer_epochs": ({**OVERSAMPLE_300, "loop.keep_example_budget": True},
                                    ["accumulate_8_lr_x8"]),
    "perspective": ({**OVERSAMPLE_300, "augmentation": ["perspective"]}, ["oversample_300"]),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_the_notebooks_training_key_by_key(name):
    run = checked(f"experiment={name}")
    changes, compared_with = EXPERIMENTS[name]
    leaves = identity.keys(identity.plain(run))
    assert {key: leaves.get(key) for key in NOTEBOOK} == NOTEBOOK | changes
    assert run.compared_with == compared_with
    rates = schedules.learning_rates(run.schedule, 100, run.loop.lr_scaling)
    assert set(rates) == {1e-5 * changes.get("loop.lr_scaling", 1)}


def test_an_experiment_keeps_its_rate_constant_at_another_max_lr():
    schedule = checked("experiment=original", "schedule.max_lr=1e-4").schedule
    assert (schedule.start_lr, schedule.end_lr) == (1e-4, 1e-4)
    schedule = checked("experiment=original", "schedule.start_lr=null").schedule
    rates = schedules.learning_rates(schedule, 100)  # as without an experiment
    assert rates[0] == pytest.approx(1e-7)


def test_the_command_line_wins_over_an_experiment():
    each = checked("experiment=perspective", "model=small_cnn", "dataset=sample", "loop=usual",
                   "augmentation=none", "sampling.target_count=40")
    assert (each.model.backbone.name, parts.name(each.dataset.source),
            each.loop.gradient_accumulation_steps,
            each.augmentation, each.sampling.target_count) == ("small_cnn", "sample", 1, {}, 40)


def test_every_experiment_and_what_it_is_compared_with_exists():
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} == set(EXPERIMENTS)
    for name in EXPERIMENTS:
        assert set(checked(f"experiment={name}").compared_with) <= set(EXPERIMENTS) - {name}


PAGE = (ROOT / "docs/notebook.md").read_text(encoding="utf-8")
VALUES = {"NAME": "name", "ZONE": "zone", "ID": "project", "gs://BUCKET": "gs://bucket"}


@pytest.mark.parametrize("command", sorted(set(re.findall(r"python run\.py ([^`\n#]+)", PAGE))))
def test_every_command_of_the_page_on_the_notebook_composes(command):
    words = [word for word in command.split() if word not in ("--cfg", "job")]
    overrides = [f"{key}={VALUES.get(value, value)}"
                 for key, _, value in (word.partition("=") for word in words)]
    assert checked(*(word for word in overrides if not word.startswith("sweep="))) is not None
    assert all((CONF / "sweep" / f"{word[6:]}.yaml").exists()
               for word in overrides if word.startswith("sweep="))


def test_the_page_on_the_notebook_has_the_pairs_of_the_experiments():
    for name, (_, compared_with) in EXPERIMENTS.items():
        (cells,) = re.findall(rf"experiment={name}` \|(.*)\|$", PAGE, re.MULTILINE)
        assert re.findall(r"`(\w+)`", cells) == compared_with


def test_wrong_keys_of_a_transform_are_answered():
    assert "did you mean 'augmentation.flip.horizontal'" in sentence(
        "augmentation=flip", "augmentation.flip.horizonta=0.2")
    assert "needs augmentation=flip" in sentence("augmentation.flip.horizontal=0.2")
    assert sentence("augmentation=flip", "augmentation.flip.horizontal=2").endswith(
        "augmentation.flip.horizontal must be from 0 to 1, not 2.0")

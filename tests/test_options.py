"""Every option file is sound, and every experiment is the run of its name."""

import dataclasses

import pytest
import yaml

from flowerexp import config
from flowerexp.config import Config
from tests.compose import CONF, checked, sentence

pytestmark = pytest.mark.usefixtures("hydra_of_the_project")

GROUPS = ("hardware", "dataset", "model", "sampling", "augmentation", "loop", "schedule",
          "optimizer", "loss")
REQUIRED = {"model/keras_application": "model.name=ResNet50",
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

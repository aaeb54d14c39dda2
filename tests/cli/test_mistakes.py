"""The command line: every mistake is one sentence.

Most are composed in this process; a few are real commands.
"""

import os
import re

import pytest

from tests import forked
from tests.compose import RUN, sentence

pytestmark = pytest.mark.usefixtures("hydra_of_the_project")

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
    ("+foo=1", "foo", "unknown key foo (all keys: "),
    ("+loss.beta=1", "loss.beta", "unknown key loss.beta"),
    ("+seed=3", "seed", "without a +"),
    ("+loss=focal", "loss", "without a +"),
    # names of other tools, and of a key without its group
    ("learning_rate=1e-3", "learning_rate", "did you mean 'schedule.max_lr'"),
    ("lr=0.1", "lr", "did you mean 'schedule.max_lr'"),
    ("+optimizer.lr=0.1", "optimizer.lr", "did you mean 'schedule.max_lr'"),
    ("batch_size=32", "batch_size", "did you mean 'loop.batch_size_per_replica'"),
    ("loop.batchsize=32", "loop.batchsize", "did you mean 'loop.batch_size_per_replica'"),
    ("epochs=3", "epochs", "did you mean 'loop.epochs'"),
    ("+optimizer.head_lr=1", "optimizer.head_lr", "model.trainable=false"),
    ("loop.ema=true", "loop.ema", "docs/parts.md"),
    ("warmup=0", "warmup", "did you mean 'schedule.warmup'"),
    ("+loop.epochs=3", "loop.epochs", ""),
    # a value is missing
    ("model=keras_application", "model.name", "model.name=VALUE"),
    ("dataset=tfrecords", "dataset.root", "dataset.root=FOLDER"),
    ("sampling=oversample", "sampling.target_count", "sampling.target_count=VALUE"),
    ("model.name=${nope}", "model.name", "nope"),
    # keys that contradict each other
    ("schedule.end_lr=1e-6", "schedule.end_lr", "schedule=constant"),
    ("schedule=exponential schedule.end_lr=0", "schedule.end_lr", "schedule=linear"),
    ("model.alpha=0.5", "model.alpha", "or mobilenet"),
    ("model=densenet121 model.alpha=0.5", "model.alpha", "or mobilenet"),
    ("model=keras_application model.name=ResNet50 model.alpha=0.5", "model.alpha", "ResNet50"),
    ("model.weights=noisy-student", "model.weights", "EfficientNet"),
    ("model=xception model.weights=noisy-student", "model.weights", "Xception"),
    ("model.weights=imagenet", "model.weights", "small_cnn"),
    ("model.input_scaling=preprocess_input", "model.input_scaling", "keras.applications"),
    ("hardware=tpu hardware.replicas=8", "hardware.replicas", "hardware=tpu"),
    ("hardware=workers hardware.replicas=2", "hardware.replicas", "hardware=workers"),
    ("hardware=cpu hardware.tpu_name=a", "hardware.tpu_name", "hardware=tpu"),
    ("hardware=gpu hardware.tpu_zone=a", "hardware.tpu_zone", "hardware=tpu"),
    ("sampling.target_count=10", "sampling.target_count", "sampling=oversample"),
    ("sampling=class_weight sampling.target_count=10", "sampling.target_count",
     "sampling=oversample"),
    ("dataset.class_names=[a,b] dataset.num_classes=3", "dataset.class_names", "2 names"),
    ("optimizer.momentum=0.5", "optimizer.momentum", "optimizer=sgd"),
    ("optimizer=sgd optimizer.beta_1=0.5", "optimizer.beta_1", "optimizer=adam"),
    ("loss=focal loss.label_smoothing=0.1", "loss.label_smoothing", "loss=cross_entropy"),
    ("loop.patience=0", "loop.patience", "at least 1"),
    ("loop.max_minutes=0", "loop.max_minutes", "greater than 0"),
    ("loop.checkpoint_minutes=-1", "loop.checkpoint_minutes", "greater than 0"),
    ("loss.gamma=1", "loss.gamma", "loss=focal"),
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
    return forked.run([program, *overrides], folder, environment)


@pytest.mark.parametrize("overrides", [
    "loop.epochs=abc", "loop.epochs=0", "loop.epoch=3", "model=efficientnet_b9", "+foo=1",
    "model=keras_application", "schedule.end_lr=1e-6", "hardware=tpu hardware.replicas=2",
    "name=a/b", "name=..", "name=''", pytest.param(f"name={'long' * 70}", id="name=longlong..."),
    "sampling=300", "loop=null", "=3", "-m loop.epochs=0,1",
])
def test_refused_command_leaves_one_line_and_nothing_else(tmp_path, overrides):
    ended = command(tmp_path, *overrides.split())
    assert ended.returncode == 1
    assert ended.stdout == ""
    named = any(override.startswith("name=") for override in overrides.split())
    assert ended.stderr.startswith("flowerexp: name must be" if named else "flowerexp: ")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_full_error_shows_the_traceback(tmp_path):
    ended = forked.run([RUN, "loop.epochs=abc"], tmp_path,
                       {**os.environ, "HYDRA_FULL_ERROR": "1"})
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr

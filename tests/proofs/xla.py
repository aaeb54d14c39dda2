"""Proof: everything that a TPU would compile of an update has an XLA kernel, in every family.

Run it from the checkout: python tests/proofs/xla.py [FAMILY ... | all]. With legacy Keras, as on a
TPU, in mixed_bfloat16, from uint8 images with dropout, mixed labels and two micro-batches, the
trainer's own replica function (forward, loss, backward, accumulation, clipping, optimizer) is
compiled by XLA as a whole and trains one update on a processor. Its graph must hold no string and
no shape that is not static, and its HLO, before XLA changes it for the processor, no call out of
XLA. That is evidence for a TPU, and no proof: nothing here ran on one. Without an argument it
proves five families that are compiled soon, in three minutes on two cores; `all` proves each, in
ten. A process each, two at a time.
"""

import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import forked

ROOT = Path(__file__).parents[2]
CLASSES = 5
FAMILIES = {  # the longest first; pixels: the fewest that the backbone takes, or near
    "inceptionresnetv2": (75,), "densenet121": (32,), "efficientnet_b0": (32,),
    "inceptionv3": (75,), "xception": (71,), "resnet50v2": (32,),
    "keras_application": (32, "model.name=VGG16"), "mobilenet": (32, "model.alpha=0.25"),
    "small_cnn": (32,),
}
QUICK = ("efficientnet_b0", "resnet50v2", "keras_application", "mobilenet", "small_cnn")
LEGACY = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
          # What LLVM makes of the HLO for a processor is not in question; 0 takes longer to run.
          "XLA_FLAGS": "--xla_backend_optimization_level=1"}


def prove(family: str, *overrides: str) -> None:
    """Compiles a family's update and runs it; asserts what the graph and the HLO hold."""
    import numpy as np
    import tensorflow as tf

    from flowerexp import composition
    from flowerexp.data.batching import Plan
    from flowerexp.models import build, losses, optimizers
    from flowerexp.train.trainer import Trainer

    assert tf.keras.Model.__module__.startswith("tf_keras")
    composition.register()
    config = composition.check(composition.compose([
        f"model={family}", "model.weights=null", "model.dropout=0.5", "optimizer.clip_norm=1",
        "hardware.precision=mixed_bfloat16", *overrides]))
    size, precision = FAMILIES[family][0], config.hardware.precision
    strategy, plan = tf.distribute.get_strategy(), Plan(1, 1, 2, 2, 2, 4, 1, 1)
    with strategy.scope():
        model = build.build(config.model, size, CLASSES, precision)
        optimizer = optimizers.build(config.optimizer.algorithm, np.full(1, 1e-2), precision)
    trainer = Trainer(strategy, model, optimizer, losses.bind(config.loss, np.arange(CLASSES)),
                      plan, np.ones(CLASSES, np.float32), clip_norm=config.optimizer.clip_norm)
    random = np.random.default_rng(0)
    batch = {"image": random.integers(0, 256, (4, size, size, 3), np.uint8),
             "label": np.arange(4, dtype=np.int32), "second_label": np.arange(1, 5, dtype=np.int32),
             "mix_weight": np.full(4, 0.7, np.float32)}
    # As TPUStrategy.run does it: all that happens on a replica is one compiled function.
    trainer.replica_update = compiled = tf.function(trainer.replica_update, jit_compile=True)
    before = [variable.numpy() for variable in model.variables]

    def inspect() -> str:
        arguments = ({key: tf.constant(value) for key, value in batch.items()},
                     tf.constant(0, tf.int64))
        assert_static(compiled.get_concrete_function(*arguments).graph)
        return compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")

    assert_no_call_outside(strategy.run(inspect))
    data = tf.data.Dataset.from_tensors(batch)
    list(trainer.train(strategy.distribute_datasets_from_function(lambda _: data), 1, 1))
    assert np.isfinite(trainer.progress().loss)
    assert trainer.progress().confusion.sum() == 4
    changed = [(one != other.numpy()).any() for one, other in zip(before, model.variables,
                                                                  strict=True)]
    assert np.mean(changed) > 0.9, np.mean(changed)


def assert_static(graph) -> None:
    """No tensor of the graph or of a function that it calls is a string or of unknown shape."""
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            assert tensor.dtype != "string", operation
            if tensor.dtype not in ("resource", "variant"):  # handles of variables and stacks
                assert tensor.shape.is_fully_defined(), tensor
    for definition in graph.as_graph_def(add_shapes=True).library.function:
        for node in definition.node_def:
            assert node.op not in ("PyFunc", "EagerPyFunc", "PyFuncStateless"), node.name


def assert_no_call_outside(hlo: str) -> None:
    """No instruction leaves XLA, and no size is known only at run time."""
    instructions = set(re.findall(r"\s([a-z][a-z-]+)\(", hlo))
    assert {"convolution", "while", "dot"} <= instructions, instructions
    outside = {"custom-call", "infeed", "outfeed", "send", "recv", "get-dimension-size",
               "set-dimension-size"}
    assert not outside & instructions, outside & instructions
    assert "<=" not in hlo, "a dynamic dimension"


def start(family: str) -> tuple[str, str]:
    """Proves a family in a process of its own; returns what to print, and the error or ''."""
    begun = time.monotonic()
    done = forked.run([__file__, "--one", family, *FAMILIES[family][1:]], ROOT, timeout=900)
    line = f"{family}: an update compiled by XLA, {time.monotonic() - begun:.0f} s"
    return line, done.stderr[-3000:] if done.returncode else ""


def main(families: list[str]) -> int:
    stems = {path.stem for path in (ROOT / "conf/model").glob("*.yaml")}
    left = {stem for stem in stems if not any(stem[:6] == family[:6] for family in FAMILIES)}
    assert not left, f"no family of {left} is proved"
    begun, failures = time.monotonic(), 0
    os.environ.update(LEGACY)  # of the server from which the processes are forked
    with ThreadPoolExecutor(2) as pool:
        for line, error in pool.map(start, FAMILIES if families == ["all"] else families or QUICK):
            failures += bool(error)
            print(f"FAILED: {line}\n{error}" if error else line, flush=True)
    print(f"{failures} failures; {time.monotonic() - begun:.0f} s")
    return failures > 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        prove(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))

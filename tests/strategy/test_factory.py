"""The strategy factory: real processors, and fakes where there is no TPU or GPU."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from flowerexp.config import Hardware
from flowerexp.errors import UserError
from flowerexp.strategy import factory

PLAIN = {key: value for key, value in os.environ.items()
         if key not in ("TF_CONFIG", "TPU_NAME", "TF_USE_LEGACY_KERAS")}


def in_process(program, **environment):
    """What a fresh interpreter prints, for what must happen before TensorFlow's import."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=120, env=PLAIN | environment, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_tpu_in_sight(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.setattr(factory, "TPU_DEVICES", ())


def test_auto_chooses_the_cpu_and_says_why():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    strategy, sentence = factory.build_strategy(Hardware("auto"))
    assert strategy.num_replicas_in_sync == 1
    assert "(no TPU or GPU found)" in sentence


def test_a_cpu_is_split_into_replicas():
    strategy, sentence = factory.build_strategy(Hardware("cpu", 2))
    assert strategy.num_replicas_in_sync == 2
    assert "2 logical devices" in sentence
    with pytest.raises(UserError, match="already initialized fewer"):
        factory.build_strategy(Hardware("cpu", 99))


def test_unavailable_hardware_is_an_error():
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(UserError, match="TensorFlow finds no GPU"):
            factory.build_strategy(Hardware("gpu"))
    with pytest.raises(UserError, match="no TPU responds as 'local'"):
        factory.build_strategy(Hardware("tpu"))


@pytest.mark.parametrize(("replicas", "taken"), [(None, 3), (2, 2), (1, 1)])
def test_gpus_grow_their_memory_and_are_then_mirrored(monkeypatch, replicas, taken):
    """What is faked is the list of devices; all of them must grow, before one is set up."""
    calls = []
    devices = [f"gpu {index}" for index in range(3)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth",
                        lambda device, on: calls.append((device, on)))
    monkeypatch.setattr(tf.config.experimental, "get_device_details",
                        lambda device: {"device_name": "Test 9000"})

    def strategy_on(names):
        calls.append(names if isinstance(names, list) else [names])
        return SimpleNamespace(num_replicas_in_sync=len(calls[-1]))

    for name in ("MirroredStrategy", "OneDeviceStrategy"):
        monkeypatch.setattr(tf.distribute, name, strategy_on)
    _, sentence = factory.build_strategy(Hardware("gpu", replicas))
    assert calls == [*((device, True) for device in devices),
                     [f"/gpu:{index}" for index in range(taken)]]
    assert f"{'one GPU' if taken == 1 else f'{taken} GPUs'} (Test 9000)" in sentence
    with pytest.raises(UserError, match="this machine has 3 GPUs"):
        factory.build_strategy(Hardware("gpu", 4))


def test_gpus_of_a_worker_grow_before_it_joins_the_others(monkeypatch):
    calls = []
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}, "task": {"index": 0}}')
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu 0", "gpu 1"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth",
                        lambda device, on: calls.append((device, on)))

    def join():
        calls.append("join")
        return SimpleNamespace(num_replicas_in_sync=2)

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", join)
    factory.build_strategy(Hardware("workers"))
    assert calls == [("gpu 0", True), ("gpu 1", True), "join"]


class FakeTpu:
    """Records the calls that build a TPU strategy, in their order."""

    def __init__(self, monkeypatch):
        self.calls = []
        experimental = tf.tpu.experimental
        monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", self.resolver)
        monkeypatch.setattr(tf.config, "experimental_connect_to_cluster",
                            lambda resolver: self.calls.append("connect"))
        monkeypatch.setattr(experimental, "initialize_tpu_system",
                            lambda resolver: self.calls.append("initialize"))
        monkeypatch.setattr(tf.distribute, "TPUStrategy", self.strategy)

    def resolver(self, **arguments):
        self.calls.append(arguments)

    def strategy(self, resolver):
        self.calls.append("strategy")
        return type("Strategy", (), {"num_replicas_in_sync": 8})()


def test_a_tpu_by_name_is_connected_then_initialised(monkeypatch):
    fake = FakeTpu(monkeypatch)
    strategy, sentence = factory.build_strategy(
        Hardware("tpu", tpu_name="node-1", tpu_zone="z", tpu_project="p"))
    assert fake.calls == [{"tpu": "node-1", "zone": "z", "project": "p"}, "connect", "initialize",
                          "strategy"]
    assert strategy.num_replicas_in_sync == 8
    assert "TPU 'node-1', 8 replicas" in sentence


def test_a_local_tpu_is_not_connected_to(monkeypatch):
    fake = FakeTpu(monkeypatch)
    factory.build_strategy(Hardware("tpu", tpu_name="local"))
    assert fake.calls[1:] == ["initialize", "strategy"]


def test_auto_chooses_a_tpu_first_and_says_how_it_was_found(monkeypatch):
    FakeTpu(monkeypatch)
    monkeypatch.setenv("TPU_NAME", "node-7")
    _, sentence = factory.build_strategy(Hardware("auto"))
    assert "TPU 'node-7', 8 replicas (found: TPU_NAME=node-7)" in sentence
    with pytest.raises(UserError, match=r"hardware\.replicas is not supported on a TPU"):
        factory.build_strategy(Hardware("auto", replicas=2))


CHOICES = """
import os, sys
from flowerexp.config import Hardware
from flowerexp.strategy import factory
factory.TPU_DEVICES = ()
for kind, name in (("auto", None), ("cpu", None), ("auto", "node"), ("tpu", None)):
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    factory.prepare(Hardware(kind, tpu_name=name))
    print(kind, name, os.environ.get("TF_USE_LEGACY_KERAS"))
assert "tensorflow" not in sys.modules
import tensorflow as tf
print(tf.keras.Model.__module__.split(".")[0])
"""


def test_legacy_keras_is_chosen_for_a_tpu_before_tensorflow():
    assert in_process(CHOICES).splitlines() == [
        "auto None None", "cpu None None", "auto node 1", "tpu None 1", "tf_keras"]
    assert tf.keras.Model.__module__.startswith("keras.")  # without the variable


def test_workers_come_from_tf_config(monkeypatch):
    cluster = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    monkeypatch.setenv("TF_CONFIG", cluster)
    assert factory.worker_of_config() == (1, 2)
    assert not factory.is_chief(Hardware("workers"))
    monkeypatch.setenv("TF_CONFIG", cluster.replace('"index": 1', '"index": 0'))
    assert factory.is_chief(Hardware("workers"))
    assert factory.is_chief(Hardware("cpu"))


@pytest.mark.parametrize(("value", "message"), [
    (None, "needs TF_CONFIG"), ("{", "cannot be read"), ("{}", "cannot be read"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"index": 3}}', "names worker 3 of 1")])
def test_a_wrong_tf_config_is_named(monkeypatch, value, message):
    if value is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(UserError, match=message):
        factory.build_strategy(Hardware("workers"))

"""Builds the tf.distribute.Strategy for `hardware=...`."""

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from flowerexp.config import Hardware
from flowerexp.errors import UserError, counted, first_line
from flowerexp.lazy import tf

TPU_DEVICES = ("accel*", "vfio/[0-9]*")
"""Patterns, in /dev, for the device files of a TPU VM; other VFIO devices match them too."""


def find_tpu(hardware: Hardware) -> str | None:
    """The evidence of a TPU on this machine, or None; imports no TensorFlow."""
    if hardware.tpu_name:
        return f"hardware.tpu_name={hardware.tpu_name}"
    if os.environ.get("TPU_NAME"):
        return f"TPU_NAME={os.environ['TPU_NAME']}"
    devices = [path for pattern in TPU_DEVICES for path in Path("/dev").glob(pattern)]
    if devices and importlib.util.find_spec("libtpu"):
        return f"{devices[0]} and the package libtpu"
    return None


def prepare(hardware: Hardware) -> None:
    """Selects legacy Keras for a TPU, because Keras 3 fails under TPUStrategy (keras issue 19448),
    and limits TensorFlow's native log to errors; call it before TensorFlow is imported.

    Raises:
        UserError: if a TPU needs tf_keras and it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if hardware.kind == "tpu" or (hardware.kind == "auto" and find_tpu(hardware)):
        assert "tensorflow" not in sys.modules, "call prepare before TensorFlow is imported"
        if importlib.util.find_spec("tf_keras") is None:
            raise UserError("a TPU needs the package tf_keras in TensorFlow's version: pip "
                            "install --no-deps 'tf_keras==2.20.*'")
        os.environ["TF_USE_LEGACY_KERAS"] = "1"


def build_strategy(hardware: Hardware) -> tuple[Any, str]:
    """The tf.distribute.Strategy, and a sentence that names the hardware and why it was chosen.

    Raises:
        UserError: if the hardware is not available.
    """
    kind, why = hardware.kind, f"hardware={hardware.kind}"
    if kind == "auto" and (tpu := find_tpu(hardware)):
        if hardware.replicas is not None:
            raise UserError("hardware.replicas is not supported on a TPU (found: "
                            f"{tpu}): leave it out, or choose hardware=cpu or hardware=gpu")
        kind, why = "tpu", f"found: {tpu}"
    elif kind == "auto":
        kind, why = (("gpu", "no TPU found") if tf.config.list_physical_devices("GPU")
                     else ("cpu", "no TPU or GPU found"))
    build = {"cpu": build_cpu, "gpu": build_gpu, "tpu": build_tpu, "workers": build_workers}[kind]
    strategy, sentence = build(hardware)
    return strategy, f"{sentence}, {counted(strategy.num_replicas_in_sync, 'replica')} ({why})"


def build_cpu(hardware: Hardware) -> tuple[Any, str]:
    """One replica, or the CPU split into `replicas` logical devices."""
    replicas = hardware.replicas or 1
    cores = os.cpu_count() or 1
    tf.config.set_visible_devices([], "GPU")  # or TensorFlow places operations there
    if replicas == 1:
        # The default strategy does not wrap datasets: an update takes half as much host time as
        # under OneDeviceStrategy.
        return tf.distribute.get_strategy(), f"CPU ({counted(cores, 'core')})"
    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration()] * replicas)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < replicas:
            raise UserError(f"hardware.replicas={replicas}: this process already initialized fewer "
                            "logical devices; start a new process") from error
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{index}" for index in range(replicas)])
    return strategy, f"CPU ({counted(cores, 'core')}) as {replicas} logical devices"


def build_gpu(hardware: Hardware) -> tuple[Any, str]:
    """One GPU, or several mirrored; memory grows on demand."""
    physical = growing_gpus()
    if not physical:
        raise UserError("hardware=gpu: TensorFlow finds no GPU (is the extra `gpu` installed and "
                        "the driver running?); hardware=auto uses what is available")
    replicas = hardware.replicas or len(physical)
    if replicas > len(physical):
        raise UserError(f"hardware.replicas={replicas}: this machine has "
                        + counted(len(physical), "GPU"))
    names = [f"/gpu:{index}" for index in range(replicas)]
    kind = tf.config.experimental.get_device_details(physical[0]).get("device_name", "GPU")
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy(names[0]), f"one GPU ({kind})"
    return tf.distribute.MirroredStrategy(names), f"{replicas} GPUs ({kind}) mirrored"


def growing_gpus() -> list[Any]:
    """The physical GPUs, with memory growth enabled; call it before any is initialized."""
    physical: list[Any] = tf.config.list_physical_devices("GPU")
    for device in physical:
        tf.config.experimental.set_memory_growth(device, True)
    return physical


def build_tpu(hardware: Hardware) -> tuple[Any, str]:
    """A TPU by name, zone and project, or the one on this machine (`local`)."""
    name = hardware.tpu_name or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=name, zone=hardware.tpu_zone, project=hardware.tpu_project)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver), f"TPU '{name}'"
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise UserError(f"hardware=tpu: no TPU responds as '{name}' ({first_line(error)}): check "
                        "hardware.tpu_name, tpu_zone and tpu_project") from error


def worker_of_config() -> tuple[int, int]:
    """This worker's index and the number of workers, from TF_CONFIG."""
    if not os.environ.get("TF_CONFIG"):
        raise UserError("hardware=workers needs TF_CONFIG: the addresses of all workers and the "
                        'index of this one, {"cluster": {"worker": ["host:port", ...]}, "task": '
                        '{"type": "worker", "index": 0}}')
    try:
        cluster = json.loads(os.environ["TF_CONFIG"])
        kinds = {*cluster["cluster"], cluster["task"].get("type", "worker")}
        workers, index = len(cluster["cluster"]["worker"]), int(cluster["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("TF_CONFIG cannot be read: it must be JSON with cluster.worker, a list of "
                        "host:port, and task.index, this worker's index in it") from error
    if kinds != {"worker"}:
        raise UserError(f"TF_CONFIG names {', '.join(sorted(kinds - {'worker'}))}: only "
                        "tasks of type worker are supported; the first one writes the run")
    if not 0 <= index < workers:
        raise UserError(f"TF_CONFIG names worker {index} of {workers}: task.index counts from 0")
    return index, workers


def build_workers(_: Hardware) -> tuple[Any, str]:
    """This process as one of the workers in TF_CONFIG."""
    index, workers = worker_of_config()
    growing_gpus()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return (tf.distribute.MultiWorkerMirroredStrategy(),
                f"worker {index} of {workers} from TF_CONFIG")
    except (RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"hardware=workers: worker {index} cannot join the cluster of TF_CONFIG "
                        f"({first_line(error)}): is its port free?") from error
    finally:
        # TensorFlow installs a native SIGTERM handler for preemption notices; restore ours.
        signal.signal(signal.SIGTERM, handler)


def is_chief(hardware: Hardware) -> bool:
    """Whether this process writes the run folder: worker 0, or the only process."""
    return hardware.kind != "workers" or worker_of_config()[0] == 0

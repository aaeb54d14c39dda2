"""What a run costs at 10 and 1000 times the data and on 8 to 512 replicas; see docs/scale.md.

    python -m benchmarks.scale --json scale.json
    python -m benchmarks.scale --constants scale.json     # the tables again, nothing measured

Constants are measured (benchmarks/scale_constants.py), the tables derived from them, from the
project's own plan and from the cited and assumed numbers below, and printed as Markdown. The
yardstick of a cost is what a worker has: its memory, its cores, its links.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import apart
from flowerexp import composition
from flowerexp.config import Config, Dataset
from flowerexp.data import batching
from flowerexp.errors import UserError

SPLITS = {"train": 12_753, "val": 3_712, "test": 7_382}
"""Images of the Kaggle set, as flowerexp/data/sources.py has them."""
CLASSES, SIZE, EPOCHS = 104, 192, 30
DATA = (1, 10, 1000)
REPLICAS = (8, 64, 512)
PER_WORKER = 8
PASSES = {"train": 1, "val": 1, "test": 2}
"""How often a run reads a split with `records.read`: test at the start and when it predicts."""
MODES = ("decoded", "encoded", "none")

# Cited: docs/scale.md names the sources.
LINKS = {"TPU v3 link": 100e9, "TPU v4 link": 45e9, "A100 NVLink": 300e9,
         "100 Gbit Ethernet": 12.5e9}
"""Bytes per second that one link carries in one direction, without any loss."""
PEAKS = {"TPU v3 core": 61.5e12, "TPU v4 chip": 275e12, "A100": 312e12}
"""bf16 operations per second of a replica."""
# Assumed.
UTILISATIONS = (0.03, 0.10, 0.20)
TRAIN_OVER_FORWARD = 3
"""Operations of forward and backward over those of forward alone."""

Constants = Mapping[str, Any]
Rows = list[list[str]]


def assumed_counts() -> npt.NDArray[np.int64]:
    """int64 [104]: a long tail from 782 to 18 images, for the set's own counts are not here."""
    tail = 18 + 764 * np.exp(-0.0728 * np.arange(CLASSES))
    counts: npt.NDArray[np.int64] = np.round(tail).astype(np.int64)
    counts[40] += SPLITS["train"] - counts.sum()
    return counts


def ring_bytes(payload: float, members: int) -> float:
    """Bytes that each member of a ring sends to sum `payload` bytes over all (NCCL's formula)."""
    return 2 * (members - 1) / members * payload


def table_bytes(images: int, mode: str, constants: Constants, peak: bool = False) -> float:
    """Memory of a table on a worker: every worker keeps every record."""
    return images * float(constants[f"{mode}_peak_bytes" if peak else f"{mode}_bytes"])


def start_bytes(splits: Mapping[str, int], workers: int, constants: Constants) -> float:
    """Bytes that each worker reads to look at the records of every split, and of test again.

    With a table it is as one worker alone; without one it looks at its own files.
    """
    return float(constants["read_passes"] * constants["record_bytes"] / workers
                 * sum(PASSES[split] * images for split, images in splits.items()))


def epoch_bytes(splits: Mapping[str, int], workers: int, constants: Constants) -> float:
    """Bytes that each worker reads in an epoch with cache=none: its files of train and val."""
    return float(constants["record_bytes"] * (splits["train"] + splits["val"]) / workers)


def predictions_bytes(images: int, epochs: int, bytes_each: float) -> tuple[float, float]:
    """Size of valid_preds.json after the last epoch, and all that was written of it by then."""
    size = images * bytes_each
    return epochs * size, epochs * (epochs + 1) / 2 * size


def confusion_bytes(classes: int) -> int:
    """int64 [classes, classes]."""
    return 8 * classes**2


def train_flops(forward: float, images: float) -> float:
    return TRAIN_OVER_FORWARD * forward * images


def decode_cores(images_per_second: float, decode_seconds: float) -> float:
    """Cores that do nothing else than decode for replicas that take so many images."""
    return images_per_second * decode_seconds


def scaled(factor: int) -> dict[str, int]:
    return {split: factor * images for split, images in SPLITS.items()}


def derived(config: Config, factor: int, replicas: int) -> batching.Plan | None:
    """The project's own plan on `factor` times the data, sampling targets alike; None: refused."""
    if config.sampling.target_count is not None:
        config.sampling.target_count *= factor
    counts = assumed_counts() * factor
    try:
        return batching.derive(config, counts, max(1, replicas // PER_WORKER), replicas)
    except UserError:
        return None


def experiment(name: str) -> Config:
    return composition.check(composition.compose([f"experiment={name}"]))


def experiments() -> list[str]:
    """The eight of sweep=notebook, in its order."""
    sweep = composition.conf_folder() / "sweep" / "notebook.yaml"
    line = next(line for line in sweep.read_text(encoding="utf-8").splitlines()
                if line.strip().startswith("experiment:"))
    return line.partition(":")[2].strip().split(",")


# Text

def of_bytes(count: float) -> str:
    return quantity(count, ("B", "kB", "MB", "GB", "TB", "PB"))


def of_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def quantity(count: float, units: Sequence[str]) -> str:
    """Three digits and a unit of a thousand."""
    step = 0
    while count >= 999.5 and step < len(units) - 1:
        count, step = count / 1000, step + 1
    return f"{count:.3g} {units[step]}"


def markdown(title: str, header: Sequence[str], rows: Rows) -> str:
    lines = [f"**{title}**", "", "| " + " | ".join(header) + " |",
             "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


# The tables

def data_table(constants: Constants) -> str:
    rows: Rows = []
    parts = [scaled(factor) for factor in DATA]
    images = [each["train"] + each["val"] for each in parts]
    for mode in MODES:
        rows.append([f"memory of the table, `cache={mode}`",
                     *(of_bytes(table_bytes(count, mode, constants)) for count in images)])
        if mode == "decoded":  # the others end with what they took at most
            rows.append(["at most while it is decoded", *(of_bytes(table_bytes(
                count, mode, constants, True)) for count in images)])
    limit = Dataset().memory_gb * 2**30
    rows += [
        ["and its shuffle buffer, 1 worker", *(of_bytes(min(
            limit, each["train"] * constants["record_bytes"])) for each in parts)],
        ["read at the start and for the test set", *(of_bytes(start_bytes(each, 1, constants))
                                                     for each in parts)],
        ["CPU to read and check them, 1 worker", *(of_seconds(
            sum(each.values()) * constants["read_seconds"]) for each in parts)],
        ["the same with `on_bad_record=skip`", *(of_seconds(
            sum(each.values()) * constants["read_skipping_seconds"]) for each in parts)],
        ["order of an epoch, at most", *(of_bytes(each["train"] * constants["epoch_peak_bytes"])
                                         for each in parts)]]
    for workers in (1, 8, 64):
        told = f"`cache=none`, {workers} worker{'s' * (workers > 1)}"
        rows += [[f"{what}, {told}", *(of_bytes(count(each, workers, constants))
                                       for each in parts)]
                 for what, count in (("read at the start and for the test set", start_bytes),
                                     ("read in an epoch", epoch_bytes))]
    return markdown(f"A worker's memory and reading, {SIZE} px",
                    ["", *(f"data x{factor}" for factor in DATA)], rows)


def size_table(constants: Constants) -> str:
    images, rows = SPLITS["train"] + SPLITS["val"], []
    limit = Dataset().memory_gb * 2**30
    for size in (192, 224, 331, 512):
        decoded = images * 3 * size**2
        encoded = images * constants["jpeg_bytes"] * (size / SIZE)**2
        rows.append([f"{size}", of_bytes(decoded), of_bytes(encoded),
                     "decoded" if decoded <= limit else "encoded"])
    return markdown("The Kaggle set's sizes: pixels, JPEGs (at most), and what `auto` keeps",
                    ["px", "decoded", "encoded", "`cache=auto`"], rows)


def update_table() -> str:
    rows: Rows = []
    for name in ("optimized_loop", "accumulate_8", "oversample_300"):
        for replicas in REPLICAS:
            row = [f"`{name}`", str(replicas)]
            for factor in DATA:
                found = derived(experiment(name), factor, replicas)
                row.append("refused" if found is None else f"{found.updates_per_epoch:,} "
                           f"({found.examples_per_epoch % found.update_size:,})")
            steps = experiment(name).loop.gradient_accumulation_steps
            rows.append([*row[:2], f"{16 * replicas * steps:,}", *row[2:]])
    return markdown("Updates of an epoch (and examples that wait)", [
        "experiment", "replicas", "update", *(f"data x{factor}" for factor in DATA)], rows)


def reduce_table(constants: Constants) -> str:
    rows: Rows = []
    for name, model in constants["backbones"].items():
        payload = model["gradient_bytes"] + model["moving_bytes"]
        for replicas in REPLICAS:
            sent = ring_bytes(payload, replicas)
            cells = ["-" if (replicas > PER_WORKER and link == "A100 NVLink")
                     or (replicas <= PER_WORKER and link == "100 Gbit Ethernet")
                     else of_seconds(sent / speed) for link, speed in LINKS.items()]
            rows.append([name, str(replicas), of_bytes(payload), of_bytes(sent), *cells])
    return markdown("All-reduce of an update, at the links' full speed", [
        "model", "replicas", "payload", "sent by each", *LINKS], rows)


def step_table(constants: Constants) -> str:
    rows: Rows = []
    for name, model in constants["backbones"].items():
        one = train_flops(model["flops"], 1)
        for device, peak in PEAKS.items():
            rates = [share * peak / one for share in UTILISATIONS]
            rows.append([name, device, *(of_seconds(16 / rate) for rate in rates),
                         f"{PER_WORKER * rates[1]:,.0f}",
                         f"{decode_cores(PER_WORKER * rates[1], constants['decode_seconds']):,.1f}"
                         ])
    return markdown("Step of 16 images of a replica: an estimate", [
        "model", "device", *(f"at {share:.0%} of peak" for share in UTILISATIONS),
        "images/s of 8 at 10%", "cores that decode for them"], rows)


def model_table(constants: Constants) -> str:
    rows = [[name, f"{model['parameters']:,}", f"{model['flops'] / 1e9:.3g} GFLOP",
             of_seconds(model["train_seconds"]),
             f"{model['gradient_tensors']} + {model['moving_tensors']}",
             of_bytes(model["checkpoint_bytes"]), of_bytes(4 * model["checkpoint_bytes"]),
             of_seconds(model["checkpoint_seconds"]), of_bytes(model["model_file_bytes"])]
            for name, model in constants["backbones"].items()]
    return markdown("What is stored of a model", [
        "model", "parameters", "forward", "training an image, CPU", "tensors reduced", "checkpoint",
        "disk at most", "to save, CPU", "model.keras"], rows)


def result_table(constants: Constants) -> str:
    rows: Rows = []
    each = constants["prediction_bytes"]
    for factor in DATA:
        images = scaled(factor)
        size, written = predictions_bytes(images["val"], EPOCHS, each)
        cells = (images["val"] + images["test"]) * CLASSES
        rows.append([f"x{factor}", of_bytes(size), of_bytes(written), of_bytes(2 * cells),
                     of_bytes(images["test"] * CLASSES * (4 + constants["softmax_peak_bytes"])),
                     of_bytes(images["val"] * EPOCHS * constants["compare_peak_bytes"]),
                     of_seconds(10_000 * images["val"] * constants["draw_seconds"])])
    return markdown(f"Results of {EPOCHS} epochs, {CLASSES} classes", [
        "data", "valid_preds.json", "written of it in all", "both probs.npy", "test logits, memory",
        "`compare`: memory of a run", "CPU of a pair"], rows)


def class_table(constants: Constants) -> str:
    rows = [[f"{int(classes):,}", of_bytes(confusion_bytes(int(classes))),
             of_seconds(found["seconds"])] for classes, found in constants["confusion"].items()]
    return markdown("The confusion matrix by classes", ["classes", "bytes of one", "scores, CPU"],
                    rows)


def run_table(constants: Constants) -> str:
    """The eight runs on 8 TPU v3 cores; validation of every epoch and the test set included."""
    rows: Rows = []
    forward = constants["backbones"]["EfficientNetB7"]["flops"]
    total = 0.0
    for name in experiments():
        found = derived(experiment(name), 1, PER_WORKER)
        assert found is not None
        seen = found.updates * found.update_size
        flops = train_flops(forward, seen) + forward * (found.epochs * SPLITS["val"]
                                                         + SPLITS["val"] + SPLITS["test"])
        total += flops
        rows.append([f"`{name}`", f"{found.epochs}", f"{found.updates:,}", f"{seen:,}",
                     f"{flops / 1e15:.3g} PFLOP", *costs(flops)])
    rows.append(["all eight", "", "", "", f"{total / 1e15:.3g} PFLOP", *costs(total)])
    return markdown("The eight runs of `sweep=notebook` on 8 TPU v3 cores: an estimate", [
        "experiment", "epochs", "updates", "images trained on", "operations",
        *(f"at {share:.0%}" for share in UTILISATIONS)], rows)


def costs(flops: float) -> list[str]:
    peak = PER_WORKER * PEAKS["TPU v3 core"]
    return [of_seconds(flops / (share * peak)) for share in UTILISATIONS]


def tables(constants: Constants) -> list[str]:
    composition.register()
    return [data_table(constants), size_table(constants), update_table(),
            model_table(constants), reduce_table(constants), step_table(constants),
            result_table(constants), class_table(constants), run_table(constants)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    photos = Path(__file__).parents[2] / "shared/data/oxford102/tfrecords-jpeg-192x192"
    parser.add_argument("--data", default=str(photos), help="folder with train and val to measure")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, 5 or more")
    parser.add_argument("--batch", type=int, default=8, help="images of a measured step")
    parser.add_argument("--classes", type=int, nargs="+", default=[104, 5_000, 20_000],
                        help="of confusion matrices; 20,000 take 10 GB")
    parser.add_argument("--constants", type=Path, help="JSON of an earlier call, not measured anew")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args()
    if arguments.rounds < 5:
        parser.error("--rounds must be at least 5: a median of fewer means little")
    if arguments.constants:
        constants = json.loads(arguments.constants.read_text(encoding="utf-8"))["constants"]
    else:
        from benchmarks import scale_constants

        constants = scale_constants.measure(arguments.data, arguments.rounds, arguments.batch,
                                            arguments.classes, apart)
    texts = tables(constants)
    print("\n".join(texts))
    if arguments.json:
        arguments.json.write_text(json.dumps({"constants": constants, "tables": texts}, indent=1,
                                             allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Suggestions for a key that does not exist: names in other tools, typing errors."""

import difflib
from collections.abc import Collection, Iterable

FOREIGN = {
    "schedule.max_lr": "lr learning_rate base_lr peak_lr initial_lr",
    "schedule.end_lr": "min_lr final_lr eta_min",
    "schedule.warmup": "warmup_ratio warmup_epochs warmup_steps",
    "schedule": "scheduler lr_scheduler lr_schedule decay",
    "loop.batch_size_per_replica": "batch batch_size train_batch_size bs",
    "loop.eval_batch_size_per_replica": "eval_batch_size val_batch_size valid_batch_size",
    "loop.epochs": "epoch max_epochs num_epochs n_epochs",
    "loop.gradient_accumulation_steps": "accumulate accumulation accumulation_steps "
                                        "accumulate_grad_batches grad_accum grad_accum_steps",
    "loop.steps_per_execution": "steps_per_call",
    "optimizer": "opt solver",
    "optimizer.weight_decay": "wd decoupled_weight_decay",
    "optimizer.clip_norm": "clipnorm global_clipnorm grad_clip grad_clip_norm gradient_clip_val "
                           "max_grad_norm",
    "loss": "criterion loss_fn objective",
    "loss.label_smoothing": "smoothing",
    "model": "arch architecture backbone net network",
    "model.weights": "pretrained checkpoint",
    "model.dropout": "drop drop_rate dropout_rate",
    "dataset": "data",
    "dataset.root": "data_dir data_path data_root train_dir path",
    "dataset.image_size": "img_size imgsz image_shape input_size resolution size",
    "dataset.num_classes": "classes n_classes nclasses",
    "augmentation": "aug augment augmentations transform transforms",
    "sampling": "sampler balance",
    "hardware": "device accelerator strategy",
    "hardware.precision": "amp bf16 fp16 dtype mixed_precision",
    "hardware.replicas": "devices gpus num_gpus n_gpus num_replicas",
    "hardware.jit_compile": "jit xla compile",
    "seed": "random_seed random_state",
    "name": "run_name experiment_name exp_name",
    "hydra.run.dir": "output output_dir out_dir save_dir log_dir logdir",
}
"""Key or group of this project -> its names in other tools."""
FOREIGN_NAMES = {name.replace("_", ""): key for key, names in FOREIGN.items()
                 for name in names.split()}
ADVICE = {
    "head_lr": "all layers share schedule.max_lr, and model.trainable=false trains the head alone",
    "ema": "there is no option for averaged weights; parts of your own: docs/parts.md",
}
"""Last part of a key -> what to use instead."""


def hint(key: str, valid: Collection[str]) -> str:
    """`; did you mean 'loop.epochs'?` or other advice for an unknown key; empty if there is none.

    Args:
        key: dotted, as the user gave it.
        valid: all keys and groups that exist.
    """
    group, _, name = key.rpartition(".")
    if name in ADVICE:
        return f"; {ADVICE[name]}"
    siblings = {each.rpartition(".")[2]: each for each in valid
                if each.rpartition(".")[0] == group}
    same_name = [each for each in valid if each.rpartition(".")[2] == name]
    close = difflib.get_close_matches(name, siblings, 1, 0.6)
    if (bare := name.replace("_", "").lower()) in FOREIGN_NAMES:
        meant = FOREIGN_NAMES[bare]
    elif len(same_name) == 1:
        meant = same_name[0]
    elif close:
        meant = siblings[close[0]]
    else:
        meant = "" if siblings else next(iter(difflib.get_close_matches(key, valid, 1)), "")
    return f"; did you mean '{meant}'?" if meant else ""


def nearest(value: str, options: Iterable[str]) -> str:
    """`; did you mean X?` for the option nearest to `value`, or an empty text."""
    close = difflib.get_close_matches(str(value), [str(option) for option in options], 1, 0.5)
    return f"; did you mean '{close[0]}'?" if close else ""

"""The numbers that follow from a config, and the sentences that say them."""

import re

import numpy as np
import pytest

from flowerexp.config import Config, Loop, Model, Optimizer
from flowerexp.data import batching
from flowerexp.data.sampling import ClassWeight, Original, Oversample
from flowerexp.errors import UserError
from flowerexp.models.backbones import SmallCNN
from flowerexp.models.optimizers import Adam
from flowerexp.models.schedules import Constant, Cosine, Linear


def config_of(sampling=None, schedule=None, **loop):
    return Config(model=Model(SmallCNN()), sampling=sampling or Original(),
                  schedule=schedule or Constant(max_lr=1e-3), optimizer=Optimizer(Adam()),
                  loop=Loop(**loop))


def flower_counts():
    """104 long-tailed classes of 12,753 images, 782 in the commonest, about 18 in the rarest."""
    counts = np.round(18 + 764 * np.exp(-0.0728 * np.arange(104))).astype(int)
    counts[40] += 12_753 - counts.sum()
    return counts


def test_numbers_of_an_update():
    found = batching.derive(config_of(batch_size_per_replica=16, gradient_accumulation_steps=4,
                                  epochs=3), np.array([700, 300]), 1, 2)
    assert found.per_replica_batch == 64
    assert found.update_size == 128
    assert found.examples_per_epoch == 1000
    assert found.updates_per_epoch == 7  # 1000 // 128; the last 104 examples wait
    assert found.updates == 21
    assert found.epochs == 3
    assert found.eval_batch_size == 64
    assert found.replicas_per_worker == 2


def test_replicas_are_those_of_all_workers():
    found = batching.derive(config_of(), np.array([640]), 4, 8)
    assert (found.workers, found.replicas, found.replicas_per_worker) == (4, 8, 2)
    assert found.update_size == 128
    assert found.updates_per_epoch == 5


def test_example_budget_of_the_flower_competition():
    counts = flower_counts()
    examples = int(sum(count * max(1, 300 / count) for count in counts.tolist()))
    found = batching.derive(config_of(Oversample(300), epochs=30,
                                  keep_example_budget=True), counts, 1, 1)
    assert counts.sum() == 12_753
    assert found.examples_per_epoch == examples
    assert found.epochs == round(30 * 12_753 / examples) == 11
    assert found.updates_per_epoch == examples // 16


def test_without_the_budget_the_epochs_stay():
    found = batching.derive(config_of(Oversample(300), epochs=30), flower_counts(),
                            1, 1)
    assert found.epochs == 30


def test_budget_of_a_sampling_that_adds_nothing_keeps_the_epochs():
    for sampler in (Original(), ClassWeight()):
        found = batching.derive(config_of(sampler, epochs=7, keep_example_budget=True),
                            flower_counts(), 1, 1)
        assert found.epochs == 7


def test_budget_leaves_one_epoch_at_least():
    found = batching.derive(config_of(Oversample(10_000), epochs=3,
                                  keep_example_budget=True), np.array([20, 10]), 1, 1)
    assert found.epochs == 1


def test_updates_per_epoch_follow_the_sampling():
    counts = np.array([100, 10, 0])
    for sampling, examples in ((Original(), 110), (Oversample(50), 150),
                               (ClassWeight(), 110)):
        found = batching.derive(config_of(sampling), counts, 1, 1)
        assert (found.examples_per_epoch, found.updates_per_epoch) == (examples, examples // 16)


def test_epoch_of_no_update_is_refused():
    config = config_of(batch_size_per_replica=16, gradient_accumulation_steps=8)
    assert batching.derive(config, np.array([200, 56]), 1, 2).updates_per_epoch == 1
    with pytest.raises(UserError) as mistake:
        batching.derive(config, np.array([200, 55]), 1, 2)
    sentence = str(mistake.value)
    assert "\n" not in sentence
    for word in ("255", "256", "loop.batch_size_per_replica", "loop.gradient_accumulation_steps"):
        assert word in sentence


def test_sentences_say_the_numbers():
    config = config_of(Oversample(300), Cosine(1e-6, 4e-3, 1e-5, 0.2),
                       epochs=30, keep_example_budget=True, gradient_accumulation_steps=8,
                       lr_scaling=2.0)
    counts = flower_counts()
    found = batching.derive(config, counts, 1, 2)
    sampled, update, evaluation, rate = batching.sentences(config, found, counts)
    said = [int(number) for number in re.findall(r"\d+", sampled)]
    assert said == [300, 12_753, 104, counts.min(), 782, found.examples_per_epoch,
                    found.updates_per_epoch * 256]
    assert "oversample" in sampled
    for words in ("256 images = 16 per replica x 2 replicas x 8 accumulated",
                  f"{found.updates_per_epoch} updates per epoch", "11 epochs (of 30",
                  f"{11 * found.updates_per_epoch} updates in all"):
        assert words in update
    assert "128 images a step = 64 per replica x 2" in evaluation
    assert "2e-06 in the first update" in rate
    assert "0.008 at its greatest" in rate
    assert "cosine" in rate


def test_last_learning_rate_is_said():
    config = config_of(schedule=Linear(0.0, 1.0, 0.0, 0.0), epochs=1)
    counts = np.array([16 * 4])
    *_, rate = batching.sentences(config, batching.derive(config, counts, 1, 1), counts)
    assert "1 in the first update" in rate
    assert "0.25 in the last" in rate


def test_sentence_of_every_image_once():
    config = config_of()
    counts = np.array([30, 10, 0])
    sampled, update, *_ = batching.sentences(config, batching.derive(config, counts, 1, 1), counts)
    assert "40 images of 2 classes (10 to 30 each)" in sampled
    assert "uses 32" in sampled
    assert "1 replica x 1 accumulated" in update
    assert "30 epochs, 60 updates in all" in update


def test_an_epoch_that_no_memory_holds_is_refused():
    with pytest.raises(UserError, match=r"sampling\.target_count"):
        batching.derive(config_of(Oversample(10**9)), np.array([3, 4]), 1, 1)

"""The yardstick of benchmarks.step in PyTorch: MobileNet with alpha 0.25, eager, channels_last."""

import functools
from typing import Any

import torch
from torch import nn

from benchmarks.measuring import Seconds, seconds_of

BLOCKS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2),
          (256, 1))
"""Filters and stride of each depthwise separable block (Howard et al. 2017, table 1, a quarter)."""


def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Keras' layers: no biases, BatchNorm with momentum 0.99 and epsilon 1e-3, ReLU6."""
    return [nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs, 1e-3, 0.01), nn.ReLU6(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, 1e-3, 0.01), nn.ReLU6(inplace=True)]


def mobilenet(classes: int) -> nn.Module:
    """As many parameters as Keras' MobileNet(alpha=0.25) with a head of so many classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2, 1, bias=False),
                               nn.BatchNorm2d(8, 1e-3, 0.01), nn.ReLU6(inplace=True)]
    channels = 8
    for filters, stride in BLOCKS:
        layers += block(channels, filters, stride)
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(channels, classes))


@functools.cache
def prepared(classes: int, size: int, batch: int) -> tuple[Any, ...]:
    """Network, Adam, and decoded images and labels, once a process."""
    torch.manual_seed(0)
    model = mobilenet(classes).to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (16 * batch, 3, size, size), dtype=torch.uint8).to(
        memory_format=torch.channels_last)
    return model, torch.optim.Adam(model.parameters(), 1e-3), images, torch.randint(
        0, classes, (16 * batch,))


def epoch(classes: int, size: int, batch: int, updates: int) -> Seconds:
    """Seconds of `updates` updates on shuffled images that were decoded before."""
    model, optimizer, images, labels = prepared(classes, size, batch)

    def run() -> None:
        total = torch.zeros(())
        for _ in range(updates):
            chosen = torch.randperm(len(images))[:batch]
            pixels = images[chosen].float() / 255
            loss = nn.functional.cross_entropy(model(pixels), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()

    return seconds_of(run)

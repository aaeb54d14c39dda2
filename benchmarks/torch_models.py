"""MobileNet v1 in PyTorch for `step`: a separate process that trains on request.

    python -m benchmarks.torch_models BATCH SIZE UPDATES

Prints its parameter counts as a line of JSON, then trains an epoch for every line that it reads and
prints its seconds. No TensorFlow here, so that the threads of the libraries do not compete.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from torch import nn

from benchmarks.measuring import seconds_of

CLASSES = 104
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5,
          (1024, 2), (1024, 1))
"""Channels at width 1 and stride of the depthwise separable blocks (Howard et al. 2017, table 1).
"""


def mobilenet(alpha: float, dropout: float) -> nn.Sequential:
    """Images float32 [n, 3, height, width] -> logits [n, classes].

    Layers, BatchNorm constants and head are those of Keras and the project; a stride of 2 pads both
    sides by one, as is usual in PyTorch, while Keras pads one side by an extra layer.
    """
    def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
                    ) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
                nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01), nn.ReLU6(inplace=True)]

    channels = int(32 * alpha)
    layers = convolution(3, channels, 3, 2)
    for width, stride in BLOCKS:
        layers += convolution(channels, channels, 3, stride, groups=channels)
        layers += convolution(channels, int(width * alpha), 1)
        channels = int(width * alpha)
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(channels, CLASSES))


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Total parameters, with BatchNorm's statistics, and trainable ones, as Keras counts them."""
    trained = sum(parameter.numel() for parameter in model.parameters())
    kept = sum(buffer.numel() for name, buffer in model.named_buffers()
               if not name.endswith("num_batches_tracked"))
    return trained + kept, trained


def epoch_of(model: nn.Module, batch: int, size: int, updates: int) -> Callable[[], None]:
    """An epoch on shuffled uint8 images in memory, eager, channels last, Adam in its fused form."""
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (batch * updates, size, size, 3), np.uint8))
    labels = torch.from_numpy(random.integers(0, CLASSES, batch * updates))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    loss_of = nn.CrossEntropyLoss()

    def epoch() -> None:
        model.train()
        loss_sum = torch.zeros(())
        for rows in torch.randperm(len(pixels)).reshape(-1, batch):
            # With this order of axes the memory is channels last already.
            images = pixels[rows].permute(0, 3, 1, 2).float().div_(255)
            loss = loss_of(model(images), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach()
        assert loss_sum.isfinite()

    return epoch


def main() -> None:
    batch, size, updates = map(int, sys.argv[1:])
    model = mobilenet(alpha=0.25, dropout=0.05)
    epoch = epoch_of(model, batch, size, updates)
    print(json.dumps({"parameters": parameter_counts(model), "threads": torch.get_num_threads(),
                      "version": torch.__version__}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(asdict(seconds_of(epoch))), flush=True)


if __name__ == "__main__":
    main()

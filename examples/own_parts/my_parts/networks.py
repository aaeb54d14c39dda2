"""A backbone and a head."""

from dataclasses import dataclass

import tensorflow as tf

from flowerexp.config import Checked, key


@dataclass(frozen=True)
class TinyConvNeXt(Checked):
    """A small ConvNeXt-like backbone (Liu et al. 2022): depthwise 7 x 7, norm, inverted bottleneck.

    Stages halve the resolution and double the channels.
    """

    width: int = key(16, least=1)
    stages: int = key(3, least=1)
    blocks: int = key(1, least=1)
    name: str = "tiny_convnext"

    def __call__(self, image_size):
        layers = tf.keras.layers
        inputs = tf.keras.Input((image_size, image_size, 3))
        features = inputs
        for stage in range(self.stages):
            channels, stride = self.width * 2**stage, 4 if stage == 0 else 2
            features = layers.Conv2D(channels, stride, stride, padding="same",
                                     name=f"stage{stage}_down")(features)
            for block in range(self.blocks):
                name = f"stage{stage}_block{block}"
                mixed = layers.DepthwiseConv2D(7, padding="same", name=f"{name}_mix")(features)
                mixed = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(mixed)
                mixed = layers.Conv2D(4 * channels, 1, name=f"{name}_expand")(mixed)
                mixed = layers.Activation("gelu", name=f"{name}_gelu")(mixed)
                mixed = layers.Conv2D(channels, 1, name=f"{name}_project")(mixed)
                # Keras' own dropout is made one that repeats exactly.
                mixed = layers.Dropout(0.1, name=f"{name}_dropout")(mixed)
                features = layers.Add(name=f"{name}_add")([features, mixed])
        return tf.keras.Model(inputs, features, name=self.name)


@dataclass(frozen=True)
class MaxAndMean:
    """Global average and maximum pooling next to each other, then one dense layer in float32."""

    def __call__(self, features, num_classes):
        layers = tf.keras.layers
        pooled = layers.Concatenate(name="pool")([
            layers.GlobalAveragePooling2D(name="mean")(features),
            layers.GlobalMaxPooling2D(name="max")(features)])
        return layers.Dense(num_classes, dtype="float32", name="logits")(pooled)

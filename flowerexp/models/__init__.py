"""Models, losses, optimizers and learning rate schedules: built-in parts and their protocols.

`build.build` makes a Keras model of a backbone, dropout and a head; `layers` holds its own layers.
Only these two import TensorFlow when they are imported.
"""

"""Models, losses, optimizers and learning rate schedules: built-in parts and their protocols.

`build.build` makes a Keras model of a `backbones.Backbone`, dropout and a `heads.Head`. `losses`
(`Loss`, `bind`), `optimizers` (`Optimizer`, `build`) and `schedules` (`Schedule`, `learning_rates`)
hold the other parts, `layers` the Keras objects (`KeyedDropout`, `TableSchedule`, `portable`). Only
`build` and `layers` import TensorFlow when they are imported.
"""

"""Inference with finished runs: prediction, evaluation and export.

`trained` finds finished runs and their weights (`find`, `find_all`, `TrainedRun`), `inputs` finds
the images at a path (`find`, `Input`), and `load` restores a Keras model without running code from
a run folder. `prediction` averages one or several models (`Ensemble`, `predict`, `evaluate`,
`report`), and `export` writes a SavedModel. `trained` and `inputs` need no TensorFlow.
"""

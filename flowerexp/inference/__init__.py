"""What finished runs are used for: predicting, evaluating and exporting.

`trained` finds finished runs and their weights (`find`, `find_all`, `TrainedRun`), `inputs` finds
the images that a path names, and `load` restores a Keras model without running code from a run
folder. `prediction` averages one or several models (`Ensemble`, `predict`, `evaluate`, `report`),
and `export` writes a SavedModel. `trained`, `inputs` and the checks of `export` need no TensorFlow.
"""

"""Inference with finished runs: prediction, evaluation and export.

`trained` finds finished runs and loads their models (`find`, `find_all`, `load`, `TrainedRun`)
without running code from a run folder, `inputs` finds the images at a path (`find`, `Input`),
`prediction` averages one or several models (`Ensemble`, `Evaluation`), and `export` writes a
SavedModel (`write`). `api.results` puts them together. TensorFlow is imported on first use.
"""

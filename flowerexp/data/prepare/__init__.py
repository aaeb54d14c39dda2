"""Data preparation (`flowerexp data`): downloads, conversion to TFRecords, checks.

Public: the commands `convert.run` (a folder of photos or a CSV), `oxford102.run`, `kaggle.run` and
`checks.run`; `checks.check`, which returns the errors and warnings of a `Source`.
"""

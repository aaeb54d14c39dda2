"""Before a run: data sets are downloaded, converted to TFRecords and checked (`flowerexp data`).

Public: `convert.run` (a folder of photos or a CSV), `oxford102.run`, `kaggle.run` and `checks.run`
are the commands; `checks.check` returns what is wrong with a `Source`.
"""

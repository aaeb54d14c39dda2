"""Data sets: their sources and records, the order of an epoch, and the tf.data pipeline.

Public:

- `sources`: `Source` (a data set: TFRecord files or arrays), `Arrays` (a split in memory),
  `SourceFactory` (the protocol of a custom data set), `find` (the source that a config asks
  for)
- `splits`: `load` (the splits of a run and their fingerprint); `division`: how images are divided
- `tables`: `Table` (a split in memory), `DataIssue`; `records`: `read` (records as a `Table`),
  `ReadSpec` (what they must hold), `inspect` (every record with its issues); `tfrecord`: the files
- `sampling`: `epoch_indices` (the order of an epoch); `batching`: `Plan` (the sizes of an update)
- `pipeline`: `Split`, `training_batches`, `evaluation_batches`
- `sample`: the synthetic data set; `resizing`: photos of any size to squares
- the package `prepare`: photos and downloads to TFRecords, and the check of a data set

Of these modules, only `pipeline` imports TensorFlow when it is imported.
"""

"""One program per question: python -m benchmarks.NAME; see benchmarks/README.md."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # without TensorFlow's banners

"""flowerexp: experiments with image classifiers on imbalanced data."""

__version__ = "0.1.0"

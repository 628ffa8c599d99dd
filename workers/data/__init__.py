"""Labelled pictures in: read, checked, split, and handed out as batches.

Knows file formats and splits; knows no model, no training and no measurement.
"""

from workers.data.dataset import Dataset, open_dataset
from workers.data.fitting import warn_if_guessing, warn_if_trained_on
from workers.data.limits import Limits
from workers.data.loading import ImageData

__all__ = ["Dataset", "ImageData", "Limits", "open_dataset", "warn_if_guessing", "warn_if_trained_on"]

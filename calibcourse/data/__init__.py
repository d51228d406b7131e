"""Images and labels: one embedded data set that needs no network, six that torchvision fetches."""

from .dataset import Dataset, Split
from .label_noise import noisy_labels
from .loading import DATASETS, find_dataset, load_dataset
from .shift import shifted

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "find_dataset",
    "load_dataset",
    "noisy_labels",
    "shifted",
]

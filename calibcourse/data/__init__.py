"""Images and labels: one embedded data set that needs no network, six that torchvision fetches."""

from .dataset import Dataset, Split
from .loading import DATASETS, find_dataset, load_dataset

__all__ = ["DATASETS", "Dataset", "Split", "find_dataset", "load_dataset"]

"""The paper's own numbers, as it prints them: arXiv 2604.20614, CIFAR-10."""

import math

from .._checks import check_choice
from .configs import LABELS

# Table 1: Pearson correlation with Gauss-Newton sharpness, mean and standard deviation over four
# learning rates; "test" is its held-out half.
TABLE_1 = {
    "train_ece": {"gd": (0.83, 0.08), "sgd": (0.84, 0.07), "adamw": (0.72, 0.07),
                  "muon": (0.63, 0.26), "sam": (0.92, 0.04)},
    "train_kce": {"gd": (0.83, 0.08), "sgd": (0.84, 0.07), "adamw": (0.70, 0.08),
                  "muon": (0.61, 0.28), "sam": (0.91, 0.04)},
    "test_ece": {"gd": (0.96, 0.02), "sgd": (0.97, 0.01), "adamw": (0.15, 0.15),
                 "muon": (-0.10, 0.28), "sam": (0.98, 0.01)},
    "test_kce": {"gd": (0.97, 0.01), "sgd": (0.97, 0.01), "adamw": (0.21, 0.22),
                 "muon": (-0.16, 0.31), "sam": (0.98, 0.01)},
}  # fmt: skip

# Tables 2 and A2, ResNet-20 on test images: accuracy in %, its standard deviation, ECE, its
# standard deviation, over three seeds.
TEST = {
    ("sgd", "CE"): (75.2, 1.2, 0.081, 0.021),
    ("sgd", "Flat"): (80.8, 0.1, 0.053, 0.003),
    ("sgd", "Rob"): (78.2, 0.9, 0.062, 0.011),
    ("sgd", "CalMO"): (80.1, 1.4, 0.056, 0.001),
    ("sgd", "label smoothing"): (81.0, 1.0, 0.082, 0.009),
    ("sgd", "focal"): (78.0, 2.9, 0.029, 0.018),
    ("adamw", "CE"): (80.7, 0.4, 0.061, 0.007),
    ("adamw", "Flat"): (83.3, 0.9, 0.047, 0.002),
    ("adamw", "Rob"): (82.4, 0.2, 0.039, 0.009),
    ("adamw", "CalMO"): (83.2, 1.1, 0.045, 0.007),
    ("adamw", "label smoothing"): (85.8, 0.1, 0.059, 0.002),
    ("adamw", "focal"): (80.5, 1.3, 0.042, 0.019),
    ("muon", "CE"): (80.3, 0.3, 0.065, 0.016),
    ("muon", "Flat"): (81.0, 0.2, 0.046, 0.012),
    ("muon", "Rob"): (81.9, 0.4, 0.052, 0.010),
    ("muon", "CalMO"): (81.7, 0.9, 0.019, 0.002),
    ("muon", "label smoothing"): (82.4, 0.7, 0.045, 0.003),
    ("muon", "focal"): (78.7, 0.5, 0.025, 0.017),
    ("sam", "CE"): (85.0, 0.3, 0.020, 0.005),
    ("sam", "Flat"): (84.1, 0.3, 0.016, 0.004),
    ("sam", "Rob"): (85.5, 0.4, 0.021, 0.006),
    ("sam", "CalMO"): (85.2, 0.4, 0.017, 0.005),
    ("sam", "label smoothing"): (86.2, 0.5, 0.067, 0.004),
    ("sam", "focal"): (84.0, 1.0, 0.089, 0.010),
}
# Table A1, on training images; nan where the paper gives no spread.
TRAIN = {
    ("sgd", "CE"): (100.0, math.nan, 0.000, math.nan),
    ("adamw", "CE"): (100.0, math.nan, 0.000, math.nan),
    ("muon", "CE"): (99.5, math.nan, 0.003, 0.001),
    ("sam", "CE"): (100.0, math.nan, 0.006, 0.002),
    ("sgd", "CalMO"): (100.0, math.nan, 0.004, math.nan),
    ("adamw", "CalMO"): (100.0, math.nan, 0.004, math.nan),
    ("muon", "CalMO"): (99.9, math.nan, 0.008, math.nan),
    ("sam", "CalMO"): (100.0, math.nan, 0.014, 0.001),
}


def published(column: str) -> dict[str, tuple[float, float]]:
    """The paper's row of Table 1: label of the optimizer -> mean and standard deviation.

    Raises:
        ValueError: not a row of the table.

    Example:
        >>> published("train_ece")["Muon"]
        (0.63, 0.26)
    """
    check_choice(column, "column", TABLE_1)
    return {LABELS[optimizer]: values for optimizer, values in TABLE_1[column].items()}

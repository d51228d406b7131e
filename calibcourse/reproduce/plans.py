"""Which runs each figure and table needs, and how large they are: `plan` lists them all.

A profile gives every data set its budget: an optimizer's learning rates, each with its own number
of steps. A data set that it does not name is run like the profile's default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from .._checks import check_choice
from ..data import DATASETS
from .configs import METHODS, ComparisonConfig, Config, ShiftConfig, TrajectoryConfig


@dataclass(frozen=True)
class Budget:
    """How one optimizer is run.

    Attributes:
        steps: learning rate -> number of updates.
        options: of the optimizer; one set of runs for each.
    """

    steps: Mapping[float, int]
    options: tuple[Mapping[str, Any], ...] = ({},)


@dataclass(frozen=True)
class Size:
    """What is spent on one data set.

    Attributes:
        train_samples, held_out_samples: how many images of its training and test parts.
        batch_size: of every optimizer but gd, which takes all training images at once.
        budgets: by optimizer.
    """

    train_samples: int
    held_out_samples: int
    batch_size: int
    budgets: Mapping[str, Budget]


@dataclass(frozen=True)
class Profile:
    """The size of every experiment: quick for two CPU cores and an hour, full for a GPU.

    Attributes:
        default_dataset: the data set where none is asked for; its sizes serve those not named here.
        model: of the comparison; trajectories are those of an MLP.
        trajectories, comparisons: data set -> size.
    """

    default_dataset: str
    model: str
    trajectories: Mapping[str, Size]
    comparisons: Mapping[str, Size]


def _each(learning_rates: Sequence[float], steps: int) -> dict[float, int]:
    """Learning rates that all run for the same number of steps."""
    return dict.fromkeys(learning_rates, steps)


BULK = tuple({"directions": k} for k in (1, 3, 5))
_QUICK_SGD = _each((0.05, 0.1, 0.2, 0.4), 4000)
_FULL_SGD = _each((2 / 100, 2 / 70, 2 / 50, 2 / 30), 50_000)
_QUICK_TRAJECTORIES = {
    "fashion_mnist_small": Size(
        train_samples=1000,
        held_out_samples=5000,
        batch_size=100,
        budgets={
            "gd": Budget(_each((0.05, 0.1, 0.2, 0.4), 3000)),
            "sgd": Budget(_QUICK_SGD),
            "adamw": Budget(_each((0.0001, 0.0003, 0.001, 0.003), 3000)),
            "muon": Budget(_each((0.001, 0.002, 0.004, 0.008), 1500)),
            "sam": Budget(_QUICK_SGD),
            "bulk_sgd": Budget(_each((0.1, 0.2), 4000), BULK),
        },
    ),
    # The paper's 2/70 and 2/30 are among the learning rates. Every run is half as long again as a
    # pilot with seed 100, which no table uses, needed until all training images were right and the
    # sharpness had fallen to 0.3 of its peak, rounded up to hundreds: looked at were training
    # accuracy and sharpness, nothing else. Muon's rates are the smallest that two cores can follow.
    "cifar10_small": Size(
        train_samples=2000,
        held_out_samples=1600,
        batch_size=100,
        budgets={
            # Full batches are twenty times the work: two rates are what two cores do in an hour.
            "gd": Budget({2 / 30: 3000, 2 / 15: 1500}),
            "sgd": Budget({2 / 70: 6000, 2 / 30: 3000, 2 / 15: 1500}),
            "adamw": Budget({0.0001: 3900, 0.0003: 1700, 0.001: 800}),
            "muon": Budget({0.002: 1200, 0.004: 700, 0.008: 400}),
            "sam": Budget({2 / 70: 4800, 2 / 30: 2700, 2 / 15: 1800}),
            "bulk_sgd": Budget({2 / 70: 6000, 2 / 30: 3000}, BULK),
        },
    ),
}
# The paper's 5,000 images. It names 2/70 and 2/30 for BulkSGD and up to 100,000 steps there; the
# other learning rates and lengths are ours.
_FULL_TRAJECTORIES = {
    "cifar10": Size(
        train_samples=5000,
        held_out_samples=5000,
        batch_size=128,
        budgets={
            "gd": Budget(_FULL_SGD),
            "sgd": Budget(_FULL_SGD),
            "adamw": Budget(_each((0.0001, 0.0003, 0.001, 0.003), 20_000)),
            "muon": Budget(_each((0.0003, 0.001, 0.003, 0.01), 20_000)),
            "sam": Budget(_FULL_SGD),
            "bulk_sgd": Budget(_each((2 / 70, 2 / 30), 100_000), BULK),
        },
    ),
}

# Momentum the paper leaves open: 0.9 is ours. No weight decay: it would move the margins that are
# compared. The batch size, 128, is the paper's.
MOMENTUM = ({"momentum": 0.9},)
_QUICK_COMPARISONS = {
    # The paper's learning rates are 0.01 and, for AdamW, 0.001, for 10,000 steps. In 1,500 steps
    # SGD and SAM do not interpolate with 0.01, as they do in the paper (its Table A1); 0.05 is the
    # smallest of 0.01, 0.03, 0.05, 0.1 with which SGD fits all training images, tried with
    # cross-entropy and seed 100, which no table uses, looking at training accuracy alone.
    "fashion_mnist_small": Size(
        train_samples=4500,
        held_out_samples=5000,
        batch_size=128,
        budgets={
            "sgd": Budget({0.05: 1500}, MOMENTUM),
            "adamw": Budget({0.001: 1500}),
            "muon": Budget({0.01: 1500}),
            "sam": Budget({0.05: 1500}, MOMENTUM),
        },
    ),
    # The same rule finds 0.01, the paper's own: on these 2,000 images SGD fits all of them with it.
    "cifar10_small": Size(
        train_samples=2000,
        held_out_samples=1600,
        batch_size=128,
        budgets={
            "sgd": Budget({0.01: 1500}, MOMENTUM),
            "adamw": Budget({0.001: 1500}),
            "muon": Budget({0.01: 1500}),
            "sam": Budget({0.01: 1500}, MOMENTUM),
        },
    ),
}
_FULL_COMPARISONS = {
    "cifar10": Size(
        train_samples=45_000,
        held_out_samples=10_000,
        batch_size=128,
        budgets={
            "sgd": Budget({0.01: 10_000}, MOMENTUM),
            "adamw": Budget({0.001: 10_000}),
            "muon": Budget({0.01: 10_000}),
            "sam": Budget({0.01: 10_000}, MOMENTUM),
        },
    ),
}
PROFILES = {
    "quick": Profile("fashion_mnist_small", "small_cnn", _QUICK_TRAJECTORIES, _QUICK_COMPARISONS),
    "full": Profile("cifar10", "resnet20", _FULL_TRAJECTORIES, _FULL_COMPARISONS),
}


@dataclass(frozen=True)
class Trajectories:
    """What a figure or table of trajectories shows: these optimizers, these columns."""

    optimizers: tuple[str, ...]
    columns: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class Comparison:
    """What a table of the comparison shows: these methods for these optimizers.

    Attributes:
        methods, optimizers, title: as shown.
        config: the kind of its runs.
        settings: fields of theirs that are not by default.
    """

    methods: tuple[str, ...]
    optimizers: tuple[str, ...]
    title: str
    config: type[ComparisonConfig] = ComparisonConfig
    settings: Mapping[str, Any] = field(default_factory=dict)


FIVE = ("gd", "sgd", "adamw", "muon", "sam")
FOUR = ("sgd", "adamw", "muon", "sam")

# The columns are those that the paper's figures of these names are about (its Sec. 3, App. A).
TRAJECTORIES = {
    "figure1": Trajectories(
        ("gd", "sgd"),
        ("sharpness", "train_ece"),
        "Training ECE rises and falls with sharpness",
    ),
    "figure2": Trajectories(
        FIVE,
        ("sharpness", "train_ece", "test_ece"),
        "Five optimizers: sharpness, training ECE, test ECE",
    ),
    "figure3": Trajectories(
        ("sgd", "bulk_sgd"),
        ("sharpness", "train_ece", "train_loss"),
        "Without the steepest directions: BulkSGD beside SGD",
    ),
    "figureA1": Trajectories(
        FIVE,
        ("sharpness", "batch_sharpness", "train_ece", "train_kce", "test_ece", "test_kce"),
        "Every quantity, every optimizer",
    ),
    # Not a figure of the paper: what lesson 03's explorer moves through.
    "edge_of_stability": Trajectories(
        ("gd",),
        ("sharpness", "train_loss"),
        "Gradient descent: sharpness climbs to 2/lr, hovers, and falls",
    ),
    "table1": Trajectories(
        FIVE,
        ("sharpness", "train_ece"),
        "Correlation of calibration error with sharpness along training",
    ),
    # The union of the runs above; with its folder every one of them is only drawn, not run.
    "all": Trajectories(
        (*FIVE, "bulk_sgd"),
        ("sharpness", "train_ece", "test_ece"),
        "The whole sweep",
    ),
}
COMPARISONS = {
    "table2": Comparison(("CE", "Flat", "Rob", "CalMO"), FOUR, "Accuracy and ECE on test images"),
    "tableA1": Comparison(("CE", "CalMO"), FOUR, "Accuracy and ECE on training images"),
    "tableA2": Comparison(("label smoothing", "focal"), FOUR, "The other training-time methods"),
    # No table of the paper: the union of those above, and the weights that it leaves untuned.
    "methods": Comparison(tuple(METHODS), FOUR, "Every method, every optimizer"),
    "grid": Comparison(tuple(METHODS), ("sgd",), "CalMO's two weights, chosen on validation data"),
    # Nor is this: networks of the comparison, shown images that training never showed them.
    # Looked at before and after training: the way there is in "methods".
    "shift": Comparison(
        ("CE", "label smoothing", "CalMO"),
        ("sgd",),
        "Calibration under a shift of the images",
        ShiftConfig,
        {"probes": 2},
    ),
}
GRID = {"robust_weight": (0.0, 0.5, 1.0, 2.0), "smooth_weight": (0.0, 0.001, 0.01, 0.1)}


def plan(
    name: str,
    profile: str = "quick",
    dataset: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    device: str = "cpu",
) -> list[Config]:
    """The runs that a figure or table needs, seed by seed, so that a part of them is a picture.

    Args:
        name: one of `TRAJECTORIES` or `COMPARISONS`.
        profile: "quick" or "full".
        dataset: name for `load_dataset`; None is the profile's own.
        seeds: one run of everything per seed.
        device: "cpu" or "cuda".

    Returns:
        Configurations, all different and of one kind; the grid's cells with a weight of 0 are CE,
        Flat and Rob.

    Raises:
        ValueError, TypeError: an unknown name, profile or data set (the error lists the choices); a
            seed that is negative, no integer, or there twice.

    Example:
        >>> len(plan("table1"))  # 5 optimizers x 4 learning rates x 3 seeds
        60
        >>> plan("figure3", seeds=[0])[-1].label
        'BulkSGD 5'
        >>> len(plan("table2"))  # 4 optimizers x 4 methods x 3 seeds
        48
    """
    check_choice(name, "name", [*TRAJECTORIES, *COMPARISONS])
    check_choice(profile, "profile", PROFILES)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be different numbers, at least one, got {list(seeds)}")
    chosen = PROFILES[profile]
    dataset = chosen.default_dataset if dataset is None else dataset
    check_choice(dataset, "dataset", DATASETS)
    sizes = chosen.trajectories if name in TRAJECTORIES else chosen.comparisons
    size = sizes.get(dataset, sizes[chosen.default_dataset])
    configs: list[Config] = []
    for seed, (optimizer, lr, steps, options) in product(seeds, _optimizers(name, size)):
        shared: dict[str, Any] = dict(
            dataset=dataset,
            optimizer=optimizer,
            lr=lr,
            steps=steps,
            batch_size=None if optimizer == "gd" else size.batch_size,
            train_samples=size.train_samples,
            held_out_samples=size.held_out_samples,
            seed=seed,
            options=dict(options),
            device=device,
        )
        if name in TRAJECTORIES:
            configs.append(TrajectoryConfig(**shared))
        else:
            shown = COMPARISONS[name]
            shared |= {"model": chosen.model, **shown.settings}
            configs += [
                shown.config(**shared, loss=loss, loss_options=dict(weights))
                for loss, weights in _losses(name)
            ]
    return configs


def _optimizers(name: str, size: Size) -> list[tuple[str, float, int, Mapping[str, Any]]]:
    """Optimizer, learning rate, steps and options of everything that a figure or table shows."""
    shown = TRAJECTORIES[name] if name in TRAJECTORIES else COMPARISONS[name]
    return [
        (optimizer, lr, steps, options)
        for optimizer in shown.optimizers
        for options in size.budgets[optimizer].options
        for lr, steps in size.budgets[optimizer].steps.items()
    ]


def _losses(name: str) -> list[tuple[str, dict[str, float]]]:
    """Losses with their options. In the grid's corner, where both weights are 0, is CE."""
    if name != "grid":
        return [METHODS[method] for method in COMPARISONS[name].methods]
    cells = [dict(zip(GRID, pair, strict=True)) for pair in product(*GRID.values())]
    return [("calmo", cell) if any(cell.values()) else METHODS["CE"] for cell in cells]

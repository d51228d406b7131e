"""Which runs the comparison of training methods needs: Tables 2, A1 and A2, and a grid of weights.

A method is a loss with its options; cross-entropy with a fitted temperature is no run of its own,
since every run also reports its test logits at the temperature that its validation data choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from .._checks import check_choice, check_integer, check_real
from ..data import DATASETS
from ..history import even_steps
from ..losses import CalMO, CrossEntropy, FocalLoss
from ..optimizers import OPTIMIZERS
from .configs import Config

LOSSES = {"cross_entropy": CrossEntropy, "focal": FocalLoss, "calmo": CalMO}
MODELS = ("small_cnn", "resnet20")

# The paper's weights, λ_r = 0.5 and λ_s = 0.01, "untuned".
METHODS: dict[str, tuple[str, dict[str, float]]] = {
    "CE": ("cross_entropy", {}),
    "Flat": ("calmo", {"robust_weight": 0.0, "smooth_weight": 0.01}),
    "Rob": ("calmo", {"robust_weight": 0.5, "smooth_weight": 0.0}),
    "CalMO": ("calmo", {"robust_weight": 0.5, "smooth_weight": 0.01}),
    "label smoothing": ("cross_entropy", {"label_smoothing": 0.1}),
    "focal": ("focal", {"gamma": 2.0}),
}
GRID = {"robust_weight": (0.0, 0.5, 1.0, 2.0), "smooth_weight": (0.0, 0.001, 0.01, 0.1)}


@dataclass(frozen=True)
class MethodConfig(Config):
    """Everything that decides one run of the comparison.

    Args:
        dataset: name for `load_dataset`.
        model: "small_cnn" or "resnet20".
        optimizer: name for `make_optimizer`; options: its options.
        lr: learning rate.
        loss: "cross_entropy", "focal" or "calmo"; loss_options: its options.
        steps: updates.
        batch_size: samples per update.
        train_samples, held_out_samples: the first so many images of the training and test parts.
        seed: decides the initial weights and the batches.
        probes: how often, evenly spaced, training and validation data are looked at; the
            best-validation step is one of these.
        attacked_samples: the first so many training and test images whose robust margins are taken.
        threads: of torch, on the CPU.
        device: "cpu" or "cuda".

    Raises:
        ValueError, TypeError: a field of the wrong kind or range.
    """

    dataset: str
    model: str
    optimizer: str
    lr: float
    loss: str
    steps: int
    batch_size: int
    train_samples: int
    held_out_samples: int
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    loss_options: dict[str, float] = field(default_factory=dict)
    probes: int = 31
    attacked_samples: int = 1000
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice(self.dataset, "dataset", DATASETS)
        check_choice(self.model, "model", MODELS)
        check_choice(self.optimizer, "optimizer", OPTIMIZERS)
        check_choice(self.loss, "loss", LOSSES)
        check_choice(self.device, "device", ("cpu", "cuda"))
        check_real(self.lr, "lr", 0.0, strict=True)
        for name, minimum in _MINIMA.items():
            check_integer(getattr(self, name), name, minimum)
        for name in ("options", "loss_options"):
            if not isinstance(getattr(self, name), dict):
                found = type(getattr(self, name)).__name__
                raise TypeError(f"{name} must be a dict, got {found}")
        self.make_loss()

    def make_loss(self) -> CrossEntropy | FocalLoss | CalMO:
        """The training objective."""
        return LOSSES[self.loss](**self.loss_options)

    @property
    def label(self) -> str:
        """What the method is called in figures and tables."""
        for name, method in METHODS.items():
            if method == (self.loss, self.loss_options):
                return name
        values = self.loss_options.values()
        weights = ", ".join(f"{v:g}" if isinstance(v, int | float) else str(v) for v in values)
        return f"{LOSSES[self.loss].__name__}({weights})"

    @property
    def slug(self) -> str:
        """The readable part of the key."""
        method = "".join(c for c in self.label.lower() if c.isalnum())
        return f"{self.dataset}-{self.model}-{self.optimizer}-{method}"

    @property
    def probe_steps(self) -> list[int]:
        """The steps at which training and validation data are looked at."""
        return even_steps(self.steps, self.probes)


_MINIMA = {
    "steps": 1,
    "batch_size": 1,
    "train_samples": 1,
    "held_out_samples": 1,
    "seed": 0,
    "probes": 2,
    "attacked_samples": 1,
    "threads": 1,
}


@dataclass(frozen=True)
class MethodProfile:
    """The size of the comparison; optimizers: learning rate and options of each."""

    default_dataset: str
    model: str
    steps: int
    train_samples: int
    held_out_samples: int
    optimizers: dict[str, tuple[float, dict[str, float]]]


# The paper's batch size. Momentum it leaves open: 0.9 is ours. No weight decay: it would move the
# margins that are compared.
BATCH_SIZE = 128
MOMENTUM = {"momentum": 0.9}
METHOD_PROFILES = {
    # The paper's learning rates are 0.01 and, for AdamW, 0.001, for 10,000 steps. In 1,500 steps
    # SGD and SAM do not interpolate with 0.01, as they do in the paper (its Table A1); 0.05 is the
    # smallest of 0.01, 0.03, 0.05, 0.1 with which SGD fits all training images, tried with
    # cross-entropy and seed 100, which no table uses, looking at training accuracy alone.
    "quick": MethodProfile(
        default_dataset="fashion_mnist_small",
        model="small_cnn",
        steps=1500,
        train_samples=4500,
        held_out_samples=5000,
        optimizers={
            "sgd": (0.05, MOMENTUM),
            "adamw": (0.001, {}),
            "muon": (0.01, {}),
            "sam": (0.05, MOMENTUM),
        },
    ),
    "full": MethodProfile(
        default_dataset="cifar10",
        model="resnet20",
        steps=10_000,
        train_samples=45_000,
        held_out_samples=10_000,
        optimizers={
            "sgd": (0.01, MOMENTUM),
            "adamw": (0.001, {}),
            "muon": (0.01, {}),
            "sam": (0.01, MOMENTUM),
        },
    ),
}


@dataclass(frozen=True)
class Table:
    """What a table of the comparison shows: these methods for these optimizers."""

    methods: tuple[str, ...]
    optimizers: tuple[str, ...]
    title: str


FOUR = ("sgd", "adamw", "muon", "sam")
TABLES = {
    "table2": Table(("CE", "Flat", "Rob", "CalMO"), FOUR, "Accuracy and ECE on test images"),
    "tableA1": Table(("CE", "CalMO"), FOUR, "Accuracy and ECE on training images"),
    "tableA2": Table(("label smoothing", "focal"), FOUR, "The other training-time methods"),
    # No table of the paper: the union of those above, and the weights that it leaves untuned.
    "methods": Table(tuple(METHODS), FOUR, "Every method, every optimizer"),
    "grid": Table(tuple(METHODS), ("sgd",), "CalMO's two weights, chosen on validation data"),
}


def plan_methods(
    table: str,
    profile: str = "quick",
    dataset: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    device: str = "cpu",
) -> list[MethodConfig]:
    """The runs that a table of the comparison needs, seed by seed.

    Args:
        table: one of `TABLES`.
        profile: "quick" or "full".
        dataset: name for `load_dataset`; None is the profile's own.
        seeds: one run of everything per seed.
        device: "cpu" or "cuda".

    Returns:
        Configurations, all different; the grid's cells with a weight of 0 are CE, Flat and Rob.

    Raises:
        ValueError, TypeError: an unknown table, profile or data set (the error lists the choices).

    Example:
        >>> len(plan_methods("table2"))  # 4 optimizers x 4 methods x 3 seeds
        48
    """
    check_choice(table, "table", TABLES)
    check_choice(profile, "profile", METHOD_PROFILES)
    size = METHOD_PROFILES[profile]
    losses = _grid() if table == "grid" else [METHODS[name] for name in TABLES[table].methods]
    return [
        MethodConfig(
            dataset=size.default_dataset if dataset is None else dataset,
            model=size.model,
            optimizer=optimizer,
            lr=size.optimizers[optimizer][0],
            options=dict(size.optimizers[optimizer][1]),
            loss=loss,
            loss_options=dict(options),
            steps=size.steps,
            batch_size=BATCH_SIZE,
            train_samples=size.train_samples,
            held_out_samples=size.held_out_samples,
            seed=seed,
            device=device,
        )
        for seed in seeds
        for optimizer in TABLES[table].optimizers
        for loss, options in losses
    ]


def _grid() -> list[tuple[str, dict[str, float]]]:
    """A loss for every pair of weights; where both are 0 it is cross-entropy."""
    cells = [dict(zip(GRID, pair, strict=True)) for pair in product(*GRID.values())]
    return [("calmo", cell) if any(cell.values()) else METHODS["CE"] for cell in cells]

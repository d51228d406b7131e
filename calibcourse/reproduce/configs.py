"""Which runs a figure or table needs: every run is one `RunConfig`, every number of it is here."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from .._checks import check_choice, check_integer, check_real
from ..data import DATASETS
from ..history import even_steps, log_steps
from ..optimizers import OPTIMIZERS


class Config:
    """What every kind of configuration can do; its fields are those of the dataclass below it."""

    seed: int
    label: str
    slug: str

    @property
    def key(self) -> str:
        """A file name: readable, and different for any two configurations."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.slug}-seed{self.seed}-{digest[:8]}"

    @classmethod
    def from_dict(cls, record: Any) -> Self:
        """Rebuild a configuration from plain data, which may be anybody's.

        Raises:
            ValueError, TypeError: not an object, unknown or missing fields, or a bad value.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(record, dict) or record.keys() != names:
            raise ValueError(f"a configuration must have exactly the fields {sorted(names)}")
        return cls(**record)


@dataclass(frozen=True)
class RunConfig(Config):
    """Everything that decides one training run of the paper's MLP (tanh, cross-entropy).

    Args:
        dataset: name for `load_dataset`.
        optimizer: name for `make_optimizer`; options: its options.
        lr: learning rate.
        steps: updates.
        batch_size: None is the full batch.
        train_samples, held_out_samples: the first so many images of the training and test parts.
        seed: decides the initial weights and the batches.
        hidden: widths of the hidden layers.
        even_probes, log_probes: numbers of probes, evenly and logarithmically spaced in steps.
        threads: of torch, on the CPU; a number in a sum may depend on it in the last bit.
        device: "cpu" or "cuda".

    Raises:
        ValueError, TypeError: a field of the wrong kind or range.
    """

    dataset: str
    optimizer: str
    lr: float
    steps: int
    batch_size: int | None
    train_samples: int
    held_out_samples: int
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    hidden: tuple[int, ...] = (200, 200)
    even_probes: int = 41
    log_probes: int = 17
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice(self.dataset, "dataset", DATASETS)
        check_choice(self.optimizer, "optimizer", OPTIMIZERS)
        check_choice(self.device, "device", ("cpu", "cuda"))
        check_real(self.lr, "lr", 0.0, strict=True)
        if not isinstance(self.options, dict):
            raise TypeError(f"options must be a dict, got {type(self.options).__name__}")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            check_integer(width, "hidden", 1)
        if self.batch_size is not None:
            check_integer(self.batch_size, "batch_size", 1)
        for name, minimum in _MINIMA.items():
            check_integer(getattr(self, name), name, minimum)

    @property
    def label(self) -> str:
        """What the run is called in figures and tables: the optimizer and its options."""
        if self.optimizer == "bulk_sgd":
            return f"BulkSGD {self.options['directions']}"
        return LABELS[self.optimizer]

    @property
    def slug(self) -> str:
        """The readable part of the key."""
        return f"{self.dataset}-{self.label.lower().replace(' ', '')}-lr{self.lr:g}"

    @property
    def even_steps(self) -> list[int]:
        """The evenly spaced probe steps, on which Table 1 is computed."""
        return even_steps(self.steps, self.even_probes)

    @property
    def probe_steps(self) -> list[int]:
        """All probe steps: evenly spaced, and logarithmically for the early phase."""
        return sorted({*self.even_steps, *log_steps(self.steps, self.log_probes)})


_MINIMA = {
    "steps": 1,
    "train_samples": 1,
    "held_out_samples": 1,
    "seed": 0,
    "even_probes": 2,
    "log_probes": 2,
    "threads": 1,
}

LABELS = {"gd": "GD", "sgd": "SGD", "adamw": "AdamW", "muon": "Muon", "sam": "SAM"}


@dataclass(frozen=True)
class Budget:
    """How one optimizer is run in a profile."""

    learning_rates: tuple[float, ...]
    steps: int
    options: tuple[dict[str, Any], ...] = ({},)


@dataclass(frozen=True)
class Profile:
    """The size of an experiment: quick for two CPU cores and an hour, full for a GPU."""

    default_dataset: str
    train_samples: int
    held_out_samples: int
    batch_size: int
    budgets: dict[str, Budget]


BULK = tuple({"directions": k} for k in (1, 3, 5))

PROFILES = {
    "quick": Profile(
        default_dataset="fashion_mnist_small",
        train_samples=1000,
        held_out_samples=5000,
        batch_size=100,
        budgets={
            "gd": Budget((0.05, 0.1, 0.2, 0.4), 3000),
            "sgd": Budget((0.05, 0.1, 0.2, 0.4), 4000),
            "adamw": Budget((0.0001, 0.0003, 0.001, 0.003), 3000),
            "muon": Budget((0.001, 0.002, 0.004, 0.008), 1500),
            "sam": Budget((0.05, 0.1, 0.2, 0.4), 4000),
            "bulk_sgd": Budget((0.1, 0.2), 4000, BULK),
        },
    ),
    # The paper's 5,000 images. It names 2/70 and 2/30 for BulkSGD and up to 100,000 steps there;
    # the other learning rates and lengths are ours.
    "full": Profile(
        default_dataset="cifar10",
        train_samples=5000,
        held_out_samples=5000,
        batch_size=128,
        budgets={
            "gd": Budget((2 / 100, 2 / 70, 2 / 50, 2 / 30), 50_000),
            "sgd": Budget((2 / 100, 2 / 70, 2 / 50, 2 / 30), 50_000),
            "adamw": Budget((0.0001, 0.0003, 0.001, 0.003), 20_000),
            "muon": Budget((0.0003, 0.001, 0.003, 0.01), 20_000),
            "sam": Budget((2 / 100, 2 / 70, 2 / 50, 2 / 30), 50_000),
            "bulk_sgd": Budget((2 / 70, 2 / 30), 100_000, BULK),
        },
    ),
}

FIVE = ("gd", "sgd", "adamw", "muon", "sam")


@dataclass(frozen=True)
class Figure:
    """What a figure or table shows: these optimizers, these columns, against the step."""

    optimizers: tuple[str, ...]
    columns: tuple[str, ...]
    title: str


# The columns are those that the paper's figures of these names are about (its Sec. 3, App. A).
FIGURES = {
    "figure1": Figure(
        ("gd", "sgd"),
        ("sharpness", "train_ece"),
        "Training ECE rises and falls with sharpness",
    ),
    "figure2": Figure(
        FIVE,
        ("sharpness", "train_ece", "test_ece"),
        "Five optimizers: sharpness, training ECE, test ECE",
    ),
    "figure3": Figure(
        ("sgd", "bulk_sgd"),
        ("sharpness", "train_ece", "train_loss"),
        "Without the steepest directions: BulkSGD beside SGD",
    ),
    "figureA1": Figure(
        FIVE,
        ("sharpness", "batch_sharpness", "train_ece", "train_kce", "test_ece", "test_kce"),
        "Every quantity, every optimizer",
    ),
    # Not a figure of the paper: what lesson 03's explorer moves through.
    "edge_of_stability": Figure(
        ("gd",),
        ("sharpness", "train_loss"),
        "Gradient descent: sharpness climbs to 2/lr, hovers, and falls",
    ),
    "table1": Figure(
        FIVE,
        ("sharpness", "train_ece"),
        "Correlation of calibration error with sharpness along training",
    ),
    # The union of the runs above; with its folder every one of them is only drawn, not run.
    "all": Figure(
        (*FIVE, "bulk_sgd"),
        ("sharpness", "train_ece", "test_ece"),
        "The whole sweep",
    ),
}


def plan(
    figure: str,
    profile: str = "quick",
    dataset: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    device: str = "cpu",
) -> list[RunConfig]:
    """The runs that a figure or table needs, seed by seed, so that a part of them is a picture.

    Args:
        figure: one of `FIGURES`.
        profile: "quick" or "full".
        dataset: name for `load_dataset`; None is the profile's own.
        seeds: one run of everything per seed.
        device: "cpu" or "cuda".

    Returns:
        Configurations, all different.

    Raises:
        ValueError, TypeError: an unknown figure, profile or data set (the error lists the
            choices), a negative or repeated seed.

    Example:
        >>> len(plan("table1"))  # 5 optimizers x 4 learning rates x 3 seeds
        60
        >>> plan("figure3", seeds=[0])[-1].label
        'BulkSGD 5'
    """
    check_choice(figure, "figure", FIGURES)
    check_choice(profile, "profile", PROFILES)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be different numbers, at least one, got {list(seeds)}")
    size = PROFILES[profile]
    return [
        RunConfig(
            dataset=size.default_dataset if dataset is None else dataset,
            optimizer=optimizer,
            lr=lr,
            steps=budget.steps,
            batch_size=None if optimizer == "gd" else size.batch_size,
            train_samples=size.train_samples,
            held_out_samples=size.held_out_samples,
            seed=seed,
            options=dict(options),
            device=device,
        )
        for seed in seeds
        for optimizer in FIGURES[figure].optimizers
        for budget in [size.budgets[optimizer]]
        for options in budget.options
        for lr in budget.learning_rates
    ]

"""What decides one run: a trajectory watched by every probe, or a run of the comparison of methods.

A method is a loss with its options. Cross-entropy with a fitted temperature is no run of its own:
every run of the comparison also reports its test logits at the temperature that validation data
choose.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from .._checks import check_choice, check_integer, check_real
from ..data import DATASETS
from ..history import even_steps, log_steps
from ..losses import CalMO, CrossEntropy, FocalLoss
from ..optimizers import OPTIMIZERS

LABELS = {"gd": "GD", "sgd": "SGD", "adamw": "AdamW", "muon": "Muon", "sam": "SAM"}
LOSSES: dict[str, type[CrossEntropy] | type[FocalLoss] | type[CalMO]] = {
    "cross_entropy": CrossEntropy,
    "focal": FocalLoss,
    "calmo": CalMO,
}
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


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """Everything that decides one run, of either kind.

    Args:
        dataset: name for `load_dataset`.
        optimizer: name for `make_optimizer`; options: its options.
        lr: learning rate.
        steps: updates.
        batch_size: samples per update; None is the full batch.
        train_samples, held_out_samples: the first so many images of the training and test parts.
        seed: decides the initial weights and the batches.
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
    threads: int = 1
    device: str = "cpu"

    # The smallest value of every field that is a whole number.
    minima: ClassVar[Mapping[str, int]] = {
        "steps": 1,
        "train_samples": 1,
        "held_out_samples": 1,
        "seed": 0,
        "threads": 1,
    }

    def __post_init__(self) -> None:
        check_choice(self.dataset, "dataset", DATASETS)
        check_choice(self.optimizer, "optimizer", OPTIMIZERS)
        check_choice(self.device, "device", ("cpu", "cuda"))
        check_real(self.lr, "lr", 0.0, strict=True)
        if self.batch_size is not None:
            check_integer(self.batch_size, "batch_size", 1)
        for name, minimum in self.minima.items():
            check_integer(getattr(self, name), name, minimum)
        for name, value in vars(self).items():
            if name.endswith("options") and not isinstance(value, dict):
                raise TypeError(f"{name} must be a dict, got {type(value).__name__}")

    @property
    @abstractmethod
    def label(self) -> str:
        """What the run is called in figures and tables."""

    @property
    @abstractmethod
    def slug(self) -> str:
        """The readable part of the key."""

    @property
    @abstractmethod
    def probe_steps(self) -> list[int]:
        """The steps at which the run is looked at."""

    @property
    def key(self) -> str:
        """A file name: readable, and different for any two configurations."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.slug}-seed{self.seed}-{digest[:8]}"

    @classmethod
    def from_dict(cls, record: Any) -> Self:
        """Rebuild a configuration from plain data.

        Raises:
            ValueError, TypeError: not an object, unknown or missing fields, or a bad value.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(record, dict) or record.keys() != names:
            raise ValueError(f"a configuration must have exactly the fields {sorted(names)}")
        return cls(**record)


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(Config):
    """One trajectory: the paper's MLP (tanh, cross-entropy), watched by every probe.

    Args:
        hidden: widths of the hidden layers.
        even_probes, log_probes: numbers of probes, evenly and logarithmically spaced in steps.

    The other fields are those of `Config`.

    Example:
        >>> TrajectoryConfig(dataset="mnist", optimizer="sgd", lr=0.1, steps=40, batch_size=10,
        ...                  train_samples=100, held_out_samples=100).key
        'mnist-sgd-lr0.1-seed0-9834f3fa'
    """

    hidden: tuple[int, ...] = (200, 200)
    even_probes: int = 41
    log_probes: int = 17

    minima: ClassVar[Mapping[str, int]] = {**Config.minima, "even_probes": 2, "log_probes": 2}

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            check_integer(width, "hidden", 1)
        if self.optimizer == "bulk_sgd":
            check_integer(self.options.get("directions", 0), "directions in options", 1)

    @property
    def label(self) -> str:
        """The optimizer, and of BulkSGD how many directions it leaves out."""
        if self.optimizer == "bulk_sgd":
            return f"BulkSGD {self.options['directions']}"
        return LABELS[self.optimizer]

    @property
    def slug(self) -> str:
        """Data set, optimizer and learning rate."""
        return f"{self.dataset}-{self.label.lower().replace(' ', '')}-lr{self.lr:g}"

    @property
    def even_steps(self) -> list[int]:
        """The evenly spaced probe steps, on which Table 1 is computed."""
        return even_steps(self.steps, self.even_probes)

    @property
    def log_steps(self) -> list[int]:
        """The logarithmically spaced probe steps, for the early phase."""
        return log_steps(self.steps, self.log_probes)

    @property
    def probe_steps(self) -> list[int]:
        """All probe steps, of both spacings."""
        return sorted({*self.even_steps, *self.log_steps})


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig(Config):
    """One run of the comparison of training methods.

    Args:
        model: "small_cnn" or "resnet20".
        loss: "cross_entropy", "focal" or "calmo"; loss_options: its options.
        probes: how often, evenly spaced, training and validation data are looked at; the
            best-validation step is one of these.
        attacked_samples: the first so many training and test images whose robust margins are taken.

    The other fields are those of `Config`.

    Example:
        >>> ComparisonConfig(dataset="mnist", model="small_cnn", optimizer="sgd", lr=0.1, steps=40,
        ...                  loss="focal", loss_options={"gamma": 2.0}, batch_size=10,
        ...                  train_samples=100, held_out_samples=100).label
        'focal'
    """

    model: str
    loss: str
    loss_options: dict[str, Any] = field(default_factory=dict)
    probes: int = 31
    attacked_samples: int = 1000

    minima: ClassVar[Mapping[str, int]] = {**Config.minima, "probes": 2, "attacked_samples": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.model, "model", MODELS)
        check_choice(self.loss, "loss", LOSSES)
        self.make_loss()

    def make_loss(self) -> CrossEntropy | FocalLoss | CalMO:
        """The training objective."""
        return LOSSES[self.loss](**self.loss_options)

    @property
    def label(self) -> str:
        """The method: its name in `METHODS`, else its loss and options."""
        for name, method in METHODS.items():
            if method == (self.loss, self.loss_options):
                return name
        values = self.loss_options.values()
        weights = ", ".join(f"{v:g}" if isinstance(v, int | float) else str(v) for v in values)
        return f"{LOSSES[self.loss].__name__}({weights})"

    @property
    def slug(self) -> str:
        """Data set, model, optimizer and method."""
        method = "".join(c for c in self.label.lower() if c.isalnum())
        return f"{self.dataset}-{self.model}-{self.optimizer}-{method}"

    @property
    def probe_steps(self) -> list[int]:
        """The steps at which training and validation data are looked at."""
        return even_steps(self.steps, self.probes)


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(ComparisonConfig):
    """A run of the comparison whose network is then shown shifted test images.

    Args:
        shift_seed: decides the noise on the images, the same for every run of a sweep.

    The other fields are those of `ComparisonConfig`.
    """

    shift_seed: int = 0

    minima: ClassVar[Mapping[str, int]] = {**ComparisonConfig.minima, "shift_seed": 0}

    @property
    def slug(self) -> str:
        """As of the comparison, and that the images are shifted."""
        return f"{super().slug}-shift"

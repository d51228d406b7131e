"""Instruments to hold beside a training run: probe(model, data) -> one dict of numbers.

`fit` calls them at scheduled steps and makes a row of a `History` of what they say. The columns,
for SPLIT one of train, validation and test:

| column | unit | probe |
|---|---|---|
| step | updates made so far; the row describes the parameters after them | `fit` |
| SPLIT_loss | cross-entropy, nats | `calibration_probe` |
| SPLIT_accuracy, SPLIT_confidence | in [0, 1]; mean confidence | `calibration_probe` |
| SPLIT_ece, SPLIT_kce | in [0, 1]; 15 bins, bandwidth 0.4 | `calibration_probe` |
| SPLIT_margin_q05, SPLIT_margin_q50, SPLIT_margin_q95 | logits; quantiles of m | `margin_probe` |
| SPLIT_log_q | log of Q = mean exp(-m) | `margin_probe` |
| sharpness | lambda_max of the Gauss-Newton matrix on training data | `SharpnessProbe` |
| batch_sharpness | mean over batches of g'Hg / g'g on training data | `SharpnessProbe` |
| SPLIT_log_lower, _gap, _error_probability, _upper | rungs of `ece_bounds` | `bound_quantities` |
| SPLIT_gamma | logits; the smallest true margin | `bound_quantities` |
| SPLIT_log_u0 .. u6, l1 .. l4 | logs of the rungs of `curvature_ladder` | `LadderProbe` |

`LogitProbe()` is `calibration_probe` and `margin_probe` in one, from one forward pass per split;
`BestValidation()` is the same on training and validation images, and keeps the best parameters.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ._checks import Once, check_choice, check_integer, is_finite
from .batches import count_of
from .bounds import curvature_ladder, ece_bounds
from .curvature import WarmSharpness, batch_sharpness
from .margins import log_margin_moment, true_margin
from .metrics import (
    accuracy,
    expected_calibration_error,
    kernel_calibration_error,
    mean_confidence,
    negative_log_likelihood,
)

if TYPE_CHECKING:
    from .data import Dataset

SPLITS = ("train", "validation", "test")
QUANTILES = (0.05, 0.5, 0.95)
MOST_OF_QUANTILE = 2**24  # samples that torch.quantile takes
CHUNK = 1024  # samples per forward pass: bounds the memory that activations take

Probe = Callable[[nn.Module, "Dataset"], dict[str, float]]
Quantity = Callable[[Tensor, Tensor], Mapping[str, Tensor | float]]


def calibration_quantities(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Loss, accuracy, ECE (15 bins), KCE (bandwidth 0.4) and mean confidence.

    Args:
        logits: (N, K).
        target: (N,), int64 labels.

    Returns:
        Scalars by column name, without the split's prefix.

    Example:
        >>> row = calibration_quantities(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.arange(2))
        >>> round(float(row["ece"]), 2)  # surely right, half the time
        0.5
    """
    return {
        "loss": negative_log_likelihood(logits, target),
        "accuracy": accuracy(logits, target),
        "ece": expected_calibration_error(logits, target),
        "kce": kernel_calibration_error(logits, target),
        "confidence": mean_confidence(logits, target),
    }


def margin_quantities(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The 5 %, 50 % and 95 % quantiles of the true margin, and log Q (THEORY.md section 1).

    Args:
        logits: (N, K).
        target: (N,), int64 labels.

    Returns:
        Scalars by column name, without the split's prefix.

    Example:
        >>> row = margin_quantities(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.arange(2))
        >>> float(row["margin_q50"])
        3.0
    """
    margin = true_margin(logits, target)
    named = zip(("margin_q05", "margin_q50", "margin_q95"), _quantiles(margin), strict=True)
    return dict(named) | {"log_q": log_margin_moment(margin)}


def _quantiles(values: Tensor) -> Tensor:
    """The QUANTILES, linear between samples; torch's own stop at 2^24 samples and at half."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    levels = torch.tensor(QUANTILES, dtype=values.dtype, device=values.device)
    if len(values) <= MOST_OF_QUANTILE:
        return values.quantile(levels)
    places = levels.double() * (len(values) - 1)
    ordered, below = values.sort().values, places.floor().long()
    above = (below + 1).clamp(max=len(values) - 1)
    return torch.lerp(ordered[below], ordered[above], (places - below).to(values))


def bound_quantities(logits: Tensor, target: Tensor) -> dict[str, float]:
    """The bounds on ECE between Q and ECE, as logarithms, and γ (see `ece_bounds`).

    Args:
        logits: (N, K).
        target: (N,), int64 labels.

    Returns:
        Scalars by column name, without the split's prefix: log_lower is NaN where γ <= 0. The
        paper's bounds are log_q + log(K-1) and log_q - log K, of `margin_quantities`.

    Example:
        >>> row = bound_quantities(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1]))
        >>> sorted(row), row["gamma"]
        (['gamma', 'log_error_probability', 'log_gap', 'log_lower', 'log_upper'], 2.0)
    """
    bounds = ece_bounds(logits, target)
    rungs = ("lower", "gap", "error_probability", "upper")
    return {f"log_{rung}": bounds.log[rung] for rung in rungs} | {"gamma": bounds.gamma}


def _part(data: Any, name: str) -> Any:
    """A split of the data, which must hold its images in memory."""
    split = getattr(data, name, None)
    if not (hasattr(split, "inputs") and hasattr(split, "target")):
        raise TypeError(
            f"data must have a part {name!r} with inputs and target for this probe to look at, got "
            f"{type(data).__name__}: give fit a Dataset, or an object whose train yields batches "
            "and whose other parts are Splits"
        )
    count_of(split, name)
    return split


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """A model's logits (N, K) on many images, in chunks that bound the memory, without a graph.

    Args:
        model: maps (N, ...) to logits (N, K); used in the mode it is in.
        inputs: (N, ...).
    """
    return torch.cat([model(chunk) for chunk in inputs.split(CHUNK)])


class LogitProbe:
    """Quantities of the logits on chosen splits, from one forward pass per split.

    Args:
        *quantities: functions (logits, target) -> dict of scalars; none means
            `calibration_quantities` and `margin_quantities`.
        splits: which of "train", "validation" and "test" to look at; their names become prefixes.

    Raises:
        ValueError: an unknown split. When called: FloatingPointError if a logit is NaN or
            infinite, which `fit` takes as divergence.

    Example:
        >>> from calibcourse.data import load_dataset
        >>> from calibcourse.models import mlp
        >>> probe = LogitProbe(margin_quantities, splits=("validation",))
        >>> sorted(probe(mlp(hidden=(8,)), load_dataset("fashion_mnist_small")))[0]
        'validation_log_q'
    """

    def __init__(self, *quantities: Quantity, splits: tuple[str, ...] = SPLITS):
        for split in splits:
            check_choice(split, "splits", SPLITS)
        self.quantities = quantities or (calibration_quantities, margin_quantities)
        self.splits = tuple(splits)

    @torch.no_grad()
    def __call__(self, model: nn.Module, data: "Dataset") -> dict[str, float]:
        """One row: each quantity on each split."""
        row = {}
        for name in self.splits:
            split = _part(data, name)
            logits = logits_of(model, split.inputs)
            with Once(logits, split.target).on(logits, split.target):
                if not is_finite(logits):
                    raise FloatingPointError(f"a logit on the {name} split is NaN or infinite")
                values = [quantity(logits, split.target) for quantity in self.quantities]
            row |= _as_numbers({f"{name}_{k}": v for some in values for k, v in some.items()})
        return row


def _as_numbers(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The values as floats; those on a device are read in one wait."""
    away = [value for value in values.values() if isinstance(value, Tensor) and not value.is_cpu]
    read = iter(torch.cat([value.reshape(1) for value in away]).tolist() if away else ())
    return {
        name: next(read) if isinstance(value, Tensor) and not value.is_cpu else float(value)
        for name, value in values.items()
    }


calibration_probe = LogitProbe(calibration_quantities)
margin_probe = LogitProbe(margin_quantities)


class BestValidation(LogitProbe):
    """A `LogitProbe` of training and validation images that keeps the best model: early stopping.

    Args:
        *quantities: as for `LogitProbe`; validation_loss has to be among what they give.

    Attributes:
        loss: the lowest validation loss so far, nats.
        parameters: the model's state_dict then; None before the first probe.

    Example:
        >>> from calibcourse.data import load_dataset
        >>> from calibcourse.models import mlp
        >>> probe, model = BestValidation(), mlp(hidden=(8,))
        >>> row = probe(model, load_dataset("fashion_mnist_small"))
        >>> probe.loss == row["validation_loss"], list(probe.parameters) == list(model.state_dict())
        (True, True)
    """

    def __init__(self, *quantities: Quantity):
        super().__init__(*quantities, splits=("train", "validation"))
        self.loss = math.inf
        self.parameters: dict[str, Tensor] | None = None

    def __call__(self, model: nn.Module, data: "Dataset") -> dict[str, float]:
        """One row, as of `LogitProbe`; the model is kept if it is the best so far."""
        row = super().__call__(model, data)
        if row["validation_loss"] < self.loss:
            self.loss = row["validation_loss"]
            self.parameters = {n: value.clone() for n, value in model.state_dict().items()}
        return row

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"loss": self.loss, "parameters": self.parameters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.loss, self.parameters = state["loss"], state["parameters"]


class SharpnessProbe:
    """Gauss-Newton sharpness and batch sharpness on the training images, warm from call to call.

    Args:
        samples: how many training images, from the first on; None is all of them.
        batch_size: size of the batches of batch sharpness; each counts equally.
        loss: "cross_entropy" or "mse".

    Raises:
        ValueError, TypeError: a size that is no positive integer. When called: as
            `calibcourse.curvature.gauss_newton_sharpness`.

    Example:
        >>> from calibcourse.data import load_dataset
        >>> from calibcourse.models import mlp
        >>> row = SharpnessProbe(samples=100)(mlp(hidden=(8,)), load_dataset("fashion_mnist_small"))
        >>> list(row)
        ['sharpness', 'batch_sharpness']
    """

    def __init__(
        self, samples: int | None = None, batch_size: int = 100, loss: str = "cross_entropy"
    ):
        if samples is not None:
            samples = check_integer(samples, "samples", 1)
        batch_size = check_integer(batch_size, "batch_size", 1)
        self.samples, self.batch_size = samples, batch_size
        self.sharpness = WarmSharpness(loss)

    def __call__(self, model: nn.Module, data: "Dataset") -> dict[str, float]:
        """One row: sharpness and batch sharpness of the training images."""
        images = _part(data, "train")
        inputs, target = images.inputs[: self.samples], images.target[: self.samples]
        batches = zip(inputs.split(self.batch_size), target.split(self.batch_size), strict=True)
        return {
            "sharpness": self.sharpness(model, inputs).value,
            "batch_sharpness": batch_sharpness(model, batches, self.sharpness.loss),
        }

    def state_dict(self) -> dict:
        """The last eigenvector: what a resumed run needs for equal numbers."""
        return self.sharpness.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Go on from where `state_dict` was taken."""
        self.sharpness.load_state_dict(state)


class LadderProbe:
    """Every rung of the curvature ladder as a logarithm, warm from call to call (THEORY.md 4.1).

    Args:
        split: "train", "validation" or "test"; its name becomes the prefix. The Gauss-Newton matrix
            is that of the split's own images.
        samples: how many of its images, from the first on; None is all of them.

    Raises:
        ValueError, TypeError: an unknown split, or samples that is no positive integer. When
            called: as `calibcourse.bounds.curvature_ladder`.

    Example:
        >>> from calibcourse.data import load_dataset
        >>> from calibcourse.models import mlp
        >>> row = LadderProbe("test", 50)(mlp(hidden=(8,)), load_dataset("fashion_mnist_small"))
        >>> list(row)  # doctest: +NORMALIZE_WHITESPACE
        ['test_log_l4', 'test_log_l3', 'test_log_l2', 'test_log_l1', 'test_log_u0', 'test_log_u1',
         'test_log_u2', 'test_log_u3', 'test_log_u4', 'test_log_u5', 'test_log_u6']
    """

    def __init__(self, split: str = "train", samples: int | None = None):
        check_choice(split, "split", SPLITS)
        if samples is not None:
            samples = check_integer(samples, "samples", 1)
        self.split, self.samples = split, samples
        self.vector: Tensor | None = None

    def __call__(self, model: nn.Module, data: "Dataset") -> dict[str, float]:
        """One row: logarithms of the ladder's rungs."""
        images = _part(data, self.split)
        inputs, target = images.inputs[: self.samples], images.target[: self.samples]
        ladder = curvature_ladder(model, inputs, target, v0=self.vector)
        self.vector = ladder.eigenpair.vector.to(inputs)
        return {
            f"{self.split}_log_{name}": value
            for name, value in ladder.log.items()
            if name not in ladder.missing
        }

    def state_dict(self) -> dict:
        """The last eigenvector: what a resumed run needs for equal numbers."""
        return {"vector": self.vector}

    def load_state_dict(self, state: dict) -> None:
        """Go on from where `state_dict` was taken."""
        self.vector = state["vector"]

"""One run: from a configuration to its history.

A trajectory is watched by every probe, on training and test images. A run of the comparison of
methods looks at training and validation images only; test images are read once, when the training
is over and the best-validation step is known.
"""

import functools
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..attacks import robust_margin
from ..data import Dataset, load_dataset, shifted
from ..data.shift import STRENGTHS
from ..history import History
from ..margins import log_margin_moment
from ..metrics import brier_score, confidence_and_correct, noise_floor
from ..models import mlp, resnet20, small_cnn
from ..optimizers import make_optimizer
from ..posthoc import TemperatureScaling
from ..probes import (
    BestValidation,
    LadderProbe,
    LogitProbe,
    Probe,
    SharpnessProbe,
    bound_quantities,
    calibration_quantities,
    logits_of,
    margin_quantities,
)
from ..training import fit
from .configs import ComparisonConfig, Config, ShiftConfig, TrajectoryConfig

EPSILON = 8 / 255  # the radius at which robust margins are reported, whatever the method trained on
TIMED_STEPS = 20
FLOOR_DRAWS = 200  # place the mean of a noise floor to a few percent of it


def train(config: Config, checkpoint: str | os.PathLike[str] | None = None) -> History:
    """The training run of a configuration, with the probes of its kind.

    Args:
        config: the run.
        checkpoint: as in `fit`.

    Returns:
        Its history. A comparison's has the test columns in two rows only, which may coincide: that
        of the lowest validation loss, and the last.
    """
    with threads(config.threads):
        if isinstance(config, ComparisonConfig):
            return _compare(config, checkpoint)
        if isinstance(config, TrajectoryConfig):
            return _follow(config, checkpoint)
    raise TypeError(f"config must be one of the two kinds, got {type(config).__name__}")


def _follow(config: TrajectoryConfig, checkpoint: str | os.PathLike[str] | None) -> History:
    data = data_of(config)
    model, optimizer = trajectory_start(config, data)
    return fit(
        model,
        data,
        optimizer=optimizer,
        steps=config.steps,
        batch_size=config.batch_size,
        probes=trajectory_probes(),
        probe_steps=config.probe_steps,
        seed=config.seed,
        checkpoint=checkpoint,
        progress=False,
    )


def trajectory_start(
    config: TrajectoryConfig, data: Dataset
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network at step 0 and its optimizer."""
    shape = tuple(data.train.inputs.shape[1:])
    model = mlp(shape, config.hidden, len(data.classes), seed=config.seed).to(config.device)
    options = dict(config.options)
    if config.optimizer == "bulk_sgd":
        options["inputs"] = data.train.inputs
    return model, make_optimizer(config.optimizer, model, config.lr, **options)


def trajectory_probes() -> list[Probe]:
    """What every trajectory is watched by: on training and held-out images, with all bounds."""
    quantities = (calibration_quantities, margin_quantities, bound_quantities)
    return [
        LogitProbe(*quantities, splits=("train", "test")),
        SharpnessProbe(),
        LadderProbe("train"),
        LadderProbe("test", samples=500),
    ]


def _compare(config: ComparisonConfig, checkpoint: str | os.PathLike[str] | None) -> History:
    data, model = data_of(config), _model(config)
    best = BestValidation(quantities)
    history = fit(
        model,
        data,
        config.make_loss(),
        make_optimizer(config.optimizer, model, config.lr, **config.options),
        steps=config.steps,
        batch_size=config.batch_size,
        probes=[best],
        probe_steps=config.probe_steps,
        seed=config.seed,
        checkpoint=checkpoint,
        progress=False,
    )
    model.eval()
    history.rows[-1] |= _look(model, data, config)
    row = history.best("validation_loss")
    if row is not history.rows[-1] and best.parameters is not None:
        model.load_state_dict(best.parameters)
        row |= _look(model, data, config)
    return history


def _look(model: nn.Module, data: Dataset, config: ComparisonConfig) -> dict[str, float]:
    row = evaluation(model, data, config.attacked_samples)
    if isinstance(config, ShiftConfig):
        row |= shift_evaluation(model, data, row["temperature"], config.shift_seed)
    return row


def quantities(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What the comparison reports of logits: calibration, margins, and the Brier score."""
    row = calibration_quantities(logits, target) | margin_quantities(logits, target)
    return row | {"brier": brier_score(logits, target)}


def evaluation(model: nn.Module, data: Dataset, attacked_samples: int) -> dict[str, float]:
    """The columns that are measured once training is over, test images among them.

    Args:
        model: in eval mode.
        data: the temperature is fitted on its validation part.
        attacked_samples: the first so many training and test images are attacked.

    Returns:
        test_*: as in training and validation; SPLIT_robust_margin (mean), SPLIT_robust_log_q and
        SPLIT_robust_accuracy (share of positive robust margins, which no scale changes) at
        ε = 8/255, L∞, for train and test; temperature, and test_scaled_* with it.
    """
    logits = logits_of(model, data.test.inputs)
    row = _columns("test", logits, data.test.target)
    for name in ("train", "test"):
        split = getattr(data, name).head(min(attacked_samples, len(getattr(data, name))))
        margin = robust_margin(model, split.inputs, split.target, EPSILON).margin
        row[f"{name}_robust_margin"] = float(margin.mean())
        row[f"{name}_robust_log_q"] = float(log_margin_moment(margin))
        row[f"{name}_robust_accuracy"] = float((margin > 0).double().mean())
    scaling = TemperatureScaling().fit(
        logits_of(model, data.validation.inputs), data.validation.target
    )
    row |= _columns("test_scaled", scaling.transform(logits), data.test.target)
    return row | {"temperature": scaling.temperature}


def shift_evaluation(
    model: nn.Module, data: Dataset, temperature: float, seed: int
) -> dict[str, float]:
    """The columns that tell how a network does on shifted test images, at every graded strength.

    Args:
        model: in eval mode.
        data: its test images are shifted.
        temperature: fitted before the shift.
        seed: decides the noise.

    Returns:
        For every kind and strength of `STRENGTHS`, KIND_STRENGTH_* as in training and validation,
        with noise_floor, and KIND_STRENGTH_scaled_* the same at the temperature; test_* likewise,
        for the images as they are.
    """
    row: dict[str, float] = {}
    test = data.test
    shifts = [(kind, strength) for kind in STRENGTHS for strength in STRENGTHS[kind]]
    images = {f"{kind}_{strength:g}": (kind, strength) for kind, strength in shifts}
    for name, shift in ({"test": None} | images).items():
        logits = logits_of(model, shifted(test.inputs, *shift, seed) if shift else test.inputs)
        for prefix, scaled in ((name, logits), (f"{name}_scaled", logits / temperature)):
            row |= _columns(prefix, scaled, test.target)
            confidence = confidence_and_correct(scaled, test.target)[0]
            row[f"{prefix}_noise_floor"] = noise_floor(confidence, n_draws=FLOOR_DRAWS).mean
    return row


def _columns(prefix: str, logits: Tensor, target: Tensor) -> dict[str, float]:
    """`quantities` by the names of their columns."""
    return {f"{prefix}_{name}": float(v) for name, v in quantities(logits, target).items()}


def step_seconds(config: ComparisonConfig) -> float:
    """Median seconds of one training step: forward, backward and update, without probes.

    On the CPU it is processor time, which other programs do not lengthen.
    """
    data, model = data_of(config), _model(config)
    n = len(data.train)
    batch = data.train.head(min(config.batch_size or n, n))
    optimizer = make_optimizer(config.optimizer, model, config.lr, **config.options)
    loss = config.make_loss()

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(model, batch.inputs, batch.target).total
        total.backward()
        return total

    def clock() -> float:
        if config.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    times = []
    for _ in range(TIMED_STEPS):
        start = clock()
        optimizer.step(closure)  # type: ignore[arg-type]  # torch takes a tensor too
        times.append(clock() - start)
    return round(statistics.median(times), 5)


def _model(config: ComparisonConfig) -> nn.Module:
    data = data_of(config)
    shape, n_classes = tuple(data.train.inputs.shape[1:]), len(data.classes)
    if config.model == "resnet20":
        model = resnet20(shape[0], n_classes, seed=config.seed)
    else:
        model = small_cnn(shape, n_classes=n_classes, seed=config.seed)
    return model.to(config.device)


def check_data(configs: Sequence[Config]) -> None:
    """Make sure that the data sets are there and have as many images as configurations ask for.

    Args:
        configs: of runs to come.

    Raises:
        FileNotFoundError: a data set is not there; the message has the call that gets it.
        ValueError: a damaged file, or too few images.
    """
    for dataset in dict.fromkeys(config.dataset for config in configs):
        data = _dataset(dataset)
        for field, split in (("train_samples", data.train), ("held_out_samples", data.test)):
            asked = max(getattr(config, field) for config in configs if config.dataset == dataset)
            if asked > len(split):
                raise ValueError(
                    f"{field} must be at most the {len(split):,} images that {dataset} has, got "
                    f"{asked:,}; choose another profile or data set"
                )


def data_of(config: Config) -> Dataset:
    """The images of a run, on its device."""
    data = _dataset(config.dataset)
    train, test = data.train.head(config.train_samples), data.test.head(config.held_out_samples)
    return replace(data, train=train, test=test).to(config.device)


# A sweep's runs share a data set; a process reads it once.
_dataset = functools.lru_cache(maxsize=1)(load_dataset)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

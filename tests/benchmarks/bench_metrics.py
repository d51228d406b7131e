"""Metrics beside their peers.

Promised, on 2 threads: ECE of 1,000,000 x 10 float32 logits at least 2 times faster than softmax +
torchmetrics and 4 times faster than softmax + netcal; KCE equal to its definition over all pairs to
1e-10 in float64.
"""

import importlib
import math

import torch
from _harness import Comparison, Peer, Setting, script
from torch import Tensor

from calibcourse import TemperatureScaling
from calibcourse.data._torchvision import import_torchvision
from calibcourse.metrics import (
    confidence_and_correct,
    expected_calibration_error,
    kernel_calibration_error,
)

Scores = tuple[Tensor, Tensor]


def logits_and_target(n_samples: int, n_classes: int, setting: Setting) -> Scores:
    """A model about twice too sure; random confidences, so no peer's edge rule matters."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n_samples, n_classes, generator=generator)
    target = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    return logits.to(setting.device), target.to(setting.device)


def size_of(scores: Scores) -> str:
    n_samples, n_classes = scores[0].shape
    return f"{n_samples:,} × {n_classes} {str(scores[0].dtype).removeprefix('torch.')}"


def absolute(ours: Tensor, theirs: Tensor | float) -> float:
    return abs(float(ours) - float(theirs))


# --- ECE ------------------------------------------------------------------------------------------


def eager(scores: Scores, n_bins: int = 15) -> Tensor:
    """The plain way in torch: all probabilities, then one pass per quantity."""
    logits, target = scores
    confidence, prediction = logits.softmax(1).max(1)
    residual = (prediction == target).double() - confidence
    edges = torch.linspace(0, 1, n_bins + 1, device=logits.device)
    index = torch.bucketize(confidence, edges[1:-1])
    return torch.bincount(index, residual, minlength=n_bins).abs().sum() / len(target)


def by_torchmetrics(scores: Scores) -> Tensor:
    import_torchvision()  # torchmetrics imports it, with any build of torchvision
    functional = importlib.import_module("torchmetrics.functional.classification")
    logits, target = scores
    return functional.multiclass_calibration_error(
        logits.softmax(1), target, logits.shape[1], n_bins=15
    )


def by_netcal(scores: Scores) -> float:
    ece = importlib.import_module("netcal.metrics.confidence.ECE").ECE(bins=15)
    logits, target = scores
    return ece.measure(logits.softmax(1).cpu().numpy(), target.cpu().numpy())


def ece(name: str, n_samples: int, n_classes: int, targets: tuple[float | None, ...]) -> Comparison:
    # A float32 mean over a million confidences carries some 1e-7; a confidence whose rounding
    # takes it across an edge moves the sum by 1/N. A wrong bin rule would show at 1e-4.
    bound = 1e-5
    return Comparison(
        name=name,
        what="ECE, 15 bins",
        subject=lambda setting: logits_and_target(setting.pick(n_samples, 200), n_classes, setting),
        size=size_of,
        ours=lambda scores: expected_calibration_error(*scores),
        peers=(
            Peer("softmax + torchmetrics", by_torchmetrics, "torchmetrics", bound, targets[0]),
            Peer("softmax + netcal", by_netcal, "netcal", bound, targets[1]),
            Peer("plain eager torch", eager, bound=bound),
        ),
        apart=absolute,
        measure="difference of the two errors",
    )


ECE = ece("ece", 1_000_000, 10, (2.0, 4.0))


# --- KCE ------------------------------------------------------------------------------------------


def dense_kernel_error(scores: Scores, bandwidth: float = 0.4) -> Tensor:
    """KCE by its definition, all N x N pairs."""
    confidence, correct = confidence_and_correct(*scores)
    residual = correct.double() - confidence
    kernel = torch.exp(-torch.cdist(confidence[:, None], confidence[:, None]) / bandwidth)
    return (residual @ kernel.double() @ residual).clamp(min=0).sqrt() / len(residual)


def by_probcal(scores: Scores) -> float:
    """Its biased estimate has the kernel twice and no root (Widmann et al. 2019, Table 1)."""
    skce = importlib.import_module("probcal.metrics.kernel").skce
    confidence, correct = (part.cpu().numpy() for part in confidence_and_correct(*scores))
    options = dict(estimator="biased", kernel="laplace", bandwidth=0.4)
    return math.sqrt(skce(correct.astype(float), confidence, **options) / 2)


def kce_scores(setting: Setting) -> Scores:
    logits, target = logits_and_target(setting.pick(5_000, 200), 10, setting)
    return logits.double(), target


KCE = Comparison(
    name="kce",
    what="KCE, all pairs",
    subject=kce_scores,
    size=size_of,
    ours=lambda scores: kernel_calibration_error(*scores),
    peers=(
        # Promised to 1e-10 in float64.
        Peer("probcal", by_probcal, "probcal", bound=1e-10),
        Peer("dense definition", dense_kernel_error, bound=1e-10),
    ),
    apart=absolute,
    measure="difference of the two errors",
    rounds=5,
)


# --- temperature ----------------------------------------------------------------------------------


def lbfgs_temperature(scores: Scores) -> Tensor:
    """Temperature scaling as usually done: LBFGS on log T, 50 iterations."""
    logits, target = scores
    log_temperature = torch.zeros((), requires_grad=True, device=logits.device)
    optimizer = torch.optim.LBFGS(
        [log_temperature], lr=1, max_iter=50, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_temperature.detach().exp()


TEMPERATURE = Comparison(
    name="temperature",
    what="temperature scaling",
    subject=lambda setting: logits_and_target(setting.pick(10_000, 200), 10, setting),
    size=size_of,
    ours=lambda scores: TemperatureScaling().fit(*scores).temperature,
    # A float32 loss is flat to its rounding, 1e-7, over some sqrt(1e-7) in log T.
    peers=(Peer("LBFGS on log T", lbfgs_temperature, bound=1e-3),),
    apart=absolute,
    measure="difference of the temperatures",
)

PARTS = (
    ECE,
    ece("ece_100_classes", 100_000, 100, (None, None)),
    ece("ece_1000_classes", 10_000, 1000, (None, None)),
    ece("ece_small", 5_000, 10, (None, None)),
    ece("ece_tiny", 100, 10, (None, None)),
    KCE,
    TEMPERATURE,
)

if __name__ == "__main__":
    script(__doc__, PARTS)

"""Metrics beside their peers: `python tests/benchmarks/bench_metrics.py [--threads 2]`.

Promised, on 2 threads: ECE of 1,000,000 x 10 float32 logits at least 2 times faster than softmax +
torchmetrics and 4 times faster than softmax + netcal; KCE of 1,000,000 samples in under 1 s and
200 MB. netcal is no dependency: `pip install --no-deps netcal` brings what is needed here.
"""

import argparse
import importlib
import time

import torch
from _harness import compare, peak_memory_mb, print_header

from calibcourse import TemperatureScaling
from calibcourse.data._torchvision import import_torchvision
from calibcourse.metrics import (
    confidence_and_correct,
    expected_calibration_error,
    kernel_calibration_error,
    smooth_calibration_error,
)


def logits_and_target(n_samples: int, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A model about twice too sure; random confidences, so no peer's edge rule matters."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n_samples, n_classes, generator=generator)
    target = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    return logits, target


def eager(logits, target, n_bins=15):
    """The plain way in torch: all probabilities, then one pass per quantity."""
    confidence, prediction = logits.softmax(1).max(1)
    residual = (prediction == target).double() - confidence
    edges = torch.linspace(0, 1, n_bins + 1)
    index = torch.bucketize(confidence, edges[1:-1])
    return torch.bincount(index, residual, minlength=n_bins).abs().sum() / len(target)


def ece_peers(logits, target):
    """Everything that computes the 15-bin ECE from logits and is installed."""
    peers = {"eager torch": lambda: eager(logits, target)}
    import_torchvision()  # torchmetrics imports it, with any build of torchvision
    functional = importlib.import_module("torchmetrics.functional.classification")
    n_classes = logits.shape[1]
    peers["softmax + torchmetrics"] = lambda: functional.multiclass_calibration_error(
        logits.softmax(1), target, n_classes, n_bins=15
    )
    try:
        ece = importlib.import_module("netcal.metrics.confidence.ECE").ECE(bins=15)
        peers["softmax + netcal"] = lambda: ece.measure(logits.softmax(1).numpy(), target.numpy())
    except ImportError as error:
        print(f"netcal left out: {error}")
    return peers


def dense_kernel_error(logits, target, bandwidth=0.4):
    """KCE by its definition, all N x N pairs."""
    confidence, correct = confidence_and_correct(logits, target)
    residual = correct.double() - confidence
    kernel = torch.exp(-torch.cdist(confidence[:, None], confidence[:, None]) / bandwidth)
    return (residual @ kernel.double() @ residual).clamp(min=0).sqrt() / len(target)


def lbfgs_temperature(logits, target):
    """Temperature scaling as usually done: LBFGS on log T, 50 iterations."""
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_temperature], lr=1, max_iter=50, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_temperature.detach().exp()


def print_cost_of_a_million() -> None:
    """Seconds and memory; comes first, while the process holds no freed memory to reuse."""
    data = logits_and_target(1_000_000, 10)
    head = [tensor[:1000] for tensor in data]
    print("1,000,000 x 10 float32: memory on top of the logits, best of 3")
    for metric in (expected_calibration_error, kernel_calibration_error, smooth_calibration_error):
        metric(*head)  # loads what the first call loads
        memory = peak_memory_mb(lambda metric=metric: metric(*data))
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            metric(*data)
            seconds.append(time.perf_counter() - start)
        memory = "not measured" if memory is None else f"{memory:.0f} MB"
        print(f"{metric.__name__:28}  {memory:>12}  {min(seconds):6.3f} s")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = arguments.rounds
    print_header("Metrics from logits", "torchmetrics", "numpy")

    print_cost_of_a_million()
    for n_samples, n_classes in ((1_000_000, 10), (100_000, 100), (5_000, 10)):
        print(f"ECE, 15 bins, {n_samples:,} x {n_classes} float32")
        data = logits_and_target(n_samples, n_classes)
        compare(lambda data=data: expected_calibration_error(*data), ece_peers(*data), rounds)

    print("KCE against all pairs, 5,000 x 10 float64")
    logits, target = logits_and_target(5_000, 10)
    logits = logits.double()
    compare(
        lambda: kernel_calibration_error(logits, target),
        {"dense definition": lambda: dense_kernel_error(logits, target)},
        rounds,
    )

    print("Temperature, 10,000 x 10 float32 (disagreement: of the temperatures)")
    data = logits_and_target(10_000, 10)
    compare(
        lambda: TemperatureScaling().fit(*data).temperature,
        {"LBFGS on log T": lambda: lbfgs_temperature(*data)},
        rounds,
    )


if __name__ == "__main__":
    main()

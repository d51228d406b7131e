"""What looking costs: a probe in full-batch gradients, the loop beside a bare one, a whole run.

Run it with `python tests/benchmarks/bench_training.py`.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from _harness import compare, print_header

from calibcourse.data import Dataset, load_dataset
from calibcourse.losses import CrossEntropy
from calibcourse.models import mlp
from calibcourse.training import LogitProbe, SharpnessProbe, fit


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def probe_in_gradients(data: Dataset, steps: int = 1500) -> list[float]:
    """Time of every probe of a GD run over the time of gradients taken right beside it."""
    model, loss = mlp(), CrossEntropy()
    probes = [LogitProbe(), SharpnessProbe()]
    ratios = []

    def gradient() -> None:
        model.zero_grad()
        loss(model, data.train.inputs, data.train.target).total.backward()

    def timed(model, data):
        beside = statistics.median(seconds(gradient) for _ in range(5))
        taken = sum(seconds(lambda probe=probe: probe(model, data)) for probe in probes)
        ratios.append(taken / beside)
        return {}

    fit(
        model,
        data,
        optimizer="gd",
        lr=0.1,
        steps=steps,
        probes=[timed],
        probe_steps=30,
        progress=False,
    )
    return ratios


def loop_beside_bare(data: Dataset, batch_size: int, steps: int = 300) -> None:
    """`fit` beside the same updates written out; the final training losses should be alike."""

    def ours() -> float:
        model = mlp()
        fit(model, data, lr=0.1, steps=steps, batch_size=batch_size, progress=False)
        return training_loss(model)

    def bare() -> float:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(steps):
            chosen = torch.randperm(len(data.train))[:batch_size]
            optimizer.zero_grad()
            logits = model(data.train.inputs[chosen])
            torch.nn.functional.cross_entropy(logits, data.train.target[chosen]).backward()
            optimizer.step()
        return training_loss(model)

    def training_loss(model: torch.nn.Module) -> float:
        return float(CrossEntropy()(model, data.train.inputs, data.train.target).total)

    print(f"fit, batch {batch_size}, {steps} steps")
    compare(ours, {"bare loop": bare}, rounds=7)


def main() -> None:
    data = load_dataset("fashion_mnist_small")
    data = replace(data, train=data.train.head(1000))
    print_header("Training with probes: MLP 784-200-200-10, 1,000 training images, GD", "numpy")
    for batch_size in (100, 16):
        loop_beside_bare(data, batch_size)
    ratios = probe_in_gradients(data)
    low, middle, high = statistics.quantiles(ratios, n=4)
    print("probe of everything, in full-batch gradients (promise: median at most 25)")
    print(f"median {middle:.1f}, quartiles [{low:.1f}, {high:.1f}], {len(ratios)} probes\n")
    probes = [LogitProbe(), SharpnessProbe()]
    options = dict(optimizer="gd", lr=0.2, steps=4000, probes=probes, probe_steps=60)
    run = seconds(lambda: fit(mlp(), data, progress=False, **options))
    print(f"4,000 steps of GD with 60 probes (promise: at most 90 s on two cores): {run:.1f} s")


if __name__ == "__main__":
    main()

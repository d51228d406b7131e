"""The whole curvature ladder beside one top eigenpair and one gradient, and what it costs at all.

Run it with `python tests/benchmarks/bench_bounds.py` (half a minute on two idle cores).
"""

import argparse
import resource
import time

import torch
import torch.nn.functional as F
from _harness import compare, peak_memory_mb, print_header
from torch import Tensor

from calibcourse.bounds import Ladder, curvature_ladder
from calibcourse.curvature import Eigenpair, GaussNewton, jacobian_norms, top_eigenpair
from calibcourse.data import load_dataset
from calibcourse.models import mlp


def disagreement(ladder: Ladder, theirs: Eigenpair | Tensor | None) -> float:
    """Relative difference of the number that the ladder shares with a peer; 0 if there is none."""
    if isinstance(theirs, Eigenpair):
        return abs(ladder.u0 / theirs.value - 1)
    if isinstance(theirs, Tensor):
        return abs(ladder.max_jacobian_norm / float(theirs.max()) - 1)
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="of gradient descent beforehand")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_header("Bounds")
    data = load_dataset("fashion_mnist_small").train.head(1000)
    model = mlp()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(options.steps):
        optimizer.zero_grad()
        F.cross_entropy(model(data.inputs), data.target).backward()
        optimizer.step()

    def ladder() -> Ladder:
        return curvature_ladder(model, data.inputs, data.target)

    def gradient() -> None:
        torch.autograd.grad(F.cross_entropy(model(data.inputs), data.target), parameters)

    start, cpu_start = time.perf_counter(), time.process_time()
    extra = peak_memory_mb(lambda: print(ladder()))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    more = "" if extra is None else f", {extra:.0f} MB of it for the ladder"
    print(f"cold start: {seconds:.2f} s ({cpu_seconds:.2f} s of processor time)")
    print(f"peak of the process: {peak:.0f} MB{more}\n")

    print("ladder of 784-200-200-10, 1,000 images; ratios below 1 say that the peer is cheaper")
    compare(
        ladder,
        {
            "top eigenpair alone": lambda: top_eigenpair(GaussNewton(model, data.inputs)),
            "Jacobian norms alone": lambda: jacobian_norms(model, data.inputs),
            "one gradient": gradient,
        },
        options.rounds,
        agreement=disagreement,
    )


if __name__ == "__main__":
    main()

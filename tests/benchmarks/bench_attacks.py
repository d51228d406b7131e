"""How low a margin each attack finds, and what it costs: ours against plain projected gradients.

    python tests/benchmarks/bench_attacks.py

Two tables. On random linear models the robust margin is known, so the miss is exact: the share of
the largest possible drop ε max_j ‖w_y - w_j‖_* by which an attack stays above it, worst sample and
mean. On small trained networks the reference is the lowest margin that any attack here has found;
the miss is the share of the mean drop. Cost is time relative to plain descent on the margin with as
many gradients as our default takes.
"""

import time

import torch
import torch.nn.functional as F
from _harness import print_header
from torch import nn

from calibcourse import load_dataset
from calibcourse.attacks import Ball, robust_margin
from calibcourse.margins import linear_robust_margin, true_margin
from calibcourse.models import mlp, small_cnn

NORMS = ("linf", "l2")


def margin_and_gradient(model, point, target):
    point = point.detach().requires_grad_()
    margin = true_margin(model(point), target)
    (gradient,) = torch.autograd.grad(margin.sum(), point)
    return margin.detach(), gradient


def plain(model, inputs, target, epsilon, norm, clip, steps=20):
    """Madry's steps of 2.5 ε / steps on the margin, best iterate kept."""
    ball, point = Ball(inputs, epsilon, norm, clip), inputs
    best = torch.full((len(inputs),), float("inf"), dtype=inputs.dtype)
    for _ in range(steps):
        margin, gradient = margin_and_gradient(model, point, target)
        best = torch.minimum(best, margin)
        point = ball.ascend(point, -gradient, 2.5 * epsilon / steps)
    with torch.no_grad():
        return torch.minimum(best, true_margin(model(point), target))


def halving(model, inputs, target, epsilon, norm, clip, steps=20):
    """Start at full steps; where a step does not help, go back to the best point and halve it.

    The idea of Auto-PGD (Croce and Hein 2020, arXiv 2003.01690) at its smallest.
    """
    ball, point = Ball(inputs, epsilon, norm, clip), inputs
    best, size = torch.full((len(inputs),), float("inf"), dtype=inputs.dtype), 2.0 * epsilon
    best_point, best_gradient = inputs, torch.zeros_like(inputs)
    sizes = torch.full((len(inputs), *[1] * (inputs.ndim - 1)), size, dtype=inputs.dtype)
    for step in range(steps):
        margin, gradient = margin_and_gradient(model, point, target)
        better = margin < best
        best = torch.minimum(best, margin)
        wide = better.view_as(sizes)
        best_point = torch.where(wide, point, best_point)
        best_gradient = torch.where(wide, gradient, best_gradient)
        sizes = sizes if step == 0 else torch.where(wide, sizes, sizes / 2)
        point = ball.ascend(best_point, -best_gradient, sizes)
    with torch.no_grad():
        return torch.minimum(best, true_margin(model(point), target))


def ours(model, inputs, target, epsilon, norm, clip):
    return robust_margin(model, inputs, target, epsilon, norm, clip=clip).margin


def every_rival(model, inputs, target, epsilon, norm, clip):
    return robust_margin(
        model, inputs, target, epsilon, norm, multi_targeted=True, clip=clip
    ).margin


ATTACKS = {
    "plain, 20 gradients": plain,
    "halving, 20 gradients": halving,
    "ours, <= 20 gradients": ours,
    "ours, multi-targeted": every_rival,
}


def linear_cases(n_classes):
    """Random linear models of 5 to 200 inputs; the largest drop is 0.3 or 1 mean margin."""
    for dimension in (5, 20, 200):
        for seed in range(3):
            for reach in (0.3, 1.0):
                torch.manual_seed(1000 * n_classes + dimension + seed)
                model = nn.Linear(dimension, n_classes).double().requires_grad_(False)
                nn.init.normal_(model.weight, std=dimension**-0.5)
                nn.init.normal_(model.bias, std=0.3 * seed)
                inputs = torch.randn(100, dimension).double()
                target = model(inputs).argmax(1)
                yield model, inputs, target, reach * true_margin(model(inputs), target).mean()


def linear_table():
    print("Linear models: worst (mean) miss, % of the largest possible drop")
    classes = (2, 3, 10, 30, 100)
    print(f"{'':24}" + "".join(f"{f'{norm}, K={k}':>15}" for norm in NORMS for k in classes))
    for name, attack in ATTACKS.items():
        cells = []
        for norm in NORMS:
            for k in classes:
                misses = []
                for model, inputs, target, reach in linear_cases(k):
                    p = 1 if norm == "linf" else 2
                    norms = torch.cdist(model.weight, model.weight, p=p).amax(1)
                    epsilon = float(reach / norms.max())
                    exact = linear_robust_margin(
                        model.weight, model.bias, inputs, target, epsilon, norm
                    )
                    found = attack(model, inputs, target, epsilon, norm, None)
                    misses.append((found - exact) / (epsilon * norms[target]))
                misses = 100 * torch.cat(misses).abs()
                cells.append(f"{misses.max():6.2f} ({misses.mean():5.3f})")
        print(f"{name:24}" + "".join(f"{cell:>15}" for cell in cells))
    print()


def trained(model, data, steps):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        batch = torch.randint(len(data.train), (128,))
        optimizer.zero_grad()
        F.cross_entropy(model(data.train.inputs[batch]), data.train.target[batch]).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def network_table(n_images=250):
    data = load_dataset("fashion_mnist_small")
    few = data.test.head(n_images)
    balls = (("linf", 8 / 255), ("linf", 32 / 255), ("l2", 1.0), ("l2", 3.0))
    print(f"Trained networks, {n_images} test images: mean miss, % of the mean drop; relative time")
    print(f"{'':32}" + "".join(f"{f'{norm} {epsilon:.3g}':>18}" for norm, epsilon in balls))
    for title, model in (
        ("MLP", trained(mlp(), data, 600)),
        ("CNN", trained(small_cnn(), data, 600)),
    ):
        columns = []
        for norm, epsilon in balls:
            found, seconds = {}, {}
            for name, attack in ATTACKS.items():
                start = time.perf_counter()
                found[name] = attack(model, few.inputs, few.target, epsilon, norm, (0.0, 1.0))
                seconds[name] = time.perf_counter() - start
            clean = true_margin(model(few.inputs), few.target)
            lowest = torch.stack(list(found.values())).amin(0)
            columns.append(
                {
                    name: f"{100 * (margin - lowest).mean() / (clean - lowest).mean():7.2f}  "
                    f"x{seconds[name] / seconds['plain, 20 gradients']:4.1f}"
                    for name, margin in found.items()
                }
            )
        for name in ATTACKS:
            print(f"{f'{title}: {name}':32}" + "".join(f"{column[name]:>18}" for column in columns))


if __name__ == "__main__":
    print_header("Robust margins by attack")
    linear_table()
    network_table()

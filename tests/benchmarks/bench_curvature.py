"""Curvature beside its peers: λ_max along a GD run, float32 by margin, Jacobian norms, memory.

Run it with `python tests/benchmarks/bench_curvature.py` (about five minutes on two idle cores);
`--parts margins jacobian` runs some of it, `--lr 0.05 --steps 1200 --rounds 3` changes the GD run.
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterable

import curvlinops
import hessian_eigenthings
import torch
import torch.nn.functional as F
from _harness import compare, peak_memory_mb, print_header
from hessian_eigenthings import loss_fns
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from calibcourse.curvature import (
    Eigenpair,
    GaussNewton,
    WarmSharpness,
    gauss_newton_sharpness,
    jacobian_norms,
    top_eigenpair,
)
from calibcourse.data import Split, load_dataset
from calibcourse.models import mlp, resnet20

MARGINS = (0, 5, 10, 15, 18, 25, 40)
PARTS = ("lambda_max", "margins", "jacobian", "memory")
NAMES = ("ours", "curvlinops", "eigenthings")
TOL = 1e-3


def gd_run(data: Split, lr: float, steps: int, every: int) -> dict[int, nn.Module]:
    """Full-batch gradient descent; copies of the model at step `every`, 2 `every`, ... `steps`."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    copies = {}
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        F.cross_entropy(model(data.inputs), data.target).backward()
        optimizer.step()
        if step % every == 0:
            copies[step] = copy.deepcopy(model)
    return copies


# --- three ways to λ_max --------------------------------------------------------------------------


def by_curvlinops(model: nn.Module, data: Split) -> tuple[float, Tensor]:
    operator = curvlinops.GGNLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(data.inputs, data.target)],
        check_deterministic=False,
        num_data=len(data),
    )
    values, vectors = eigsh(operator.to_scipy(), k=1, which="LA", tol=TOL)
    return float(values[0]), torch.from_numpy(vectors[:, 0])


def by_eigenthings(model: nn.Module, data: Split, steps: int) -> tuple[float, Tensor, bool]:
    operator = hessian_eigenthings.GGNOperator(
        model,
        [(data.inputs, data.target)],
        loss_fns.standard.supervised_forward,
        loss_fns.standard.supervised_loss_of_output(F.cross_entropy),
    )
    found = hessian_eigenthings.lanczos(
        operator, k=1, max_iter=steps, tol=TOL, which="LA", seed=0, reorthogonalize=True
    )
    return float(found.eigenvalues[0]), found.eigenvectors[0].detach(), bool(found.converged[0])


def fewest_steps(models: Iterable[nn.Module], data: Split) -> int:
    """Its Lanczos takes a number of steps fixed beforehand: the fewest that always converge."""
    steps = 4
    for model in models:
        while not by_eigenthings(model, data, steps)[2]:
            steps += 1
    return steps


def bench_lambda_max(data: Split, lr: float, steps: int, rounds: int) -> None:
    models = gd_run(data, lr, steps, steps // 8)
    n_steps = fewest_steps(models.values(), data)
    print(
        f"λ_max of 784-200-200-10 tanh, {len(data)} images, GD lr {lr}, relative residual {TOL}\n"
        f"curvlinops: scipy's eigsh; eigenthings: {n_steps} steps of its Lanczos, the fewest that "
        "converge at every checkpoint\n"
        "                             peer/ours [quartiles]                 "
        "relative error of λ_max\n"
        " step    λ_max products    ms   curvlinops          eigenthings        "
        "ours   curvl. eigenth."
    )
    sharpness, warm, times = WarmSharpness(tol=TOL), [], {name: [] for name in NAMES}
    for step, model in models.items():
        state = sharpness.state_dict()

        def ours(model: nn.Module = model, state: dict = state) -> Eigenpair:
            sharpness.load_state_dict(state)  # every round starts from the previous checkpoint
            return sharpness(model, data.inputs)

        calls = (
            ours,
            lambda model=model: by_curvlinops(model, data),
            lambda model=model: by_eigenthings(model, data, n_steps),
        )
        taken, (pair, *peers) = alternate(calls, rounds)
        warm.append(pair.matvecs)
        double = GaussNewton(copy.deepcopy(model).double(), data.inputs.double())
        exact = top_eigenpair(double, pair.vector, tol=1e-7).value
        errors = [abs(value / exact - 1) for value in (pair.value, *(p[0] for p in peers))]
        print(
            f"{step:5d} {exact:8.3f} {pair.matvecs:8d} {1e3 * statistics.median(taken[0]):5.0f}   "
            f"{ratio(taken[1], taken[0])}  {ratio(taken[2], taken[0])}  "
            + "  ".join(f"{error:.0e}" for error in errors)
        )
        for name, seconds in zip(NAMES, taken, strict=True):
            times[name].append(seconds)
    whole = {name: [sum(one) for one in zip(*times[name], strict=True)] for name in NAMES}
    print(
        f"whole run, cold start included:  {ratio(whole['curvlinops'], whole['ours'])}  "
        f"{ratio(whole['eigenthings'], whole['ours'])}\n"
        f"products per warm checkpoint: median {statistics.median(warm[1:]):g}\n"
    )


def alternate(calls: tuple[Callable, ...], rounds: int) -> tuple[list[list[float]], list]:
    """Times and results of every call; each round runs them all, starting with another one."""
    # One thread's processor time does not count what other programs take from it.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    results = [call() for call in calls]  # the warm-up
    times: list[list[float]] = [[] for _ in calls]
    for index in range(rounds):
        for place in range(len(calls)):
            which = (index + place) % len(calls)
            start = clock()
            results[which] = calls[which]()
            times[which].append(clock() - start)
    return times, results


def ratio(theirs: list[float], mine: list[float]) -> str:
    low, middle, high = statistics.quantiles(
        [a / b for a, b in zip(theirs, mine, strict=True)], n=4, method="inclusive"
    )
    return f"{middle:5.1f} [{low:4.1f}, {high:4.1f}]"


# --- float32 by margin ----------------------------------------------------------------------------


def bench_margins(model: nn.Module, data: Split) -> None:
    """Relative error of G v in float32, ours beside p∘u - p(pᵀu), by median and smallest margin."""
    print("relative error of a float32 product G v, last layer scaled to the margin shown")
    print("margin   median margin: ours, curvlinops     smallest margin of half: ours, curvlinops")
    with torch.no_grad():
        top = model(data.inputs).topk(2, dim=1).values
    margin = top[:, 0] - top[:, 1]
    upper = margin > margin.median()
    sets = (data.inputs, margin.median()), (data.inputs[upper], margin[upper].min())
    for wanted in MARGINS:
        columns = []
        for inputs, unit in sets:
            scaled = copy.deepcopy(model)
            with torch.no_grad():
                for parameter in scaled[-1].parameters():
                    parameter.mul_(wanted / unit)
            columns += [errors_of_products(scaled, inputs)]
        print(f"{wanted:6d}   " + "                ".join(f"{a:.1e}   {b:.1e}" for a, b in columns))
    print()


def errors_of_products(model: nn.Module, inputs: Tensor) -> tuple[float, float]:
    double = copy.deepcopy(model).double()
    parameters, logits_of = dict(double.named_parameters()), torch.func.functional_call
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(sum(p.numel() for p in parameters.values()), generator=generator)
    # The reference: float64 and pairwise, p_j Σ_k p_k (u_j - u_k), sharing no code with ours.
    parts = vector.double().split([p.numel() for p in parameters.values()])
    tangents = {k: v.view_as(p) for (k, p), v in zip(parameters.items(), parts, strict=True)}
    call = lambda p: logits_of(double, p, (inputs.double(),))  # noqa: E731
    with torch.no_grad():
        logits, pushed = torch.func.jvp(call, (parameters,), (tangents,))
        p = logits.softmax(1)
        pairs = p[:, None, :] * (pushed[:, :, None] - pushed[:, None, :])
        cotangent = p * pairs.sum(2) / len(inputs)
        reference = torch.func.vjp(call, parameters)[1](cotangent)[0]
    reference = torch.cat([part.reshape(-1) for part in reference.values()])
    peer = curvlinops.GGNLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(inputs, torch.zeros(len(inputs), dtype=torch.int64))],
        check_deterministic=False,
    )
    products = GaussNewton(model, inputs).matvec(vector), peer @ vector
    return tuple(float((q - reference).norm() / reference.norm()) for q in products)


# --- Jacobians and memory -------------------------------------------------------------------------


def bench_jacobian(model: nn.Module, data: Split, rounds: int) -> None:
    parameters = list(model.parameters())

    def five_gradients() -> None:
        for _ in range(5):
            torch.autograd.grad(F.cross_entropy(model(data.inputs), data.target), parameters)

    def by_vmap() -> Tensor:
        def logits_of(p: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(model, p, (x[None],))[0]

        jacobian = torch.func.vmap(torch.func.jacrev(logits_of), (None, 0), chunk_size=25)
        with torch.no_grad():
            blocks = jacobian(dict(model.named_parameters()), data.inputs[:100]).values()
            grams = sum(block.flatten(2) @ block.flatten(2).mT for block in blocks)
            return torch.linalg.eigvalsh(grams)[:, -1].sqrt()

    print(f"Jacobian norms of {len(data)} images beside five gradients of the same loss")
    compare(
        lambda: jacobian_norms(model, data.inputs),
        {"5 gradients": five_gradients},
        rounds,
        agreement=lambda a, b: 0.0,
    )
    print("Jacobian norms of 100 images beside explicit Jacobians (torch.func)")
    compare(
        lambda: jacobian_norms(model, data.inputs[:100]),
        {"vmap(jacrev)": by_vmap},
        rounds,
        agreement=lambda a, b: float(((a - b) / b).abs().max()),
    )


def bench_memory(n_images: int = 1000) -> None:
    model = resnet20().eval()
    inputs = torch.rand(n_images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    start = time.perf_counter()
    peak = peak_memory_mb(lambda: found.append(gauss_newton_sharpness(model, inputs)))
    seconds = time.perf_counter() - start
    shown = "unknown" if peak is None else f"{peak:.0f} MB"
    print(
        f"ResNet-20, {n_images} images of 32 x 32: {found[0]}, {seconds:.0f} s, extra peak {shown}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    print_header("Curvature", "curvlinops-for-pytorch", "hessian-eigenthings", "scipy")
    data = load_dataset("fashion_mnist_small").train.head(1000)
    if "lambda_max" in options.parts:
        bench_lambda_max(data, options.lr, options.steps, options.rounds)
    trained = gd_run(data, options.lr, 300, 300)[300]
    if "margins" in options.parts:
        bench_margins(trained, data)
    if "jacobian" in options.parts:
        bench_jacobian(trained, data, options.rounds)
    if "memory" in options.parts:
        bench_memory()


if __name__ == "__main__":
    main()

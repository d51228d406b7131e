"""The value alone: its two promises on known spectra, and what each of its conditions is for."""

import math

import pytest
import torch
from curvature_cases import dense_hessian, make_case
from test_lanczos import SPECTRA, Diagonal, with_spectrum
from torch import Tensor

from calibcourse.curvature import (
    ConvergenceWarning,
    Hessian,
    MatrixOperator,
    top_eigenpair,
    top_eigenvalue,
)
from calibcourse.curvature import lanczos as module
from calibcourse.curvature._unseen import chance_above, may_fall_short
from calibcourse.curvature.lanczos import _error_of_value, _start

BULK = torch.linspace(0, 0.3, 800, dtype=torch.float64)
HARD = {
    "one outlier": [1.0],
    "close pair": [1.0, 0.97],
    "very close pair": [1.0, 0.999],
    "cluster": [1.0 - 0.004 * i for i in range(12)],
    "double": [1.0, 1.0, 0.9],
    "staircase": [1.0, 0.93, 0.86, 0.8, 0.75, 0.7],
    "no outlier": [],
    "long negative end": [1.0, 0.95] + [-1.0 - i for i in range(10)],
    "all negative": [-1.0, -1.04, -1.3],  # the bulk is mirrored below
}


def diagonal(name: str) -> Tensor:
    bulk = -4 - BULK if name == "all negative" else BULK
    return torch.cat([torch.tensor(HARD[name], dtype=torch.float64), bulk])


def share_of_top(spectrum: Tensor, seed: int) -> float:
    """The start's part in the top eigenspace; a random one's is below X with a chance of X."""
    start = _start(Diagonal(spectrum), 1, None, seed)[0].double()
    return float(start[spectrum == spectrum.max()].norm()) * math.sqrt(2 * len(spectrum) / math.pi)


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3, 1e-6])
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("n_starts", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_both_promises_hold_from_any_start(name: str, tol: float, n_starts: int):
    spectrum = diagonal(name)
    top, errors = float(spectrum.max()), []
    for seed in range(n_starts):
        pair = top_eigenvalue(Diagonal(spectrum), tol, max_matvecs=400, seed=seed)
        assert pair.converged
        short = (top - pair.value) / abs(pair.value)
        assert short >= -1e-12  # never above, up to rounding
        # A chance of at most tol/t for each t, start by start: with this part of the top
        # eigenvector a start may be short by tol/X at most. float32 starts: 1e-6 of rounding.
        assert short * share_of_top(spectrum, seed) <= tol * (1 + 1e-6)
        errors.append(float((spectrum - pair.value).abs().min()) / (tol * abs(pair.value)))
    # An estimate: a pair that is not yet told apart may hide its gap. As the docstring says.
    assert sorted(errors)[3 * n_starts // 4] <= 1 and max(errors) <= 2


@pytest.mark.parametrize("name", SPECTRA)
def test_small_matrices_are_exact_when_the_space_is_used_up(name: str):
    operator, _ = with_spectrum(SPECTRA[name])
    pair = top_eigenvalue(operator, tol=1e-9)
    rounding = 1e-13 * max(map(abs, SPECTRA[name]))
    assert pair.converged
    assert abs(pair.value - max(SPECTRA[name])) <= 1e-9 * abs(pair.value) + rounding


def test_the_top_of_an_indefinite_hessian_with_fewer_products():
    model, inputs, target = make_case("mlp_tanh")
    values = torch.linalg.eigvalsh(dense_hessian(model, inputs, target, "cross_entropy"))
    assert values[0] < 0
    operator = Hessian(model, inputs, target)
    pair = top_eigenvalue(operator)
    assert pair.value == pytest.approx(float(values[-1]), rel=1e-3)
    assert pair.matvecs <= top_eigenpair(operator).matvecs


def test_it_costs_less_than_the_pair_and_its_vector_is_worse():
    operator = Diagonal(diagonal("staircase"))
    value, pair = top_eigenvalue(operator), top_eigenpair(operator)
    assert value.matvecs < pair.matvecs
    assert pair.residual < value.residual < 1e-3**0.5


def faint_start() -> tuple[Tensor, float]:
    """A spectrum whose top, a ninth above the rest, is just not too faint in start 0: X > tol/t."""
    start = _start(Diagonal(torch.zeros(3000)), 1, None, 0)[0]
    share = start.abs() * math.sqrt(2 * 3000 / math.pi)
    order = share.argsort()
    place = int((share[order] > 1.1 * 1e-2 / (1 / 0.9 - 1)).nonzero()[0])
    spectrum = 0.3 * torch.rand(3000, generator=torch.Generator().manual_seed(1))
    spectrum[order[-1]], spectrum[order[place]] = 0.9, 1.0
    return spectrum, float(share[order[place]])


def test_a_top_that_is_faint_in_the_start_is_found(monkeypatch):
    spectrum, share = faint_start()
    assert share < 0.11  # nine of ten starts hold more
    assert top_eigenvalue(Diagonal(spectrum), tol=1e-2).value == pytest.approx(1.0, rel=1e-2)
    monkeypatch.setattr(module, "may_fall_short", lambda *arguments: False)
    assert top_eigenvalue(Diagonal(spectrum), tol=1e-2).value == pytest.approx(0.9, rel=2e-2)


def test_what_may_fall_short_is_asked_at_every_excess():
    """Not at `allowed` alone: a chance that falls more slowly than 1/e is largest further up."""
    stages, top = lanczos_of(Diagonal(diagonal("one outlier")), 6)
    dimension = len(BULK) + 1
    chances = {e: chance_above(top + e, stages, dimension) for e in (0.01, 0.02, 0.05, 0.1, 0.3)}
    worst = max(e * min(1.0, chance) for e, chance in chances.items())
    assert may_fall_short(top, 0.99 * worst, stages, dimension)
    # 1.05 is the distance of the excesses that are tried: up to that it errs on the safe side.
    fine = max(
        10 ** (k / 100) * chance_above(top + 10 ** (k / 100), stages, dimension)
        for k in range(-400, 200)
    )
    assert not may_fall_short(top, 1.05**2 * fine, stages, dimension)


def lanczos_of(operator: Diagonal, steps: int) -> tuple[list[tuple[Tensor, int]], float]:
    """T after so many products, and its largest eigenvalue."""
    basis, projected, unit = module._Basis(_start(operator, 1, None, 0), 50), torch.zeros(0, 0), 0.0
    projected = projected.double()
    for step in range(steps):
        projected, unit = module._with_product(operator, basis, step, projected, unit, 1e-12)
    return [(projected, 0)], float(torch.linalg.eigvalsh(projected[:steps])[-1])


def test_the_gap_is_taken_cautiously():
    ritz = torch.tensor([1.0, 0.5], dtype=torch.float64)
    assert _error_of_value(ritz, 0.01, 0.0) == pytest.approx(0.01**2 / 0.5)
    assert _error_of_value(ritz, 0.01, 0.3) == pytest.approx(0.01**2 / 0.2)  # it may lie at 0.8
    assert _error_of_value(ritz, 0.01, 0.495) == 0.01  # a gap too small to help
    assert _error_of_value(ritz, 0.01, 0.6) == 0.01  # no gap at all
    assert _error_of_value(ritz, 0.0, 0.6) == 0.0


def test_what_has_not_converged_says_so():
    operator = Diagonal(diagonal("close pair"))
    with pytest.warns(ConvergenceWarning, match="stopped after 4 products"):
        pair = top_eigenvalue(operator, max_matvecs=4)
    assert not pair.converged and pair.matvecs == 4


def test_a_small_basis_keeps_both_promises():
    spectrum = diagonal("close pair")
    for seed in range(20):
        pair = top_eigenvalue(Diagonal(spectrum), 1e-3, 400, seed, max_basis=8)
        assert pair.converged
        short = (1.0 - pair.value) / pair.value
        assert short * share_of_top(spectrum, seed) <= 1e-3 * (1 + 1e-6)


def test_scaling_changes_nothing_but_the_scale():
    matrix = torch.diag(diagonal("staircase"))
    one, million = (top_eigenvalue(MatrixOperator(f * matrix)) for f in (1.0, 1e6))
    assert million.matvecs == one.matvecs
    assert million.value == pytest.approx(1e6 * one.value, rel=1e-12)

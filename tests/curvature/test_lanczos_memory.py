"""Lanczos with a bounded basis, the smallest eigenvalues, and the density of all of them."""

import warnings

import numpy as np
import pytest
import torch
from curvature_cases import dense_hessian, make_case
from test_lanczos import Counting, with_spectrum

import calibcourse as cc
from calibcourse.curvature import (
    ConvergenceWarning,
    Hessian,
    MatrixOperator,
    bottom_eigenpairs,
    spectral_density,
    top_eigenpair,
    top_eigenpairs,
)
from calibcourse.curvature import lanczos as module
from calibcourse.curvature._unseen import faintest_share

SPECTRA = {
    "decay": [0.8**i for i in range(120)],
    "indefinite": np.linspace(-5, 4, 150).tolist(),
    "outlier": [50.0, *np.linspace(0, 1, 200)],
    "close pair": [1.0, 0.999, *np.linspace(0, 0.9, 150)],
    "double": [2.0, 2.0, *np.linspace(-1, 1, 100)],
}


@pytest.mark.parametrize("max_basis", [6, 8, 15])
@pytest.mark.parametrize("name", SPECTRA)
def test_a_bounded_basis_finds_the_same_top(name, max_basis, monkeypatch):
    rows = []
    extend = module._Basis.extend

    def watched(basis, *given, **named):
        coordinates = extend(basis, *given, **named)
        rows.append(len(basis._rows))
        return coordinates

    monkeypatch.setattr(module._Basis, "extend", watched)
    operator, _ = with_spectrum(SPECTRA[name])
    pair = top_eigenpair(operator, tol=1e-6, max_matvecs=2000, max_basis=max_basis)
    assert pair.converged and max(rows) <= max_basis
    # tol on the residual: its square over the gap, 1e-12 / 1e-3, is the value's error.
    assert pair.value == pytest.approx(max(SPECTRA[name]), rel=1e-8)
    residual = operator.matvec(pair.vector) - pair.value * pair.vector
    assert float(residual.norm()) == pytest.approx(pair.residual, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("name", SPECTRA)
def test_a_bounded_basis_finds_several_with_their_multiplicity(name):
    operator, _ = with_spectrum(SPECTRA[name])
    pairs = top_eigenpairs(operator, 3, tol=1e-6, max_matvecs=3000, max_basis=14)
    expected = sorted(SPECTRA[name], reverse=True)[:3]
    assert [pair.value for pair in pairs] == pytest.approx(expected, rel=1e-8)
    vectors = torch.stack([pair.vector for pair in pairs])
    assert torch.allclose(vectors @ vectors.T, torch.eye(3).double(), rtol=0, atol=1e-8)


def test_a_basis_that_is_large_enough_changes_no_bit():
    operator, _ = with_spectrum(SPECTRA["decay"])
    free, bounded = (top_eigenpair(operator, tol=1e-6, max_basis=b) for b in (None, 60))
    assert free == bounded and torch.equal(free.vector, bounded.vector)


def test_without_a_word_the_bound_is_one_on_bytes(monkeypatch):
    operator, _ = with_spectrum(SPECTRA["indefinite"])
    named = top_eigenpair(operator, tol=1e-6, max_matvecs=500, max_basis=9)
    monkeypatch.setattr(module, "BASIS_BYTES", 9 * 150 * 8)
    assert top_eigenpair(operator, tol=1e-6, max_matvecs=500) == named


def test_restarts_cost_products_and_a_warm_start_still_saves_them():
    operator, vectors = with_spectrum(SPECTRA["indefinite"])
    free = top_eigenpair(operator, tol=1e-6)
    bounded = top_eigenpair(operator, tol=1e-6, max_matvecs=500, max_basis=8)
    assert bounded.matvecs > free.matvecs
    guess = vectors[:, -1]
    warm = top_eigenpair(operator, guess, tol=1e-6, max_matvecs=500, max_basis=8)
    assert warm.converged and warm.matvecs < bounded.matvecs


def test_the_top_is_made_sure_of_after_restarts_too():
    # 60 random starts; each would have to miss a top that lies apart, with a chance of 1e-4.
    values = [1.3, *np.linspace(0, 1, 60)]
    operator, _ = with_spectrum(values)
    for seed in range(60):
        pair = top_eigenpair(operator, tol=0.1, max_matvecs=400, max_basis=6, seed=seed)
        assert pair.converged and pair.value > 1.3 * 0.9


def test_the_share_after_restarts_is_that_of_a_real_eigenvector():
    # The bound on a start's share of the top, at the top itself, is what it really is or above.
    operator, vectors = with_spectrum(SPECTRA["close pair"])
    seen = []
    chance_above = module.chance_above

    def noted(bound, stages, d):
        seen.append(faintest_share(1.0, stages))
        return chance_above(bound, stages, d)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "chance_above", noted)
        top_eigenpair(operator, tol=1e-3, max_matvecs=300, max_basis=8)
    start = module._start(operator, 1, None, 0)[0].double()
    share = float((start @ vectors[:, 0]).abs())
    assert seen and all(bound >= share * (1 - 1e-6) for bound in seen)  # rounding


def test_too_small_a_basis_is_refused():
    operator, _ = with_spectrum([2.0, 1.0])
    with pytest.raises(ValueError, match="max_basis must be at least 6, got 5"):
        top_eigenpair(operator, max_basis=5)
    with pytest.raises(ValueError, match="max_basis must be at least 9"):
        top_eigenpairs(operator, 2, max_basis=8)


def test_a_budget_that_ends_between_restarts_says_so():
    operator, _ = with_spectrum(SPECTRA["close pair"])
    with pytest.warns(ConvergenceWarning, match="after 11 products"):
        pair = top_eigenpair(operator, tol=1e-8, max_matvecs=11, max_basis=6)
    assert not pair.converged and pair.matvecs == 11


@pytest.mark.parametrize("name", SPECTRA)
def test_the_smallest_are_the_largest_of_minus_the_matrix(name):
    operator, _ = with_spectrum(SPECTRA[name])
    counting = Counting(operator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # "decay": 1e-12 of the largest
        pairs = bottom_eigenpairs(counting, 2, tol=1e-6, max_matvecs=400)
    expected = sorted(SPECTRA[name])[:2]
    assert [pair.value for pair in pairs] == pytest.approx(expected, abs=1e-7)
    assert pairs[0].matvecs == counting.count
    vector = pairs[0].vector
    assert float(vector @ operator.matvec(vector)) == pytest.approx(pairs[0].value, abs=1e-12)


def test_the_negative_curvature_of_a_network():
    model, inputs, target = make_case("mlp_tanh")
    expected = torch.linalg.eigvalsh(dense_hessian(model, inputs, target, "cross_entropy"))
    [pair] = cc.bottom_eigenpairs(Hessian(model, inputs, target), tol=1e-7)
    assert pair.value < 0
    assert pair.value == pytest.approx(float(expected[0]), rel=1e-10)


@pytest.mark.parametrize("name", SPECTRA)
def test_moments_of_the_density(name):
    values = np.array(SPECTRA[name])
    operator, _ = with_spectrum(SPECTRA[name])
    density = spectral_density(operator, n_vectors=400, steps=20)
    assert density.weights.sum(1) == pytest.approx(np.ones(400), abs=1e-12)
    for power in (1, 2, 3):
        found = (density.weights * density.nodes**power).sum(1)
        error = float(found.std()) / 400**0.5
        assert float(found.mean()) == pytest.approx((values**power).mean(), abs=5 * error)
    # Nodes lie inside the spectrum, and reach its ends.
    assert values.min() - 1e-10 <= density.nodes.min()
    assert float(density.nodes.max()) == pytest.approx(values.max(), rel=1e-3)


def test_a_rule_integrates_polynomials_of_its_vector_exactly():
    operator, _ = with_spectrum(SPECTRA["indefinite"])
    density = spectral_density(operator, n_vectors=1, steps=6, seed=4)
    vector = module._start(operator, 1, None, 4)[0].double()
    vector = vector / vector.norm()
    moved = vector
    for power in range(1, 12):  # degree below 2 · 6
        moved = operator.matvec(moved)
        found = float((density.weights * density.nodes**power).sum())
        assert found == pytest.approx(float(vector @ moved), rel=1e-9)


def test_shares_and_the_blurred_density():
    operator, _ = with_spectrum([9.0] * 10 + [1.0] * 90)
    density = cc.spectral_density(operator, n_vectors=200)
    assert density.nodes.shape == (200, 2)  # the Krylov space ends after two steps
    # Shares of random vectors on the sphere of R^100: deviation 0.042, of the mean of 200 0.003.
    assert density.share_above(5.0) == pytest.approx(0.1, abs=0.012)
    points = torch.linspace(-2, 12, 2000)
    curve = density.density(points, 0.3)
    assert float(torch.trapezoid(curve, points.double())) == pytest.approx(1.0, abs=1e-3)
    assert float(points[curve.argmax()]) == pytest.approx(1.0, abs=0.01)
    assert "from 1 to 9, 200 vectors of 2 steps" in repr(density)
    with pytest.raises(ValueError, match="width must lie in"):
        density.density(points, 0.0)


def test_a_density_of_bad_products_or_numbers_is_refused():
    broken = MatrixOperator(torch.eye(4))
    broken.matrix = broken.matrix * torch.nan
    with pytest.raises(ValueError, match="must return finite values"):
        spectral_density(broken)
    for name in ("n_vectors", "steps"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            spectral_density(MatrixOperator(torch.eye(4)), **{name: 0})

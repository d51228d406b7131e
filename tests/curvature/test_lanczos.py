"""Lanczos on matrices whose spectrum is known, and its promises about what it returns."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calibcourse.curvature import (
    ConvergenceWarning,
    Eigenpair,
    MatrixOperator,
    SymmetricOperator,
    top_eigenpair,
    top_eigenpairs,
)
from calibcourse.curvature._unseen import faintest_share
from calibcourse.curvature.lanczos import _start


def with_spectrum(values: list[float] | Tensor, seed: int = 0) -> tuple[MatrixOperator, Tensor]:
    """A float64 matrix with these eigenvalues, and its eigenvectors as columns, in that order."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
    vectors = torch.linalg.qr(square).Q
    matrix = (vectors * values) @ vectors.T
    return MatrixOperator((matrix + matrix.T) / 2), vectors


class Counting(SymmetricOperator):
    """Counts the products and hands on nothing but matvec."""

    def __init__(self, inner: SymmetricOperator):
        self.inner, self.count = inner, 0
        self.shape, self.dtype, self.device = inner.shape, inner.dtype, inner.device

    def matvec(self, vector: Tensor) -> Tensor:
        self.count += 1
        return self.inner.matvec(vector)


SPECTRA = {
    "separated": [5.0, 4.0, 2.0, 1.0, 0.5, 0.1, 0.0, -1.0],
    "degenerate top": [3.0, 3.0, 3.0, 1.0, 0.5, 0.0],
    "identity": [2.0] * 6,
    "one by one": [-7.0],
    "zero matrix": [0.0] * 5,
    "rank one": [4.0] + [0.0] * 30,
    "clustered": [1.0 - 1e-3 * i for i in range(40)],
    "negative dominant": [1.0, 0.5] + [-1000.0, -100.0] * 5,
    "all negative": [-1.0, -2.0, -3.0, -50.0],
    "tiny": [1e-200, 1e-201, 0.0],
    "huge": [1e200, 1e199, 0.0],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_top_of_a_known_spectrum(name: str):
    operator, _ = with_spectrum(SPECTRA[name])
    expected = max(SPECTRA[name])  # the algebraically largest, however negative the other end
    pair = top_eigenpair(operator, tol=1e-9)
    assert pair.converged
    # The residual bounds the error, tol bounds the residual; 1e-13 of the norm is rounding.
    rounding = 1e-13 * max(map(abs, SPECTRA[name]))
    assert abs(pair.value - expected) <= 1e-9 * abs(expected) + rounding
    true_residual = (operator.matvec(pair.vector) - pair.value * pair.vector).abs().max()
    assert float(true_residual) <= pair.residual + 10 * rounding
    assert math.isclose(float(pair.vector.norm()), 1, rel_tol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", [n for n in SPECTRA if len(SPECTRA[n]) >= 5])
def test_top_k_of_a_known_spectrum_with_multiplicity(name: str, k: int):
    operator, _ = with_spectrum(SPECTRA[name])
    expected = sorted(SPECTRA[name], reverse=True)[:k]
    pairs = top_eigenpairs(operator, k, tol=1e-8)
    rounding = 1e-12 * max(map(abs, SPECTRA[name]))
    assert all(pair.converged for pair in pairs)
    for pair, value in zip(pairs, expected, strict=True):
        assert abs(pair.value - value) <= 1e-8 * abs(value) + rounding
    vectors = torch.stack([pair.vector for pair in pairs])
    identity = torch.eye(k, dtype=torch.float64)
    assert torch.allclose(vectors @ vectors.T, identity, atol=1e-12)  # orthonormal to rounding


def test_degenerate_space_has_the_right_vectors():
    operator, vectors = with_spectrum(SPECTRA["degenerate top"])
    pairs = top_eigenpairs(operator, 3, tol=1e-10)
    top_space = vectors[:, :3]
    for pair in pairs:
        inside = top_space @ (top_space.T @ pair.vector)
        assert torch.allclose(inside, pair.vector, atol=1e-9)  # angle <= residual/gap


@settings(max_examples=40)
@given(
    values=st.lists(st.floats(-10, 10), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    tol=st.sampled_from([1e-2, 1e-4, 1e-8]),
)
def test_the_residual_reported_is_true_and_bounds_the_error(values, seed, tol):
    operator, _ = with_spectrum(values, seed)
    exact = torch.linalg.eigvalsh(operator.matrix)
    pair = top_eigenpair(operator, tol=tol, seed=seed)
    rounding = 1e-13 * (1 + float(exact.abs().max()))
    true_residual = float((operator.matvec(pair.vector) - pair.value * pair.vector).norm())
    assert abs(true_residual - pair.residual) <= rounding
    assert pair.value <= float(exact[-1]) + rounding  # a Rayleigh quotient
    assert float((exact - pair.value).abs().min()) <= pair.residual + rounding
    assert pair.converged and pair.residual <= max(tol * abs(pair.value), rounding)


def test_a_warm_start_saves_products():
    operator, vectors = with_spectrum(torch.linspace(0, 1, 200).square())
    cold = top_eigenpair(operator)
    near = vectors[:, -1] + 0.01 * vectors[:, 0]
    warm = top_eigenpair(operator, v0=near)
    assert warm.matvecs < cold.matvecs


def test_noise_saves_a_start_that_cannot_see_the_top():
    # The old eigenvector is exact, but another eigenvalue has overtaken it by 20 %: without noise
    # the first residual is 0 and the old value is returned.
    operator, vectors = with_spectrum([1.0, 1.2] + [0.01] * 100)
    pair = top_eigenpair(operator, v0=vectors[:, 0])
    assert abs(pair.value - 1.2) < 1e-3 * 1.2


class Diagonal(SymmetricOperator):
    def __init__(self, diagonal: Tensor):
        self.diagonal = diagonal
        self.shape = (len(diagonal), len(diagonal))
        self.dtype, self.device = diagonal.dtype, diagonal.device

    def matvec(self, vector: Tensor) -> Tensor:
        return self.diagonal * vector


@pytest.mark.parametrize("second", [0.97, 0.9])
@pytest.mark.parametrize("rank", [2, 20])
def test_an_unlucky_start_still_finds_the_top(second, rank):
    """The top eigenvector lies where the random start is nearly blind: 1 of 3,000, or 20 of them.

    Without a second look Lanczos stops at the next eigenvalue, with a residual below tol.
    """
    start = _start(Diagonal(torch.zeros(3000)), 1, None, seed=0)[0]
    spectrum = 0.3 * torch.rand(3000, generator=torch.Generator().manual_seed(1))
    order = start.abs().argsort()
    spectrum[order[-1]] = second
    spectrum[order[rank]] = 1.0
    pair = top_eigenpair(Diagonal(spectrum))
    assert pair.converged and pair.value == pytest.approx(1.0, rel=1e-3)
    if second == 0.97 and rank == 2:  # and says so where the products do not suffice for that
        with pytest.warns(ConvergenceWarning, match="no eigenvalue lies above"):
            early = top_eigenpair(Diagonal(spectrum), max_matvecs=7)
        assert early.value == pytest.approx(second, rel=1e-2) and not early.converged
        assert early.residual <= 1e-3 * early.value


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-6])
def test_the_faintest_share_is_what_an_eigenvector_needs(tol):
    """Against the definition: of all vectors of this T, none has less of the start and such a μ."""
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(6, generator=generator, dtype=torch.float64)
    beta = 0.1 + torch.rand(6, generator=generator, dtype=torch.float64)
    projected = torch.zeros(7, 6, dtype=torch.float64)
    projected[range(6), range(6)] = alpha
    projected[range(1, 7), range(6)] = beta
    projected[range(5), range(1, 6)] = beta[:-1]
    bound = float(torch.linalg.eigvalsh(projected[:6])[-1]) * (1 + tol)
    # The matrix that goes on from T so that `bound` is its eigenvalue: its last entry is free.
    whole = torch.cat([projected, torch.zeros(7, 1, dtype=torch.float64)], 1)
    whole[5, 6] = beta[5]
    u = torch.ones(7, dtype=torch.float64)
    rest = bound * torch.eye(6, dtype=torch.float64) - projected[:6]
    u[:6] = torch.linalg.solve(rest, whole[:6, 6])
    u /= u.norm()
    assert faintest_share(bound, [(projected, 0)]) == pytest.approx(float(u[0]), rel=1e-6)


def test_float32_values_too_small_to_square():
    """λ near 1e-30, as at margin 70: squares of the entries vanish in float32."""
    spectrum = 1e-30 * torch.cat([torch.tensor([1.0, 0.9]), torch.zeros(1000)])
    pair = top_eigenpair(Diagonal(spectrum))
    assert pair.converged and math.isclose(pair.value, 1e-30, rel_tol=1e-4)


def test_scaling_and_shifting_the_matrix_moves_the_value_alike():
    operator, _ = with_spectrum(SPECTRA["separated"])
    value = top_eigenpair(operator, tol=1e-10).value
    scaled = top_eigenpair(MatrixOperator(1e6 * operator.matrix), tol=1e-10).value
    shifted = operator.matrix - 3 * torch.eye(8, dtype=torch.float64)
    assert math.isclose(scaled, 1e6 * value, rel_tol=1e-9)
    assert math.isclose(
        top_eigenpair(MatrixOperator(shifted), tol=1e-10).value, value - 3, rel_tol=1e-8
    )


def test_what_has_not_converged_says_so():
    operator, _ = with_spectrum(SPECTRA["clustered"])
    with pytest.warns(ConvergenceWarning, match="stopped after 5 products.*raise max_matvecs"):
        pair = top_eigenpair(operator, tol=1e-8, max_matvecs=5)
    assert not pair.converged and pair.matvecs == 5 and pair.residual > 1e-8
    assert "NOT converged" in repr(pair)
    with pytest.warns(ConvergenceWarning):
        pairs = top_eigenpairs(operator, 2, tol=1e-8, max_matvecs=5)
    assert not all(pair.converged for pair in pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "NOT" not in repr(top_eigenpair(operator))


def test_products_are_counted_and_bounded():
    operator = Counting(with_spectrum(SPECTRA["clustered"])[0])
    pair = top_eigenpair(operator)
    assert pair.matvecs == operator.count
    operator.count = 0
    pairs = top_eigenpairs(operator, 4)
    assert {pair.matvecs for pair in pairs} == {operator.count}
    # A Krylov space cannot outgrow the space: at most d products, whatever the tolerance.
    operator.count = 0
    top_eigenpair(operator, tol=1e-300)
    assert operator.count <= 40


def test_the_seed_decides_and_the_global_random_state_is_untouched():
    operator, vectors = with_spectrum(SPECTRA["clustered"])
    state = torch.get_rng_state()
    first, again, other = (top_eigenpair(operator, vectors[:, 3], seed=s) for s in (1, 1, 2))
    assert torch.equal(first.vector, again.vector) and first == again
    assert not torch.equal(first.vector, other.vector)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_start_vector_is_not_changed():
    operator, vectors = with_spectrum(SPECTRA["separated"])
    start = 5 * vectors[:, 2]
    before = start.clone()
    top_eigenpair(operator, start)
    assert torch.equal(start, before)


def test_named_errors():
    operator, _ = with_spectrum(SPECTRA["separated"])
    for error, message, options in [
        (ValueError, r"v0 must have shape \(8,\)", {"v0": torch.ones(7)}),
        (ValueError, "v0 must be finite and not zero", {"v0": torch.zeros(8)}),
        (ValueError, "v0 must be finite and not zero", {"v0": torch.full((8,), torch.nan)}),
        (TypeError, "v0 must be a floating", {"v0": [1.0] * 8}),
        (ValueError, "tol must lie in", {"tol": 0.0}),
        (ValueError, "max_matvecs must be at least 1", {"max_matvecs": 0}),
        (ValueError, "seed must be at least 0", {"seed": -1}),
    ]:
        with pytest.raises(error, match=message):
            top_eigenpair(operator, **options)
    for error, message, options in [
        (ValueError, "k must be at least 1", {"k": 0}),
        (ValueError, "k must be at most d = 8", {"k": 9}),
        (TypeError, "k must be an int", {"k": 2.0}),
        (ValueError, r"v0 must have shape \(2, 8\)", {"k": 2, "v0": torch.ones(8)}),
        (ValueError, "max_matvecs must be at least 2", {"k": 2, "max_matvecs": 1}),
    ]:
        with pytest.raises(error, match=message):
            top_eigenpairs(operator, **options)
    broken = Diagonal(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="matvec must return finite"):
        top_eigenpair(broken)


def test_an_eigenpair_reads_well():
    pair = Eigenpair(19.95281234, torch.ones(1), 0.0012345, 6, True)
    assert repr(pair) == "Eigenpair(value=19.9528, residual=1.2e-03, matvecs=6)"

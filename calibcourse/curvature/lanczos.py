"""The largest eigenvalues of a symmetric matrix that is known by its products alone.

Lanczos' method with full re-orthogonalisation, for one start vector or several ("band Lanczos",
Ruhe 1979, Math. Comp. 33:680): each product extends an orthonormal basis of the Krylov space, and
the matrix is small there. "Largest" means algebraically: the top of an indefinite Hessian is its
largest positive eigenvalue, however negative the other end.
"""

import warnings
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .._checks import check_integer, check_operator, check_real, check_seed
from .._conduct import undisturbed
from ._unseen import Stage, chance_above, may_fall_short
from .operators import SymmetricOperator

WARM_NOISE = 0.3  # norm of the noise added to a unit start vector
BASIS_BYTES = 2**31  # that the basis may hold before it is restarted, unless max_basis says
ROWS = 8  # of the basis at first: what a warm start needs
COLUMNS = 2**20  # of the basis, combined at once
CHANCE = 1e-4  # of a random start in which the top eigenvector is too faint to be seen


class ConvergenceWarning(RuntimeWarning):
    """An eigenpair whose residual is still above the tolerance."""


@dataclass(frozen=True)
class Eigenpair:
    """An approximate eigenpair A v ≈ λ v and how far it can be trusted.

    Attributes:
        value: λ, the Rayleigh quotient of `vector`: never above the true top eigenvalue (up to
            rounding), and within `residual` of *an* eigenvalue.
        vector: (d,), of norm 1.
        residual: ‖A v - λ v‖, in units of λ.
        matvecs: products with A spent.
        converged: whether residual ≤ tol·|λ|, or ≤ rounding error; from a random start also that
            no eigenvalue lies higher than that above λ. For `top_eigenvalue`, its two conditions.
    """

    value: float
    vector: Tensor = field(repr=False, compare=False)
    residual: float
    matvecs: int
    converged: bool

    def __repr__(self) -> str:
        note = "" if self.converged else ", NOT converged"
        return (
            f"Eigenpair(value={self.value:.6g}, residual={self.residual:.1e}, "
            f"matvecs={self.matvecs}{note})"
        )


def top_eigenpair(
    operator: SymmetricOperator,
    v0: Tensor | None = None,
    tol: float = 1e-3,
    max_matvecs: int = 100,
    seed: int = 0,
    max_basis: int | None = None,
) -> Eigenpair:
    """The algebraically largest eigenvalue and its eigenvector, by Lanczos with a residual stop.

    The error of the value is at most the residual, and about residual²/gap where the next
    eigenvalue lies `gap` below: at tol = 1e-3 the value is usually right to 1e-5.

    A small residual alone says that λ is *an* eigenvalue. From a random start it is also made sure
    that it is the top one: had A an eigenvalue μ > λ + tol·|λ|, the random start would have had a
    smaller share of its eigenvector than happens with a chance of 1e-4.

    Args:
        operator: anything with `matvec`, `shape`, `dtype` and `device`; wrap a matrix in
            `MatrixOperator`.
        v0: (d,), a guess, such as the eigenvector of the previous checkpoint; None starts at
            random. Noise of 0.3 times its norm is added: from an exact eigenvector the first
            residual is 0, and an eigenvalue that has overtaken it would never be seen. Isotropic
            noise lies almost wholly where a curvature matrix is nearly 0, and one product removes
            that, so it costs next to nothing. (It reaches any one direction with 0.3/√d only:
            where the start may be an exact eigenvector, a cold start is the safe check. A warm one
            stops as soon as the residual is small.)
        tol: stop at ‖A v - λ v‖ ≤ tol·|λ|.
        max_matvecs: stop after this many products in any case.
        seed: of the noise; the global random state is neither read nor changed.
        max_basis: vectors (d,) to hold, 6 at least. When they are full the basis is restarted from
            the best half of its span ("thick restart", Wu and Simon 2000, SIAM J. Matrix Anal.
            22:602), which costs products. None holds what fits into 2 GB.

    Returns:
        The pair. If it has not converged, `converged` is False and a `ConvergenceWarning` says so.

    Raises:
        ValueError, TypeError: v0 of wrong shape or zero, tol ≤ 0, max_matvecs < 1, a product that
            is not finite.

    Example:
        >>> from calibcourse.curvature import MatrixOperator
        >>> matrix = torch.diag(torch.tensor([3.0, 1.0, -9.0]))
        >>> round(top_eigenpair(MatrixOperator(matrix)).value, 4)
        3.0
    """
    if v0 is not None:
        v0 = _check_start(v0, "v0", (operator.shape[0],))[None]
    return _lanczos(operator, 1, v0, tol, max_matvecs, seed, max_basis)[0]


def top_eigenvalue(
    operator: SymmetricOperator,
    tol: float = 1e-3,
    max_matvecs: int = 100,
    seed: int = 0,
    max_basis: int | None = None,
) -> Eigenpair:
    """The algebraically largest eigenvalue alone: fewer products than `top_eigenpair` needs.

    Lanczos from a random start, with two conditions on the value λ and none on its vector:

    - λ is right to tol·|λ| as an eigenvalue, by residual²/gap. The next eigenvalue is taken to lie
      as high as the second Ritz value and its residual; where that leaves no gap, the residual
      itself has to be small. This is an estimate: between two close eigenvalues that are not yet
      told apart, the error has been seen to be up to twice tol.
    - Whether a higher one was overlooked is not estimated but bounded, for every matrix: the chance
      of a start from which λ falls short by more than a part t of |λ| is at most tol/t. At
      tol = 1e-3 that is 1 % for a value that is 10 % too low.

    `top_eigenpair` promises more: chance 1e-4 beyond tol, and a vector as good as tol.

    Args:
        operator, max_matvecs, seed, max_basis: as for `top_eigenpair`.
        tol: of the value, relative.

    Returns:
        The pair; `converged` says that both conditions hold, and a `ConvergenceWarning` that they
        do not. `vector` is as good as `residual` says, about √(tol).

    Raises:
        ValueError, TypeError: as for `top_eigenpair`.

    Example:
        >>> from calibcourse.curvature import MatrixOperator
        >>> matrix = torch.diag(torch.tensor([3.0, 1.0, -9.0]))
        >>> round(top_eigenvalue(MatrixOperator(matrix)).value, 4)
        3.0
    """
    return _lanczos(operator, 1, None, tol, max_matvecs, seed, max_basis, value_only=True)[0]


def top_eigenpairs(
    operator: SymmetricOperator,
    k: int,
    v0: Tensor | None = None,
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    seed: int = 0,
    max_basis: int | None = None,
) -> list[Eigenpair]:
    """The k algebraically largest eigenvalues with eigenvectors, multiple ones included.

    Args:
        operator: as for `top_eigenpair`.
        k: how many, 1 ≤ k ≤ d. The Krylov space starts from k vectors, so an eigenvalue of
            multiplicity up to k is found with its multiplicity.
        v0: (k, d), guesses in any order, or None.
        tol: every pair stops at ‖A v - λ v‖ ≤ tol·|λ|.
        max_matvecs: budget for all pairs together; None means 100 k.
        seed: of the noise.
        max_basis: as for `top_eigenpair`, 3 k + 3 at least.

    Returns:
        k pairs, largest value first, with orthonormal vectors; `matvecs` is the total of them all.
        A pair that has not converged says so, and a `ConvergenceWarning` is given.

    Raises:
        ValueError, TypeError: as for `top_eigenpair`; k out of 1..d, max_matvecs < k.

    Example:
        >>> from calibcourse.curvature import MatrixOperator
        >>> matrix = torch.diag(torch.tensor([3.0, 3.0, 1.0, 0.0]))
        >>> [round(pair.value, 4) for pair in top_eigenpairs(MatrixOperator(matrix), 2)]
        [3.0, 3.0]
    """
    check_operator(operator)
    k = check_integer(k, "k", 1)
    if k > operator.shape[0]:
        raise ValueError(f"k must be at most d = {operator.shape[0]}, got {k}")
    if v0 is not None:
        _check_start(v0, "v0", (k, operator.shape[0]))
    budget = 100 * k if max_matvecs is None else max_matvecs
    return _lanczos(operator, k, v0, tol, budget, seed, max_basis)


def bottom_eigenpairs(
    operator: SymmetricOperator,
    k: int = 1,
    v0: Tensor | None = None,
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    seed: int = 0,
    max_basis: int | None = None,
) -> list[Eigenpair]:
    """The k algebraically smallest eigenvalues with eigenvectors: a Hessian's negative ones.

    Args:
        operator, k, v0, tol, max_matvecs, seed, max_basis: as for `top_eigenpairs`.

    Returns:
        As `top_eigenpairs`, smallest value first; `value` is never below the true one. Where it is
        0, as for a Gauss-Newton matrix, tol·|λ| is 0 too, and only rounding error is allowed.

    Raises:
        ValueError, TypeError: as for `top_eigenpairs`.

    Example:
        >>> from calibcourse.curvature import MatrixOperator
        >>> matrix = torch.diag(torch.tensor([3.0, 1.0, -9.0]))
        >>> round(bottom_eigenpairs(MatrixOperator(matrix))[0].value, 4)
        -9.0
    """
    pairs = top_eigenpairs(_Negated(operator), k, v0, tol, max_matvecs, seed, max_basis)
    return [replace(pair, value=-pair.value) for pair in pairs]


class _Negated(SymmetricOperator):
    """-A."""

    def __init__(self, operator: SymmetricOperator):
        check_operator(operator)
        self._operator = operator
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device

    def matvec(self, vector: Tensor) -> Tensor:
        return -self._operator.matvec(vector)


@undisturbed()
def _lanczos(
    operator: SymmetricOperator,
    k: int,
    v0: Tensor | None,
    tol: float,
    max_matvecs: int,
    seed: int,
    max_basis: int | None,
    value_only: bool = False,
) -> list[Eigenpair]:
    check_operator(operator)
    tol = check_real(tol, "tol", 0.0, strict=True)
    max_matvecs = check_integer(max_matvecs, "max_matvecs", k)
    start = _start(operator, k, v0, check_seed(seed))
    if max_basis is None:
        max_basis = max(3 * k + 3, BASIS_BYTES // (start[0].numel() * start.element_size()))
    basis = _Basis(start, check_integer(max_basis, "max_basis", 3 * k + 3))
    eps = torch.finfo(operator.dtype).eps
    # In float64: it is tiny, and Ritz values come from it.
    projected = torch.zeros(0, 0, dtype=torch.float64, device="cpu")
    unit, done, kept = 0.0, 0, 0
    finished: list[Stage] = []  # before each restart
    for spent in range(1, max_matvecs + 1):
        done += 1
        projected, unit = _with_product(operator, basis, done - 1, projected, unit, eps)
        # A restricted to the vectors that have been multiplied; what their products have outside
        # their span lies on the basis vectors still waiting, so the residual is exact and free.
        inside, outside = projected[:done], projected[done:]
        values, weights = torch.linalg.eigh((inside + inside.mT) / 2)
        every, combinations = values.flip(0), weights.flip(1)
        values, weights = every[:k], combinations[:, :k]
        residuals = (outside @ weights).norm(dim=0)
        rounding = 10 * eps * float(projected.abs().max())
        allowed = (tol * values.abs()).clamp(min=rounding)
        small = residuals <= allowed
        if value_only and done > 1:
            second = float((outside @ combinations[:, 1]).norm())
            small |= _error_of_value(every, float(residuals), second) <= allowed
        exhausted = done == len(basis)  # an invariant subspace: no vector is left to multiply
        if exhausted:
            break
        if k == 1 and v0 is None and small:
            value, slack, stages = float(values), float(allowed), [*finished, (projected, kept)]
            small &= (
                not may_fall_short(value, slack, stages, operator.shape[0])
                if value_only
                else chance_above(value + slack, stages, operator.shape[0]) <= CHANCE
            )
        if done >= k and small.all():
            break
        if len(basis) == max_basis and spent < max_matvecs:
            finished.append((projected, kept))
            kept = max(k, (max_basis - k) // 2)
            outside = outside @ combinations[:, :kept]
            basis.restart(combinations[:, :kept])
            projected, done = torch.cat([torch.diag(every[:kept]), outside]), kept
    if not small.all():
        worst = float((residuals / values.abs().clamp(min=rounding)).max())
        warnings.warn(
            f"Lanczos stopped after {spent} products with a relative residual of {worst:.1e} "
            f"(tol={tol:.1e}), too early to tell that no eigenvalue lies above: raise max_matvecs "
            "or tol",
            ConvergenceWarning,
            stacklevel=3,
        )
    vectors = basis.combine(weights).to(operator.dtype)
    return [
        Eigenpair(unit * float(value), vector, unit * float(residual), spent, bool(converged))
        for value, vector, residual, converged in zip(
            values, vectors, residuals, small, strict=True
        )
    ]


def _error_of_value(ritz: Tensor, residual: float, second: float) -> float:
    """How far the top Ritz value is from an eigenvalue: residual²/gap, or the residual if no gap.

    Kato and Temple's bound (Parlett 1980, Sec. 10-1), with an estimate of the gap.

    Args:
        ritz: the Ritz values, the largest first, two at least.
        residual: of the first.
        second: the residual of the second: the next eigenvalue may lie that much above it.
    """
    gap = float(ritz[0] - ritz[1]) - second
    return min(residual, residual**2 / gap) if gap > 0 else residual


def _with_product(
    operator: SymmetricOperator,
    basis: "_Basis",
    index: int,
    projected: Tensor,
    unit: float,
    drop: float,
) -> tuple[Tensor, float]:
    """Multiply a vector of the basis, which gains what is new in the product.

    Args:
        operator: A.
        basis: of vectors q, extended in place.
        index: of the vector to multiply.
        projected: its entry [l, j] is ⟨q_l, A q_j⟩ / unit, float64, a column for each product.
        unit: of A; 0 before the first product that is not 0.
        drop: as for `_Basis.extend`.

    Returns:
        `projected` with one more column, and the unit.

    Raises:
        ValueError: the product is not finite.
    """
    product = operator.matvec(basis[index].to(operator.dtype)).detach().to(basis.dtype)
    # Squares of the entries of G at margin 40 are about 1e-40, below float32: work with A/unit.
    unit = unit or float(product.abs().max())
    coefficients = basis.extend(product / unit if unit else product, drop)
    if not torch.isfinite(coefficients).all():
        raise ValueError("operator.matvec must return finite values, got NaN or infinity")
    projected = torch.nn.functional.pad(projected, (0, 1, 0, len(coefficients) - len(projected)))
    projected[:, -1] = coefficients
    return projected, unit


class _Basis:
    """Orthonormal vectors as the rows of one growing matrix."""

    def __init__(self, start: Tensor, most: int):
        rows = min(most, max(len(start), ROWS))
        self._rows, self._count, self._most = start.new_empty(rows, start.shape[1]), 0, most
        self.dtype = start.dtype
        for vector in start:
            self.extend(vector, drop=0.0)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensor:
        return self._rows[index]

    def extend(self, vector: Tensor, drop: float) -> Tensor:
        """Add what is new in a vector; its coordinates in the basis after that, float64 on CPU.

        Nothing is added if the new part is at most `drop` times the vector.
        """
        rows = self._rows[: self._count]
        # Twice is enough (Parlett 1980, Sec. 6-9): without the second pass rounding lets found
        # eigenvectors grow back and appear as copies ("ghosts", Paige 1976).
        first = rows @ vector
        rest = torch.addmv(vector, rows.T, first, alpha=-1)
        second = rows @ rest
        rest = torch.addmv(rest, rows.T, second, alpha=-1)
        norms = torch.stack([_norm(rest), _norm(vector)])
        read = torch.cat([first, second, norms]).cpu().double()  # one wait for the device
        coordinates = read[: self._count] + read[self._count : -2]
        norm, length = read[-2:].tolist()
        if norm <= drop * length:
            return coordinates
        if self._count == len(self._rows):
            more = min(self._count, self._most - self._count)
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows[:more])])
        self._rows[self._count] = rest / norm
        self._count += 1
        return torch.cat([coordinates, read[-2:-1]])

    def restart(self, weights: Tensor) -> None:
        """Keep Σ_j weights[j, i] q_j in place of the vectors that were multiplied, and the rest."""
        done, kept = weights.shape
        mixing = weights.T.to(self._rows)
        for columns in self._rows[: self._count].split(COLUMNS, dim=1):
            waiting = columns[done:].clone()
            columns[:kept] = mixing @ columns[:done]
            columns[kept : kept + len(waiting)] = waiting
        self._count += kept - done

    def combine(self, weights: Tensor) -> Tensor:
        """Σ_j weights[j, i] q_j as row i, normalised."""
        vectors = weights.T.to(self._rows) @ self._rows[: len(weights)]
        return vectors / vectors.norm(dim=1, keepdim=True)


def _start(operator: SymmetricOperator, k: int, v0: Tensor | None, seed: int) -> Tensor:
    """k start vectors as rows: random, or the given ones, normalised, plus a little noise."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
    noise = torch.randn(k, operator.shape[0], generator=generator, device="cpu")
    # In half precision vectors are not orthogonal enough: the basis is wider than the products.
    wide = torch.promote_types(operator.dtype, torch.float32)
    noise = (noise / noise.norm(dim=1, keepdim=True)).to(operator.device, wide)
    if v0 is None:
        return noise
    guess = v0.detach().to(operator.device, wide)
    return guess / guess.norm(dim=1, keepdim=True) + WARM_NOISE * noise


def _check_start(v0: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(v0, Tensor) or not v0.is_floating_point():
        raise TypeError(f"{name} must be a floating torch.Tensor, got {type(v0).__name__}")
    if v0.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(v0.shape)}")
    norms = v0.norm(dim=-1)
    if not (torch.isfinite(norms) & (norms > 0)).all():
        raise ValueError(f"{name} must be finite and not zero")
    return v0


def _norm(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector)

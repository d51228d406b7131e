"""The trace of a curvature matrix: exactly, or by Hutch++ where that costs too much.

tr G = mean_i tr(H_i J_i J_iᵀ), so the K × K Gram matrices of `jacobian.py` (K vector-Jacobian
products) give the exact trace of a Gauss–Newton matrix.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_integer, check_operator, check_seed
from .._conduct import undisturbed
from .._devices import precise
from ._network import evaluate, precise_logits
from .jacobian import blocks_of_prepared, gram_bytes_per_sample
from .logit_hessian import logit_hessian
from .operators import GaussNewton, SymmetricOperator

AFFORDABLE_BYTES = 2**30  # for one sample's explicit Jacobian


@dataclass(frozen=True)
class Trace:
    """A trace and how it was had.

    Attributes:
        value: the trace or its unbiased estimate.
        standard_error: of the estimate, 0 where exact.
        matvecs: products with the operator spent; 0 if it came from Gram matrices.
        exact: whether value is exact up to rounding.
    """

    value: float
    standard_error: float
    matvecs: int
    exact: bool

    def __repr__(self) -> str:
        spread = "exact" if self.exact else f"±{self.standard_error:.1e}"
        return f"Trace(value={self.value:.6g}, {spread}, matvecs={self.matvecs})"


@undisturbed()
def trace(
    operator: SymmetricOperator, max_matvecs: int = 60, exact: bool | None = None, seed: int = 0
) -> Trace:
    """The trace of a symmetric operator, exact where affordable, else by Hutch++.

    Hutch++ (Meyer, Musco, Musco and Woodruff 2021, arXiv 2010.09649): a third of the products finds
    the range of A where it is large, a third takes the trace there exactly, and a third estimates
    what is left by random signs. For a positive semidefinite matrix its error falls as
    1/max_matvecs, where plain random signs need the square of that many products.

    Args:
        operator: anything with `matvec`, `shape`, `dtype` and `device`.
        max_matvecs: products that an estimate may spend, at least 3; also what "affordable" means:
            exact if K (for `GaussNewton`) or d (for any operator) is at most this.
        exact: True insists on the exact trace, False on the estimate, None decides by cost.
        seed: of the random signs; the global random state is neither read nor changed.

    Returns:
        `Trace` with the value, its standard error, products spent and whether it is exact.

    Raises:
        ValueError, TypeError: max_matvecs < 3.

    Example:
        >>> from calibcourse.curvature import MatrixOperator
        >>> trace(MatrixOperator(torch.diag(torch.arange(5.0))))
        Trace(value=10, exact, matvecs=5)
    """
    check_operator(operator)
    max_matvecs = check_integer(max_matvecs, "max_matvecs", 3)
    seed = check_seed(seed)
    if exact is None:
        exact = operator.shape[0] <= max_matvecs or _affordable(operator, max_matvecs)
    if not exact:
        return _hutch_plus_plus(operator, max_matvecs // 3, seed)
    if isinstance(operator, GaussNewton) and operator.whole:
        return Trace(_gauss_newton_trace(operator), 0.0, 0, True)
    size = operator.shape[0]
    units = torch.eye(size, dtype=operator.dtype, device=operator.device)
    diagonal = (float(operator.matvec(unit)[index]) for index, unit in enumerate(units))
    return Trace(sum(diagonal), 0.0, size, True)


def _affordable(operator: SymmetricOperator, max_matvecs: int) -> bool:
    if not isinstance(operator, GaussNewton) or not operator.whole:
        return False
    n_classes, per_sample = gram_bytes_per_sample(operator.model, operator.inputs)
    return n_classes <= max_matvecs and per_sample <= AFFORDABLE_BYTES


def _gauss_newton_trace(operator: GaussNewton) -> float:
    total, count = 0.0, 0
    for batch, _ in operator.batches():
        count += len(batch)
        with torch.no_grad():
            logits = precise_logits(operator.model, batch, evaluate(operator.model, batch))
        for grams in blocks_of_prepared(operator.model, batch, operator.parameters):
            some, logits = logits[: len(grams)], logits[len(grams) :]
            total += float(precise(logit_hessian(some, operator.loss) * grams).sum())
    return total / count


def _hutch_plus_plus(operator: SymmetricOperator, n_vectors: int, seed: int) -> Trace:
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same signs on every device

    def signs() -> Tensor:
        shape = n_vectors, operator.shape[0]
        draws = torch.randint(0, 2, shape, generator=generator, device="cpu")
        return (2 * draws - 1).to(operator.device, operator.dtype)

    def products(vectors: Tensor) -> Tensor:
        return torch.stack([operator.matvec(vector.to(operator.dtype)) for vector in vectors])

    def quadratic_forms(vectors: Tensor) -> Tensor:
        return (precise(vectors) * precise(products(vectors))).sum(1)

    sketch = products(signs())
    sketch = sketch.to(torch.promote_types(sketch.dtype, torch.float32))  # half has no QR
    largest = sketch.abs().max()  # squares of entries near 1e-20 would vanish in float32
    range_ = torch.linalg.qr((sketch / largest.clamp(min=torch.finfo(sketch.dtype).tiny)).T).Q.T
    inside = quadratic_forms(range_)
    probes = signs().to(range_.dtype)
    outside = quadratic_forms(probes - (probes @ range_.T) @ range_)
    error = float(outside.std() / n_vectors**0.5) if n_vectors > 1 else float("nan")
    value = float(inside.sum() + outside.mean())
    return Trace(value, error, len(range_) + 2 * n_vectors, False)

"""The density of all eigenvalues of a symmetric matrix, by stochastic Lanczos quadrature.

m steps of Lanczos from a unit vector v give a small tridiagonal matrix, whose eigenvalues θ_j and
squared first components w_j are the Gauss quadrature of v's spectral measure: Σ_j w_j f(θ_j) =
vᵀ f(A) v for every polynomial f of degree below 2m. Over random v the mean of vᵀ f(A) v is
tr f(A) / d (Golub and Welsch 1969; for networks Ghorbani, Krishnan and Xiao 2019,
arXiv 1901.10159).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._checks import check_integer, check_operator, check_real, check_seed
from .._conduct import undisturbed
from .lanczos import _Basis, _start, _with_product
from .operators import SymmetricOperator


@dataclass(frozen=True)
class SpectralDensity:
    """Where the eigenvalues lie: a share of them at each node. On the CPU, whatever the operator.

    Attributes:
        nodes: (n_vectors, steps), float64, in units of eigenvalues, ascending in each row.
        weights: (n_vectors, steps), float64, the share of all eigenvalues; each row adds up to 1.
            A Krylov space that ended early leaves nodes of weight 0.
        dimension: d, the number of eigenvalues.
    """

    nodes: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    dimension: int

    def __repr__(self) -> str:
        low, high = float(self.nodes.min()), float(self.nodes.max())
        return (
            f"SpectralDensity(d={self.dimension}, from {low:.4g} to {high:.4g}, "
            f"{len(self.nodes)} vectors of {self.nodes.shape[1]} steps)"
        )

    def share_above(self, value: float) -> float:
        """The share of all eigenvalues above a value, in [0, 1]."""
        return float(self.weights[self.nodes > value].sum() / len(self.nodes))

    def density(self, points: Tensor, width: float) -> Tensor:
        """The density at points (p,), every node blurred to a Gaussian of standard deviation width.

        Its integral is 1, in units of 1/eigenvalue; widths below the distance of nodes show combs.
        """
        width = check_real(width, "width", 0.0, strict=True)
        distance = (points.double().cpu()[:, None, None] - self.nodes) / width
        bumps = torch.exp(-0.5 * distance.square()) / (width * (2 * torch.pi) ** 0.5)
        return (bumps * self.weights).sum((1, 2)) / len(self.nodes)


@undisturbed()
def spectral_density(
    operator: SymmetricOperator, n_vectors: int = 10, steps: int = 50, seed: int = 0
) -> SpectralDensity:
    """The spectrum of an operator as a density, by stochastic Lanczos quadrature.

    Args:
        operator: as for `top_eigenpair`.
        n_vectors: random starts; the error of a share of eigenvalues falls as 1/√(n_vectors · d).
        steps: products per start, and nodes. Outliers are resolved first, the bulk last.
        seed: of the starts; the global random state is neither read nor changed.

    Returns:
        `SpectralDensity`, after n_vectors · steps products; `steps` vectors (d,) are held.

    Raises:
        ValueError, TypeError: a number that is no positive integer; a product that is not finite.

    Example:
        >>> from calibcourse.curvature import MatrixOperator
        >>> matrix = torch.diag(torch.tensor([9.0, 1, 1, 1, 1, 1, 1, 1]))
        >>> density = spectral_density(MatrixOperator(matrix), n_vectors=100, steps=2)
        >>> density, round(density.share_above(5.0), 1)  # one of eight
        (SpectralDensity(d=8, from 1 to 9, 100 vectors of 2 steps), 0.1)
    """
    check_operator(operator)
    n_vectors = check_integer(n_vectors, "n_vectors", 1)
    steps = check_integer(steps, "steps", 1)
    seed = check_seed(seed)
    rules = [_rule(operator, _start(operator, 1, None, seed + n), steps) for n in range(n_vectors)]
    longest = max(len(nodes) for nodes, _ in rules)
    # Rows that ended early are filled with their last node, at weight 0.
    nodes = torch.stack([torch.cat([x, x[-1:].expand(longest - len(x))]) for x, _ in rules])
    weights = torch.stack([torch.cat([w, w.new_zeros(longest - len(w))]) for _, w in rules])
    return SpectralDensity(nodes, weights, operator.shape[0])


def _rule(operator: SymmetricOperator, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss quadrature of one start vector."""
    basis, eps = _Basis(start, steps + 1), torch.finfo(operator.dtype).eps
    projected, unit = torch.zeros(0, 0, dtype=torch.float64, device="cpu"), 0.0
    for done in range(1, min(steps, operator.shape[0]) + 1):
        projected, unit = _with_product(operator, basis, done - 1, projected, unit, 10 * eps)
        if len(basis) == done:  # an invariant subspace: the rule is exact
            break
    inside = projected[:done]
    values, vectors = torch.linalg.eigh((inside + inside.mT) / 2)
    return unit * values, vectors[0].square()

"""Sharpness: the one number of curvature that training is watched by.

Gauss–Newton sharpness    λ_max(G)                            paper Sec. 3; hovers at 2/η in GD
batch sharpness           mean over batches B of g_Bᵀ H_B g_B / ‖g_B‖²
                          Andreyev and Beneventano, arXiv 2412.20553; hovers at 2/η in SGD
"""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .._conduct import undisturbed
from .._sources import pair
from .lanczos import Eigenpair, top_eigenpair
from .operators import GaussNewton, Hessian, Samples


def gauss_newton_sharpness(
    model: nn.Module,
    inputs: Samples,
    v0: Tensor | None = None,
    loss: str = "cross_entropy",
    *,
    tol: float = 1e-3,
    max_matvecs: int = 100,
    batch_size: int | None = None,
    seed: int = 0,
    parameters: Iterable[nn.Parameter] | None = None,
) -> Eigenpair:
    """λ_max of the Gauss–Newton matrix of the mean loss, with its eigenvector.

    Args:
        model: maps (N, ...) to logits (N, K); BatchNorm and dropout must be in eval mode.
        inputs: (N, ...), the model's dtype and device; or batches, as for `GaussNewton`.
        v0: (d,), the eigenvector of a nearby point: usually halves the products needed.
        loss: "cross_entropy" or "mse".
        tol, max_matvecs, seed: as for `top_eigenpair`.
        batch_size, parameters: as for `GaussNewton`: with a layer's parameters, the sharpness along
            that layer alone, which is never above the whole one.

    Returns:
        Eigenpair(value, vector, residual, matvecs, converged); `value` is λ_max. If it has not
        converged, `converged` is False and a `ConvergenceWarning` says so.

    Raises:
        ValueError, TypeError: as for `GaussNewton` and `top_eigenpair`.

    Example:
        >>> import torch
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)  # p = 1/2: H_z has eigenvalue 1/2, J is the input
        >>> round(gauss_newton_sharpness(model, torch.tensor([[2.0]])).value, 4)
        2.0
    """
    operator = GaussNewton(model, inputs, loss, batch_size, parameters)
    return top_eigenpair(operator, v0, tol, max_matvecs, seed)


class WarmSharpness:
    """`gauss_newton_sharpness` along a run: each call starts from the last one's eigenvector.

    Args:
        loss, tol, max_matvecs, batch_size, seed: as for `gauss_newton_sharpness`.

    Attributes:
        vector: (d,), the last eigenvector, or None before the first call.
        calls: how many so far; call number n takes its noise from seed + n, so that a run resumed
            from `state_dict` repeats the same numbers to the last bit.

    Raises:
        When called: as `gauss_newton_sharpness`; ValueError for a network of another size.

    Example:
        >>> import torch
        >>> sharpness = WarmSharpness()
        >>> model, inputs = nn.Linear(4, 3), torch.randn(20, 4)
        >>> sharpness(model, inputs).converged, sharpness(model, inputs).converged
        (True, True)
    """

    def __init__(
        self,
        loss: str = "cross_entropy",
        *,
        tol: float = 1e-3,
        max_matvecs: int = 100,
        batch_size: int | None = None,
        seed: int = 0,
    ):
        self.loss, self.tol, self.max_matvecs = loss, tol, max_matvecs
        self.batch_size, self.seed = batch_size, seed
        self.vector: Tensor | None = None
        self.calls = 0

    def __call__(self, model: nn.Module, inputs: Tensor) -> Eigenpair:
        """As `gauss_newton_sharpness`, from the vector of the call before."""
        pair = gauss_newton_sharpness(
            model,
            inputs,
            self.vector,
            self.loss,
            tol=self.tol,
            max_matvecs=self.max_matvecs,
            batch_size=self.batch_size,
            seed=self.seed + self.calls,
        )
        self.vector, self.calls = pair.vector, self.calls + 1
        return pair

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: plain tensors and numbers, for `torch.save`."""
        return {"vector": self.vector, "calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.vector, self.calls = state["vector"], int(state["calls"])


@undisturbed()
def batch_sharpness(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: str = "cross_entropy",
) -> float:
    """Mean over batches B of g_Bᵀ H_B g_B / ‖g_B‖²: curvature along each batch's own gradient.

    g_B and H_B are the gradient and the (full) Hessian of the batch's mean loss. Batches count
    equally, whatever their size. One curvature gᵀH_B g per batch.

    Args:
        model: maps (n, ...) to logits (n, K); BatchNorm and dropout must be in eval mode.
        batches: pairs (inputs (n, ...), target (n,) int64).
        loss: "cross_entropy" or "mse".

    Returns:
        The mean. A batch whose gradient is exactly zero has no direction and is left out; NaN if
        that leaves none. It may be negative: H_B is indefinite.

    Raises:
        ValueError, TypeError: as for `Hessian`; no batch at all.
        RuntimeError: the model changes between two batches: they are measured at one point.

    Example:
        >>> import torch
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> batch = torch.tensor([[2.0]]), torch.tensor([0])
        >>> round(batch_sharpness(model, [batch]), 4)  # one direction only, so λ_max itself
        2.0
    """
    quotients, n_batches = [], 0
    hessian: Hessian | None = None
    for batch in batches:
        n_batches += 1
        inputs, target = pair(batch, "batches", "a list of batches, a DataLoader")
        # The first tries the model out; the others are of the same model.
        hessian = hessian.at(inputs, target) if hessian else Hessian(model, inputs, target, loss)
        quotient = hessian.curvature_along_gradient()
        if quotient is not None:
            quotients.append(quotient)
    if not n_batches:
        raise ValueError("batches must hold at least one (inputs, target) pair, got none")
    return math.fsum(quotients) / len(quotients) if quotients else math.nan

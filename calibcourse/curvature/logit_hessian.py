"""The Hessian of the loss in the logits, in closed form and without cancellation.

Cross-entropy: H_z = diag(p) - p pᵀ. The usual p∘u - p(pᵀu) subtracts two nearly equal numbers once
the network is sure of itself: in float32 it is off by 2 % at margin 15 and by 87 % at margin 18.
Since H_z·1 = 0, u may first be shifted by its entry at the top class; with r = u - u_top,

    (H_z u)_j = p_j (r_j - s),    s = Σ_{j≠top} p_j r_j,

holds exactly and no longer cancels: s is small, r_top is exactly 0 (THEORY.md section 5).

Mean squared error on one-hot targets: H_z = (2/K) I (paper Appendix E).
"""

import torch
from torch import Tensor

from .._checks import check_choice, check_logits, check_target

LOSSES = ("cross_entropy", "mse")


def logit_hessian_product(logits: Tensor, vectors: Tensor, loss: str = "cross_entropy") -> Tensor:
    """H_z u for every sample: cross-entropy in the shifted form, (2/K) u for "mse".

    Args:
        logits: (N, K).
        vectors: (N, K), one u per sample.
        loss: "cross_entropy" or "mse".

    Returns:
        (N, K), in the wider of the two dtypes.

    Raises:
        ValueError, TypeError: wrong shapes, non-finite logits, an unknown loss.

    Example:
        >>> sure = torch.tensor([[40.0, 0.0]])  # p(1 - p) is e⁻⁴⁰, where 1 - p rounds to 0
        >>> logit_hessian_product(sure, torch.tensor([[0.0, 1.0]]))
        tensor([[-4.2484e-18,  4.2484e-18]])
    """
    _check(logits, loss)
    if vectors.shape != logits.shape:
        raise ValueError(
            f"vectors must have the shape of logits {tuple(logits.shape)}, "
            f"got {tuple(vectors.shape)}"
        )
    return _product(logits, vectors, loss)


def logit_hessian(logits: Tensor, loss: str = "cross_entropy") -> Tensor:
    """H_z as a K × K matrix for every sample; its diagonal is p_k Σ_{j≠k} p_j, never p_k (1 - p_k).

    Args:
        logits: (N, K).
        loss: "cross_entropy" or "mse".

    Returns:
        (N, K, K), symmetric positive semidefinite, dtype of logits.

    Raises:
        ValueError, TypeError: wrong shape, non-finite logits, an unknown loss.

    Example:
        >>> logit_hessian(torch.zeros(1, 2))
        tensor([[[ 0.2500, -0.2500],
                 [-0.2500,  0.2500]]])
    """
    _check(logits, loss)
    n_classes = logits.shape[1]
    if loss == "mse":
        return (2 / n_classes * _eye(logits)).expand(len(logits), -1, -1).contiguous()
    p = logits.softmax(1)
    outer = p[:, :, None] * p[:, None, :]
    outer.diagonal(dim1=1, dim2=2).zero_()
    return torch.diag_embed(outer.sum(2)) - outer


def logit_hessian_factor(logits: Tensor, loss: str = "cross_entropy") -> Tensor:
    """S with H_z = S Sᵀ for every sample: S = (diag(1) - p 1ᵀ) diag(√p), or √(2/K) I for "mse".

    λ_max(Jᵀ H_z J) of one sample is the top eigenvalue of the K × K matrix Sᵀ (J Jᵀ) S.

    Args:
        logits: (N, K).
        loss: "cross_entropy" or "mse".

    Returns:
        (N, K, K), dtype of logits. Column k is √p_k (e_k - p), with 1 - p_k summed from the other
        probabilities.

    Raises:
        ValueError, TypeError: wrong shape, non-finite logits, an unknown loss.

    Example:
        >>> factor = logit_hessian_factor(torch.zeros(1, 2))
        >>> torch.allclose(factor @ factor.mT, logit_hessian(torch.zeros(1, 2)))
        True
    """
    _check(logits, loss)
    n_classes = logits.shape[1]
    if loss == "mse":
        factor = (2 / n_classes) ** 0.5 * _eye(logits)
        return factor.expand(len(logits), -1, -1).contiguous()
    p = logits.softmax(1)
    others = p[:, None, :] * (1 - _eye(logits))  # row k: p without p_k
    columns = torch.diag_embed(others.sum(2)) - others.mT
    return columns * p.sqrt()[:, None, :]


def logit_gradient(logits: Tensor, target: Tensor, loss: str = "cross_entropy") -> Tensor:
    """Gradient of each sample's loss in its logits: p - e_y, or (2/K)(z - e_y) for "mse".

    Args:
        logits: (N, K).
        target: (N,), int64 labels.
        loss: "cross_entropy" or "mse".

    Returns:
        (N, K), dtype of logits; p_y - 1 is minus the sum of the other probabilities.

    Raises:
        ValueError, TypeError: wrong shapes or dtypes, a label out of range, an unknown loss.

    Example:
        >>> logit_gradient(torch.tensor([[40.0, 0.0]]), torch.tensor([0]))
        tensor([[-4.2484e-18,  4.2484e-18]])
    """
    _check(logits, loss)
    check_target(target, *logits.shape)
    return _gradient(logits, target, loss)


def _check(logits: Tensor, loss: str) -> None:
    check_logits(logits)
    check_choice(loss, "loss", LOSSES)


def _gradient(logits: Tensor, target: Tensor, loss: str) -> Tensor:
    """`logit_gradient` without its checks."""
    label = target[:, None]
    if loss == "mse":
        one_hot = torch.zeros_like(logits).scatter_(1, label, 1.0)
        return (logits - one_hot) * (2 / logits.shape[1])
    gradient = logits.softmax(1).scatter_(1, label, 0.0)
    return gradient.scatter_(1, label, -gradient.sum(1, keepdim=True))


def _product(logits: Tensor, vectors: Tensor, loss: str) -> Tensor:
    """`logit_hessian_product` without its checks, for use inside a matrix-vector product."""
    if loss == "mse":
        return vectors * (2 / logits.shape[1])
    p = logits.softmax(1)
    top = logits.argmax(1, keepdim=True)
    shifted = vectors - vectors.gather(1, top)
    # The top class's own r is exactly 0: it adds nothing to s and receives -p_top s.
    return p * (shifted - (p * shifted).sum(1, keepdim=True))


def _eye(logits: Tensor) -> Tensor:
    return torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)

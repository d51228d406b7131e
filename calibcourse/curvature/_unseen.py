"""What a random start may have overlooked: how high an eigenvalue may lie that Lanczos missed.

From a start that happens to hold next to nothing of the top eigenvector, Lanczos converges to a
lower eigenvalue, with a residual as small as one likes. The basis tells how little that would be.
"""

import math

import torch
from torch import Tensor

Stage = tuple[Tensor, int]
FINER = 1.05  # ratio of the excesses at which chances are compared


def chance_above(bound: float, stages: list[Stage], dimension: int) -> float:
    """The largest chance of a random start from which an eigenvalue beyond `bound` is still unseen.

    A coordinate of a random unit vector of R^d has a density of at most √(d/2π), so its size is
    below c with a chance of at most c √(2d/π).

    Args:
        bound: at least the largest Ritz value.
        stages: as for `faintest_share`.
        dimension: d.
    """
    return faintest_share(bound, stages) * math.sqrt(2 * dimension / math.pi)


def may_fall_short(value: float, allowed: float, stages: list[Stage], dimension: int) -> bool:
    """Whether, for some e, the chance that an eigenvalue lies above value + e may exceed allowed/e.

    It is asked for rising e. A chance falls as e rises, so in between it is at most that of the
    lower end; and far above the spectrum it falls faster than 1/e.

    Args:
        value: the largest Ritz value.
        allowed: the error that is tolerated, in the same unit.
        stages, dimension: as for `chance_above`.
    """
    largest = 10 * max(float(projected.abs().max()) for projected, _ in stages)
    excess = allowed
    while 0 < excess <= largest:
        if excess * FINER * chance_above(value + excess, stages, dimension) > allowed:
            return True
        excess *= FINER
    return False


def faintest_share(bound: float, stages: list[Stage]) -> float:
    """The largest |⟨u, q_1⟩| that an eigenvector u beyond `bound`, itself above T, can still have.

    Let A u = μ u, μ > bound. By the three-term recurrence of the basis ⟨u, q_j⟩ = p_j(μ) ⟨u, q_1⟩,
    p_1 = 1 and β_j p_{j+1} = (μ - α_j) p_j - β_{j-1} p_{j-1} (Parlett 1980, Sec. 7-3). The squares
    of these coordinates add up to at most 1, and above all Ritz values every p_j grows with μ: so
    ⟨u, q_1⟩² <= 1/Σ p_j(bound)².

    The vectors that a restart keeps are Ritz vectors y_i with A y_i = θ_i y_i + s_i q, q the vector
    that was waiting: so ⟨u, y_i⟩ = s_i ⟨u, q⟩ / (μ - θ_i), and the recurrence goes on from q, with
    every earlier vector in it. These too grow with μ above all Ritz values, since a Ritz value only
    grows.

    Args:
        bound: at least the largest Ritz value.
        stages: T before each restart of the basis, and now, each with its vectors' products below
            it, and the number of vectors that were kept before it.
    """
    most, last = _squares_and_last(bound, stages[0][0])
    for projected, kept in stages[1:]:
        ritz, couplings = projected.diagonal()[:kept], projected[kept, :kept]
        shares = torch.zeros(len(projected), dtype=torch.float64, device="cpu")
        shares[:kept] = couplings * last / (bound - ritz)
        shares[kept] = last
        for j in range(kept, projected.shape[1]):
            rest = bound * shares[j] - projected[: j + 1, j] @ shares[: j + 1]
            shares[j + 1] = rest / projected[j + 1, j]
        most, last = max(most, float(shares.square().sum())), float(shares[-1])
    return 1 / math.sqrt(most)


def _squares_and_last(bound: float, projected: Tensor) -> tuple[float, float]:
    """Σ p_j(bound)² and the last p_j."""
    before, here, total, coupling = 0.0, 1.0, 1.0, 0.0
    for alpha, beta in zip(
        projected.diagonal().tolist(), projected.diagonal(-1).tolist(), strict=True
    ):
        before, here = here, ((bound - alpha) * here - coupling * before) / beta
        coupling = beta
        total += here * here
    return total, here

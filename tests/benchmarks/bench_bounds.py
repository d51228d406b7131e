"""The whole curvature ladder in units of one top eigenpair, the Jacobian norms and one gradient."""

from _harness import Comparison, Peer, script
from bench_curvature import Point, gradients, our_jacobian_norms, trained_point
from torch import Tensor

from calibcourse.bounds import Ladder, curvature_ladder
from calibcourse.curvature import Eigenpair, GaussNewton, top_eigenpair


def eigenpair(point: Point) -> Eigenpair:
    return top_eigenpair(GaussNewton(point.model, point.data.inputs))


def disagreement(ladder: Ladder, theirs: Eigenpair | Tensor) -> float:
    """Relative difference of the number that the ladder shares with a peer."""
    if isinstance(theirs, Eigenpair):
        return abs(ladder.u0 / theirs.value - 1)
    return abs(ladder.max_jacobian_norm / float(theirs.max()) - 1)


LADDER = Comparison(
    name="ladder",
    what="curvature ladder, every bound on λ_max",
    subject=trained_point,
    size=str,
    ours=lambda p: curvature_ladder(p.model, p.data.inputs, p.data.target),
    peers=(
        # The ladder calls the same two functions on the same numbers: only rounding may differ.
        Peer("top eigenpair alone", eigenpair, bound=1e-5, unit=True),
        Peer("Jacobian norms alone", our_jacobian_norms, bound=1e-5, unit=True),
        Peer("one gradient", gradients(1), unit=True),
    ),
    apart=disagreement,
    measure="relative difference of the number shared",
    rounds=7,
)

PARTS = (LADDER,)

if __name__ == "__main__":
    script(__doc__, PARTS)

"""Exercises of lesson 06: SAM's update, Muon's orthogonal gradient, BulkSGD's projection."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .framework import Case, Counted, Exercise, Finding, WrongSolution, array, show, value_case
from .predictions import Prediction

# --- 1. SAM's update -----------------------------------------------------------------------------


def my_sam_step(gradients_of, parameters, lr, rho):
    gradients = gradients_of(parameters)
    length = torch.cat([g.flatten() for g in gradients]).norm()
    above = [p + rho * g / length for p, g in zip(parameters, gradients, strict=True)]
    return [p - lr * g for p, g in zip(parameters, gradients_of(above), strict=True)]


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _moved(tensors: list[Tensor], by: list[Tensor], factor) -> list[Tensor]:
    return [p + factor * b for p, b in zip(tensors, by, strict=True)]


def _ascending(ascent):
    """SAM's update with another ascent: `ascent` makes the shift of each tensor from ρ and all."""

    def wrong(gradients_of, parameters, lr, rho):
        above = _moved(parameters, ascent(gradients_of(parameters), rho), 1)
        return _moved(parameters, gradients_of(above), -lr)

    return wrong


def _finishing(finish):
    """The right ascent with another end: `finish` sees start, top, both gradients and lr."""

    def wrong(gradients_of, parameters, lr, rho):
        gradients = gradients_of(parameters)
        above = _moved(parameters, gradients, rho / _flat(gradients).norm())
        return finish(parameters, above, gradients, gradients_of(above), lr)

    return wrong


def _bowl(*curvatures):
    """Gradients of L = ½ Σ c θ², one factor c, or tensor of them, per tensor of parameters."""
    return lambda parameters: [
        torch.as_tensor(c) * p for c, p in zip(curvatures, parameters, strict=True)
    ]


def _log_cosh(parameters: list[Tensor]) -> list[Tensor]:
    """Gradients of L = Σ log cosh θ, which is no quadratic."""
    return [torch.tanh(p) for p in parameters]


def _layer(parameters: list[Tensor]) -> list[Tensor]:
    """Gradients of L = Σ log cosh(x W + b) at x = (1, -2): each tensor's depends on the other."""
    matrix, vector = parameters
    x = torch.tensor([1.0, -2.0], dtype=matrix.dtype)
    slope = torch.tanh(x @ matrix + vector)
    return [torch.outer(x, slope), slope]


def _asks_twice(answer) -> Finding | None:
    counted = Counted(_layer)
    answer(counted, _weights(0), 0.3, 0.4)
    if counted.calls <= 2:
        return None
    return Finding(
        f"after {counted.calls} calls of `gradients_of`",
        "Two gradients are enough, one here and one uphill: each costs a pass over the batch.",
    )


def _tensor_by_tensor(gradients_of, parameters, lr, rho):
    gradients = gradients_of(parameters)
    length = _flat(gradients).norm()
    updated = []
    for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
        above = [*parameters[:i], p + rho * g / length, *parameters[i + 1 :]]
        updated.append(p - lr * gradients_of(above)[i])
    return updated


def _sam_of_one_vector(gradients_of, parameters, lr, rho):
    """In float64 and on one long vector, where there is no tensor to mistake for the whole."""
    shapes = [p.shape for p in parameters]

    def gradient(theta: Tensor) -> Tensor:
        pieces = theta.split([shape.numel() for shape in shapes])
        return _flat(gradients_of([p.view(s) for p, s in zip(pieces, shapes, strict=True)]))

    theta = _flat(parameters).double()
    unit = F.normalize(gradient(theta), dim=0)
    theta = theta - lr * gradient(theta + rho * unit)
    pieces = theta.split([shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _weights(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, generator=generator), torch.randn(3, generator=generator)]


_ROUND = (_bowl(1.0), [torch.tensor([3.0, 4.0])], 0.1, 0.5)
_VALLEY = (_bowl([10.0, 1.0]), [torch.tensor([0.3, 4.0])], 0.1, 1.0)
_TWO_TENSORS = (_bowl(2.0, 1.0), [torch.tensor([1.5]), torch.tensor([4.0])], 0.1, 0.5)

sam_step = Exercise(
    lesson="06",
    name="sam_step",
    title="SAM's update",
    difficulty=3,
    importance=4,
    minutes=15,
    reference=my_sam_step,
    cases=(
        value_case(
            "a round bowl",
            "L = ½‖θ‖², one tensor θ = (3, 4), lr = 0.1, ρ = 0.5",
            _ROUND,
            [torch.tensor([2.67, 3.56])],
            "θ moves down the gradient found a distance ρ uphill.",
        ),
        value_case(
            "a valley",
            "L = ½(10 x² + y²), one tensor θ = (0.3, 4), lr = 0.1, ρ = 1",
            _VALLEY,
            [torch.tensor([-0.6, 3.52])],
            "Uphill, the steep direction has gained more gradient than the flat one.",
        ),
        value_case(
            "two tensors",
            "L = ½(2 a² + b²) with a = 1.5 and b = 4 in tensors of their own, lr = 0.1, ρ = 0.5",
            _TWO_TENSORS,
            (torch.tensor([1.14]), torch.tensor([3.56])),
            "The ascent has length ρ in the space of all parameters together.",
            names=("a", "b"),
        ),
        value_case(
            "a matrix and a vector",
            "L = Σ log cosh θ, a random 2 × 3 matrix and a random vector of 3, lr = 0.3, ρ = 0.4",
            (_log_cosh, _weights(0), 0.3, 0.4),
            _sam_of_one_vector,
            "The same holds for parameters of any shape and any loss.",
            names=("matrix", "vector"),
        ),
        value_case(
            "a layer",
            "L = Σ log cosh(x W + b) at x = (1, −2), a random 2 × 3 matrix W and a random vector "
            "b, lr = 0.3, ρ = 0.4",
            (_layer, _weights(0), 0.3, 0.4),
            _sam_of_one_vector,
            "All tensors climb together: the gradient of one depends on where the others are.",
            names=("W", "b"),
        ),
        Case(
            "the number of gradients",
            "the layer before; calls of `gradients_of` are counted",
            _asks_twice,
        ),
    ),
    wrong=(
        WrongSolution(
            "forgot to return to the start",
            _finishing(lambda start, above, g, there, lr: _moved(above, there, -lr)),
            "You step down from the point you climbed to. The climb is only a look around: its "
            "gradient is applied to the parameters you started from.",
        ),
        WrongSolution(
            "gradient at the start",
            _finishing(lambda start, above, g, there, lr: _moved(start, g, -lr)),
            "You apply the gradient at the start, and that is plain gradient descent: the climb "
            "has no effect. Ask for the gradients a second time, where the climb ended.",
        ),
        WrongSolution(
            "normalised per tensor",
            _ascending(lambda gradients, rho: [rho * g / g.norm() for g in gradients]),
            "You normalise each tensor by its own length, so that every tensor climbs by ρ. One "
            "length belongs to all of them: that of the whole gradient as one long vector.",
        ),
        WrongSolution(
            "climbed tensor by tensor",
            _tensor_by_tensor,
            "Each of your tensors climbs alone, while the others stay where they were. The "
            "gradient uphill is taken once, at the point to which all have climbed.",
        ),
        WrongSolution(
            "not normalised",
            _ascending(lambda gradients, rho: [rho * g for g in gradients]),
            "Your climb is ρ times the gradient. Its length must be ρ, however long the gradient "
            "is.",
        ),
        WrongSolution(
            "squared length",
            _ascending(
                lambda gradients, rho: [rho * g / _flat(gradients).norm() ** 2 for g in gradients]
            ),
            "You divide by the squared length of the gradient. Then the climb is the shorter, the "
            "steeper the slope; the root is missing.",
        ),
        WrongSolution(
            "lengths added up",
            _ascending(
                lambda gradients, rho: [
                    rho * g / sum(h.norm() for h in gradients) for g in gradients
                ]
            ),
            "You add up the lengths of the tensors. Squares add up, lengths do not: "
            "3 and 4 make 5.",
        ),
        WrongSolution(
            "sign instead of direction",
            _ascending(lambda gradients, rho: [rho * g.sign() for g in gradients]),
            "You climb by the sign of the gradient. That is the step of an attack on an image, for "
            "a ball with corners; this ball is round.",
        ),
        WrongSolution(
            "downhill first",
            _ascending(
                lambda gradients, rho: [-rho * g / _flat(gradients).norm() for g in gradients]
            ),
            "Your first move goes downhill. SAM looks for the worst loss nearby, so it climbs.",
        ),
        WrongSolution(
            "uphill in the end",
            _finishing(lambda start, above, g, there, lr: _moved(start, there, lr)),
            "Your last move goes uphill as well. Only the look around climbs; the update descends.",
        ),
        WrongSolution(
            "both gradients added",
            _finishing(
                lambda start, above, g, there, lr: _moved(_moved(start, there, -lr), g, -lr)
            ),
            "You apply both gradients. The first has done its work once it has shown where uphill "
            "is.",
        ),
        WrongSolution(
            "normalised update",
            _finishing(
                lambda start, above, g, there, lr: _moved(start, there, -lr / _flat(there).norm())
            ),
            "You normalise the second gradient too. Only the climb has a fixed length; the update "
            "shrinks as the gradient does.",
        ),
        WrongSolution(
            "the point uphill",
            _finishing(lambda start, above, g, there, lr: above),
            "You return the point you climbed to. Asked for are the parameters after the update.",
        ),
        WrongSolution(
            "the second gradient",
            _finishing(lambda start, above, g, there, lr: there),
            "You return the gradient found uphill. The update is still to come: where does it "
            "start, and how far does it go?",
        ),
    ),
    hints=(
        "Four moves: gradients here; climb a distance ρ along them; gradients there; and the "
        "update. To which parameters is it applied?",
        "The length is that of all gradients laid end to end: flatten each, concatenate, take the "
        "norm. Every tensor is divided by this one number.",
        "Build the list of shifted parameters, one for each pair of a parameter and its gradient, "
        "and call `gradients_of` on that list. Then lr times what it returns is taken from the "
        "original parameters.",
    ),
    probes=(
        _ROUND,
        _VALLEY,
        _TWO_TENSORS,
        (_log_cosh, _weights(1), 0.2, 0.7),
        (_layer, _weights(2), 0.2, 0.7),
    ),
)


# --- 2. An orthogonal gradient -------------------------------------------------------------------


def my_orthogonalised(gradient):
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    return u @ vt


def _of_svd(combine):
    """Something made of U, the singular values and Vᵀ."""
    return lambda gradient: combine(*torch.linalg.svd(gradient, full_matrices=False))


def _polar(gradient: Tensor) -> Tensor:
    """G (GᵀG)^(-1/2), or its twin for a wide G, in float64 and without an SVD."""
    tall = gradient.double() if len(gradient) >= gradient.shape[1] else gradient.double().T
    values, vectors = torch.linalg.eigh(tall.T @ tall)
    orthogonal = tall @ (vectors / values.sqrt()) @ vectors.T
    return orthogonal if tall.shape == gradient.shape else orthogonal.T


def _newton_schulz(gradient: Tensor, coefficients: tuple, iterations: int, scaled=True) -> Tensor:
    """X ← a X + b (XXᵀ) X + c (XXᵀ)² X."""
    a, b, c = coefficients
    x = gradient / gradient.norm() if scaled else gradient
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x


_CUBIC, _MUON = (1.5, -0.5, 0.0), (3.4445, -4.7750, 2.0315)


def _matrix(rows: int, columns: int, seed: int, scale: float = 1.0) -> Tensor:
    """Singular values from 3 down to 0.3 times the scale: far from 1, and full rank."""
    generator = torch.Generator().manual_seed(seed)
    u, _, vt = torch.linalg.svd(
        torch.randn(rows, columns, generator=generator, dtype=torch.float64), full_matrices=False
    )
    values = torch.logspace(0.5, -0.5, min(rows, columns), dtype=torch.float64)
    return (scale * (u * values) @ vt).float()


def _all_directions_count_alike(answer) -> Finding | None:
    returned = answer(_matrix(5, 8, seed=0))
    found = array(returned)
    if found.shape != (5, 8):
        return Finding(show(returned), "The result has the shape of the gradient, (5, 8).")
    values = torch.linalg.svdvals(found.nan_to_num(nan=1e9, posinf=1e9, neginf=-1e9))
    if (values - 1).abs().max() < 1e-2:
        return None
    return Finding(
        f"a matrix with singular values {show(values)}",
        "All five singular values are 1 (to within 0.01).",
    )


def _size_does_not_matter(answer) -> Finding | None:
    small, large = (array(answer(_matrix(4, 4, 1, scale))) for scale in (1e-3, 1e3))
    if small.shape == large.shape and torch.allclose(small, large, rtol=1e-2, atol=1e-2):
        return None
    return Finding(
        f"{show(small)}; and {show(large)}",
        "A gradient a million times as large gives the same result (to within 0.01).",
    )


_TURN = (torch.tensor([[0.0, -2.0], [0.1, 0.0]]),)
_WIDE = (torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 4.0]]),)

orthogonalised = Exercise(
    lesson="06",
    name="orthogonalised",
    title="An orthogonal gradient",
    difficulty=3,
    importance=4,
    minutes=12,
    reference=my_orthogonalised,
    cases=(
        value_case(
            "strong and weak",
            "the gradient with rows (0, −2) and (0.1, 0)",
            _TURN,
            torch.tensor([[0.0, -1.0], [1.0, 0.0]]),
            "Both directions keep where they come from and go to; both get strength 1.",
            tolerance=1e-3,
        ),
        value_case(
            "a wide matrix",
            "the gradient with rows (3, 0, 0) and (0, 0, 4)",
            _WIDE,
            torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
            "The same holds for a matrix that is not square, and the shape stays.",
            tolerance=1e-3,
        ),
        Case(
            "singular values",
            "a 5 × 8 gradient with singular values from 3.2 down to 0.32",
            _all_directions_count_alike,
        ),
        Case("any size", "a 4 × 4 gradient times 0.001, and times 1000", _size_does_not_matter),
        value_case(
            "a tall matrix",
            "a random 7 × 4 gradient",
            (_matrix(7, 4, seed=2),),
            _polar,
            "Singular vectors are those of the gradient: G = U S Vᵀ becomes U Vᵀ.",
            tolerance=1e-2,
        ),
    ),
    wrong=(
        WrongSolution(
            "singular values kept",
            _of_svd(lambda u, s, vt: (u * s) @ vt),
            "You return the gradient as it was: U S Vᵀ with the singular values in place. They "
            "are what has to go.",
        ),
        WrongSolution(
            "V not transposed",
            _of_svd(lambda u, s, vt: u @ vt.T),
            "You transpose what is transposed already: `torch.linalg.svd` returns U, S and Vᵀ, "
            "so its third result goes in as it is.",
        ),
        WrongSolution(
            "transposed",
            _of_svd(lambda u, s, vt: vt.T @ u.T),
            "Your result is the transpose: V Uᵀ leads from the outputs back to the inputs.",
        ),
        WrongSolution(
            "U alone",
            _of_svd(lambda u, s, vt: u),
            "You return U, which says where the directions end and not where they start.",
        ),
        WrongSolution(
            "V alone",
            _of_svd(lambda u, s, vt: vt),
            "You return Vᵀ, which says where the directions start and not where they end.",
        ),
        WrongSolution(
            "divided by its length",
            lambda gradient: gradient / gradient.norm(),
            "You divide the whole matrix by its length. That is one factor for all directions; "
            "the strong ones are still as many times stronger.",
        ),
        WrongSolution(
            "divided by the largest singular value",
            lambda gradient: gradient / torch.linalg.matrix_norm(gradient, 2),
            "You divide by the largest singular value. Now the strongest direction has strength "
            "1, and the others are as far behind it as before.",
        ),
        WrongSolution(
            "sign of each entry",
            torch.sign,
            "You take the sign of every entry, as sign descent does (and nearly Adam). Strength "
            "is levelled entry by entry; here it is levelled direction by direction.",
        ),
        WrongSolution(
            "rows of length 1",
            lambda gradient: F.normalize(gradient, dim=1),
            "You make every row a unit vector. The rows of an orthogonal matrix are also at right "
            "angles, and yours are not.",
        ),
        WrongSolution(
            "Q of a QR decomposition",
            lambda gradient: torch.linalg.qr(gradient)[0],
            "Your matrix is orthogonal, but another one: the Q of QR (Gram–Schmidt) favours the "
            "first columns. Of all orthogonal matrices the *nearest* to the gradient is asked for.",
        ),
        WrongSolution(
            "singular values inverted",
            _of_svd(lambda u, s, vt: (u / s) @ vt),
            "You divide by the singular values twice: U S Vᵀ becomes U S⁻¹ Vᵀ, so that the "
            "weakest direction is now the strongest.",
        ),
        WrongSolution(
            "too few iterations",
            lambda gradient: _newton_schulz(gradient, _CUBIC, 5),
            "Newton–Schulz has not converged: five cubic steps multiply a weak direction by at "
            "most 1.5 each. Give it more (or take the SVD).",
        ),
        WrongSolution(
            "Muon's five steps",
            lambda gradient: _newton_schulz(gradient, _MUON, 5),
            "These are Muon's own coefficients, chosen for speed: they leave singular values "
            "anywhere between 0.7 and 1.2. Good enough to train with, but here they are to be 1: "
            "X ← 1.5 X − 0.5 X XᵀX converges, and so does the SVD.",
        ),
        WrongSolution(
            "never scaled down",
            lambda gradient: _newton_schulz(gradient, _CUBIC, 30, scaled=False),
            "Newton–Schulz needs all singular values below √3 at the start: larger ones change "
            "sign or blow up. Divide by the length of the matrix first.",
        ),
    ),
    hints=(
        "Write the gradient as U S Vᵀ: each singular value in S is the strength of one direction. "
        "All are to be 1.",
        "`torch.linalg.svd` gives the three factors (`full_matrices=False` for matrices that are "
        "not square). Leave out the middle one.",
        "Without an SVD: divide by the Frobenius norm, then repeat X ← 1.5 X − 0.5 X XᵀX some "
        "thirty times. Each singular value s becomes 1.5 s − 0.5 s³, which draws it to 1.",
    ),
    probes=(_TURN, _WIDE, (_matrix(4, 4, seed=3),), (_matrix(6, 3, seed=4),)),
    tolerance=1e-3,
)


# --- 3. The gradient in the bulk -----------------------------------------------------------------


def my_bulk_gradient(gradient, eigenvectors):
    units = eigenvectors / eigenvectors.norm(dim=1, keepdim=True)
    return gradient - (units @ gradient) @ units


def _of_units(combine):
    """Something made of the gradient and the eigenvectors at unit length."""
    return lambda gradient, eigenvectors: combine(gradient, F.normalize(eigenvectors, dim=1))


def _without_largest_entries(gradient: Tensor, eigenvectors: Tensor) -> Tensor:
    largest = gradient.abs().topk(len(eigenvectors)).indices
    return gradient.index_fill(0, largest, 0.0)


def _length_restored(gradient: Tensor, units: Tensor) -> Tensor:
    rest = gradient - (units @ gradient) @ units
    return rest * gradient.norm() / rest.norm()


def _directions(count: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """A gradient, and vectors at right angles whose lengths differ: as eigenvectors come."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d, count, generator=generator))[0].T
    gradient = torch.randn(d, generator=generator)
    return gradient, basis * torch.linspace(0.5, 3, count)[:, None]


def _nothing_is_left(answer) -> Finding | None:
    gradient, eigenvectors = _directions(5, 30, seed=0)
    returned = answer(gradient, eigenvectors)
    found = array(returned)
    if found.shape != gradient.shape:
        return Finding(show(returned), "The result has one entry per parameter, 30.")
    units = F.normalize(eigenvectors.double(), dim=1)
    left = units @ found
    if left.abs().max() > 1e-4:
        return Finding(
            f"a gradient with components {show(left)} along them",
            "Nothing is left along any of the five (to within 0.0001).",
        )
    lost = found - gradient.double() + (units @ gradient.double()) @ units
    if lost.norm() > 1e-3:
        return Finding(
            f"a gradient that differs by {lost.norm():.3g} elsewhere",
            "At right angles to all five the gradient is as it was.",
        )
    return None


_AXIS = (torch.tensor([3.0, 4.0, 12.0]), torch.tensor([[0.0, 0.0, 1.0]]))
_TILTED = (torch.tensor([10.0, 0.0]), torch.tensor([[1.0, 2.0]]))
_PAIR = (torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([[1.0, 1.0, 0.0, 0.0], [0, 0, 3, 0]]))

bulk_gradient = Exercise(
    lesson="06",
    name="bulk_gradient",
    title="The gradient in the bulk",
    difficulty=2,
    importance=4,
    minutes=8,
    reference=my_bulk_gradient,
    cases=(
        value_case(
            "along an axis",
            "gradient (3, 4, 12), one eigenvector (0, 0, 1)",
            _AXIS,
            torch.tensor([3.0, 4.0, 0.0]),
            "The component along the eigenvector is gone, the others stay.",
        ),
        value_case(
            "a tilted direction",
            "gradient (10, 0), one eigenvector (1, 2)",
            _TILTED,
            torch.tensor([8.0, -4.0]),
            "The result is at right angles to the eigenvector, whatever length that has.",
        ),
        value_case(
            "two directions",
            "gradient (1, 2, 3, 4), eigenvectors (1, 1, 0, 0) and (0, 0, 3, 0)",
            _PAIR,
            torch.tensor([-0.5, 0.5, 0.0, 4.0]),
            "Eigenvectors are at right angles, so each component is removed on its own.",
        ),
        Case(
            "five of thirty",
            "a random gradient in 30 dimensions and five eigenvectors of lengths 0.5 to 3",
            _nothing_is_left,
        ),
    ),
    wrong=(
        WrongSolution(
            "eigenvectors not normalised",
            lambda gradient, v: gradient - (v @ gradient) @ v,
            "You take the eigenvectors for unit vectors. They have any length here: the product "
            "with v twice needs a division by v · v.",
        ),
        WrongSolution(
            "divided by the length once",
            lambda gradient, v: gradient - (v @ gradient / v.norm(dim=1)) @ v,
            "You divide by the length once. The eigenvector comes in twice, in the component and "
            "in the direction, and both times it brings its length along.",
        ),
        WrongSolution(
            "subtracted instead of projected",
            lambda gradient, v: gradient - v.sum(dim=0),
            "You subtract the eigenvectors themselves. How much of each is in the gradient?",
        ),
        WrongSolution(
            "unit vectors subtracted",
            _of_units(lambda gradient, units: gradient - units.sum(dim=0)),
            "You subtract unit vectors. Each has to be as long as the gradient's component along "
            "it.",
        ),
        WrongSolution(
            "components subtracted as numbers",
            _of_units(lambda gradient, units: gradient - (units @ gradient).sum()),
            "You subtract the components, which are numbers, from every entry. A component "
            "belongs to its direction: multiply it by the eigenvector first.",
        ),
        WrongSolution(
            "the part along the eigenvectors",
            _of_units(lambda gradient, units: (units @ gradient) @ units),
            "You return the steep part. That is what BulkSGD throws away.",
        ),
        WrongSolution(
            "added instead of subtracted",
            _of_units(lambda gradient, units: gradient + (units @ gradient) @ units),
            "Your sign is reversed: the steep components are doubled. (That is nearer to SAM.)",
        ),
        WrongSolution(
            "reflected",
            _of_units(lambda gradient, units: gradient - 2 * (units @ gradient) @ units),
            "You subtract the steep part twice, so that it points the other way: a reflection.",
        ),
        WrongSolution(
            "first eigenvector only",
            _of_units(lambda gradient, units: gradient - (units[:1] @ gradient) @ units[:1]),
            "You remove the first eigenvector and leave the others in.",
        ),
        WrongSolution(
            "one direction made of all",
            lambda gradient, v: my_bulk_gradient(gradient, v.sum(dim=0, keepdim=True)),
            "You add the eigenvectors up and remove that one direction. Each of them is a "
            "direction of its own.",
        ),
        WrongSolution(
            "largest entries",
            _without_largest_entries,
            "You set the largest entries of the gradient to 0. Steep is a direction of the loss, "
            "seldom an axis: one eigenvector mixes all parameters.",
        ),
        WrongSolution(
            "length restored",
            _of_units(_length_restored),
            "You stretch what is left to the gradient's length. BulkSGD leaves the other "
            "components as they are, so its step is shorter.",
        ),
    ),
    hints=(
        "The component along a unit vector u is the number u · g; the part of g along u is that "
        "number times u.",
        "Make each row a unit vector first (`norm(dim=1, keepdim=True)`). With the unit vectors "
        "as rows of a matrix, one product gives all components.",
        "Components (k,) times the matrix of unit vectors (k, d) give the steep part (d,). Take it "
        "from the gradient.",
    ),
    probes=(_AXIS, _TILTED, _PAIR, _directions(3, 8, seed=1)),
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_factor = Prediction(
    "06",
    "predicted_factor",
    "SAM's component over the gradient's",
    ("1", "1 + ρλ/‖g‖", "1 − ρλ/‖g‖", "1 + ρλ"),
)
predicted_gradient_share = Prediction(
    "06",
    "predicted_gradient_share",
    "Share of the gradient along the ten steepest directions",
    unit="%",
    within=15,
)
predicted_muon_share = Prediction(
    "06",
    "predicted_muon_share",
    "Share of Muon's update along them",
    unit="%",
    within=15,
)
_FAMILIES = ("GD", "SGD", "SAM", "AdamW", "Muon", "BulkSGD")
predicted_lowest_peak = Prediction(
    "06", "predicted_lowest_peak", "Its training ECE peaks lowest, at its best rate", _FAMILIES
)
predicted_first_fall = Prediction(
    "06",
    "predicted_first_fall",
    "Its training ECE is below 0.005 first, at its best rate",
    _FAMILIES,
)
predicted_natural_sam = Prediction(
    "06",
    "predicted_natural_sam",
    "SAM against SGD on CIFAR-10, six measures of training calibration",
    ("lower on most", "neither", "higher on most"),
)
predicted_late_rises = Prediction(
    "06",
    "predicted_late_rises",
    "Late training without the three steepest directions",
    ("the loss rises less often", "as often", "it rises more often"),
)

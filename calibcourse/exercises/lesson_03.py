"""Exercises of lesson 03: the logit Hessian, Gauss–Newton, power iteration, stable rates."""

import decimal
import math
from decimal import Decimal

import torch
import torch.nn.functional as F
from torch import Tensor

from .framework import (
    Case,
    Counted,
    Exercise,
    Finding,
    WrongSolution,
    array,
    number,
    show,
    value_case,
)
from .predictions import Prediction

# --- 1. A product with the logit Hessian ---------------------------------------------------------


def my_logit_hessian_product(logits, v):
    p = torch.softmax(logits, dim=1)
    top = logits.argmax(dim=1, keepdim=True)
    shifted = v - v.gather(1, top)  # H times a constant vector is 0
    return p * (shifted - (p * shifted).sum(dim=1, keepdim=True))


def _plain(p: Tensor, v: Tensor) -> Tensor:
    """The textbook formula: exact in real numbers, not in 32-bit ones."""
    return p * v - p * (p * v).sum(dim=1, keepdim=True)


def _factored(p: Tensor, v: Tensor) -> Tensor:
    return p * (v - (p * v).sum(dim=1, keepdim=True))


def _of_probabilities(product):
    """A product made from p = softmax(logits) and v."""
    return lambda logits, v: product(logits.softmax(dim=1), v)


def _dense_hessian_product(logits: Tensor, v: Tensor) -> Tensor:
    """Differentiate log-sum-exp twice, one sample at a time, in float64."""
    hessian = torch.func.hessian(lambda z: torch.logsumexp(z, dim=0))
    return torch.stack([hessian(z) @ u for z, u in zip(logits.double(), v.double(), strict=True)])


def _batch(n: int, n_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, n_classes, generator=generator)
    return logits, torch.randn(n, n_classes, generator=generator)


def _shift_of_v_changes_nothing(answer) -> Finding | None:
    logits, v = _batch(4, 5, seed=1)
    plain, shifted = array(answer(logits, v)), array(answer(logits, v + 3))
    if plain.shape == shifted.shape and torch.allclose(plain, shifted, rtol=1e-4, atol=1e-4):
        return None
    return Finding(
        f"{show(plain)} before; {show(shifted)} after",
        "H times a vector of equal entries is 0, so adding a constant to v changes nothing "
        "(compared to within 0.0001).",
    )


# The others trail the top class, which is not always the first, by these margins.
_MARGINS, _TOPS = (17, 24, 40), (2, 0, 4)
_OTHERS = [0.0, -1.0, 0.0, -2.0, -1.0]
_SURE = (
    torch.tensor(
        [[*_OTHERS[:t], float(m), *_OTHERS[t:]] for m, t in zip(_MARGINS, _TOPS, strict=True)]
    ),
    torch.tensor([[1.3, -0.4, 0.8, 0.1, -1.1, 0.6]]).repeat(len(_MARGINS), 1),
)


def _product_in_60_digits(logits: Tensor, v: Tensor) -> Tensor:
    """The textbook formula with so many digits that those which cancel are not missed."""
    rows = []
    with decimal.localcontext(decimal.Context(prec=60)):
        for z, u in zip(logits.tolist(), v.tolist(), strict=True):
            weights, u = [Decimal(x).exp() for x in z], [Decimal(x) for x in u]
            p = [w / sum(weights) for w in weights]
            mean = sum(q * x for q, x in zip(p, u, strict=True))
            rows.append([float(q * (x - mean)) for q, x in zip(p, u, strict=True)])
    return torch.tensor(rows, dtype=torch.float64)


def _keeps_its_digits(answer) -> Finding | None:
    exact = _product_in_60_digits(*_SURE)
    for bits, dtype in ((32, torch.float32), (64, torch.float64)):
        returned = answer(*(x.to(dtype) for x in _SURE))
        found = array(returned)
        if found.shape != exact.shape:
            return Finding(show(returned), f"One row per sample comes back: {tuple(exact.shape)}.")
        errors = (found - exact).norm(dim=1) / exact.norm(dim=1)
        if not (errors <= 1e-3).all():  # NaN fails
            written = ", ".join(
                f"{100 * e:.0f} % at margin {m}"
                for m, e in zip(_MARGINS, errors.tolist(), strict=True)
            )
            return Finding(
                f"in {bits}-bit floats, relative errors of {written}",
                "The product is small, but it agrees with the exact one to three digits.",
            )
    return None


_ONE_SAMPLE = (torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[1.0, 2.0, 3.0]]))
_TWO_SAMPLES = (
    torch.tensor([[2.0, 1.0, 1.0], [1.0, 4.0, 5.0]]).log(),
    torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0]]),
)
# p is exactly one-hot in float32, and at margin 40 in float64 too: however the plain formula is
# written, the entry of the top class is 0.
_SATURATED = (torch.tensor([[20.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
_VERY_SATURATED = (torch.tensor([[40.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
_SECOND_ON_TOP = (torch.tensor([[0.0, 20.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
_LARGEST_ELSEWHERE = (torch.tensor([[0.0, 20.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]]))

logit_hessian = Exercise(
    lesson="03",
    name="logit_hessian",
    title="A product with the logit Hessian",
    difficulty=3,
    importance=5,
    minutes=15,
    reference=my_logit_hessian_product,
    cases=(
        value_case(
            "one sample",
            "logits log 2, log 1, log 1 (probabilities 1/2, 1/4, 1/4); v = (1, 2, 3)",
            _ONE_SAMPLE,
            torch.tensor([[-0.375, 0.0625, 0.3125]]),
            "The result is H v with H = diag(p) − p pᵀ, and its entries add up to 0.",
        ),
        value_case(
            "two samples",
            "the sample before, and one with probabilities 0.1, 0.4, 0.5 and v = (10, 0, 0)",
            _TWO_SAMPLES,
            torch.tensor([[-0.375, 0.0625, 0.3125], [0.9, -0.4, -0.5]]),
            "Each row of v meets the Hessian of its own sample.",
        ),
        Case(
            "a constant added to v",
            "4 samples in 5 classes; then the same with 3 added to every entry of v",
            _shift_of_v_changes_nothing,
        ),
        value_case(
            "20 samples",
            "20 samples with random logits in 10 classes, random v",
            _batch(20, 10, seed=2),
            _dense_hessian_product,
            "The same definition holds for any number of samples and classes.",
        ),
        Case(
            "a sure network",
            "3 samples in 6 classes: logits 0, −1, 0, −2, −1, and m = 17, 24, 40 as the third, the "
            "first, the fifth of them; v = (1.3, −0.4, 0.8, 0.1, −1.1, 0.6); in float32, then in "
            "float64",
            _keeps_its_digits,
        ),
    ),
    wrong=(
        WrongSolution(
            "cancellation",
            _of_probabilities(_plain),
            "Cancellation. The formula is right, but at the top class p ∘ v and p (pᵀv) are "
            "nearly equal: in 32 bits their difference is rounding error, and once p rounds to 1 "
            "it is exactly 0. Which change of v leaves H v as it is, and nothing to cancel?",
        ),
        WrongSolution(
            "cancellation in 64 bits",
            lambda logits, v: _plain(logits.double().softmax(dim=1), v.double()),
            "Cancellation, only later: 64 bits have 16 digits, and at a margin of 37 the rounding "
            "error is as large as the product. No number of bits will do for every margin; another "
            "order of computing does.",
        ),
        WrongSolution(
            "shifted by the first class",
            _of_probabilities(lambda p, v: _factored(p, v - v[:, :1])),
            "You make v 0 at the first class. That helps where the first class is the sure one; "
            "where another is, two nearly equal numbers are still subtracted. Which class has to "
            "drop out of the difference?",
        ),
        WrongSolution(
            "shifted by the largest entry of v",
            _of_probabilities(lambda p, v: _factored(p, v - v.amax(dim=1, keepdim=True))),
            "You subtract the largest entry of v, as one shifts exponents. Here it is the class "
            "with p near 1 whose entry has to become 0, whatever the size of that entry.",
        ),
        WrongSolution(
            "diag(p) only",
            _of_probabilities(lambda p, v: p * v),
            "You multiply by diag(p) alone. Probabilities add up to 1, so raising one logit "
            "lowers all other probabilities: that is the term − p pᵀ.",
        ),
        WrongSolution(
            "p pᵀ only",
            _of_probabilities(lambda p, v: p * (p * v).sum(dim=1, keepdim=True)),
            "You multiply by p pᵀ alone. That is what is subtracted; diag(p) is missing.",
        ),
        WrongSolution(
            "sign reversed",
            _of_probabilities(lambda p, v: -_plain(p, v)),
            "Your sign is reversed. Cross-entropy is convex in the logits: vᵀH v is never "
            "negative.",
        ),
        WrongSolution(
            "plus instead of minus",
            _of_probabilities(lambda p, v: 2 * p * v - _plain(p, v)),
            "You add p (pᵀv) to p ∘ v. Then H no longer sends the vector of ones to 0, although "
            "adding a constant to all logits changes no probability.",
        ),
        WrongSolution(
            "diagonal of H only",
            _of_probabilities(lambda p, v: p * (1 - p) * v),
            "You use the diagonal of H, p (1 − p), and drop the entries − p_j p_k beside it.",
        ),
        WrongSolution(
            "no softmax",
            _plain,
            "You take logits for probabilities: p is their softmax.",
        ),
        WrongSolution(
            "softmax over samples",
            lambda logits, v: _plain(logits.softmax(dim=0), v),
            "Your softmax runs over the samples (dim 0). The probabilities of one sample, one "
            "row, add up to 1.",
        ),
        WrongSolution(
            "pᵀv over the whole batch",
            _of_probabilities(lambda p, v: p * v - p * (p * v).sum()),
            "Your pᵀv adds up the whole batch, so that samples mix. It is one number per sample.",
        ),
        WrongSolution(
            "summed over samples",
            _of_probabilities(lambda p, v: _plain(p, v).sum(dim=0)),
            "You add the products of all samples up. Here each sample keeps its row.",
        ),
    ),
    hints=(
        "No matrix is needed. diag(p) times v is an elementwise product, and p pᵀ times v is p "
        "times the number pᵀv, one for each sample (`keepdim=True` keeps the shapes together).",
        "Right, but not for a sure network? Then two nearly equal numbers are subtracted. H times "
        "a vector of ones is 0: you may add any constant to a row of v first.",
        "Choose the constant such that v becomes 0 where p is nearly 1: `gather` the entry of v "
        "at the largest logit of each row, and subtract it from that row.",
    ),
    probes=(
        _ONE_SAMPLE,
        _TWO_SAMPLES,
        _batch(3, 4, seed=3),
        _SATURATED,
        _VERY_SATURATED,
        _SECOND_ON_TOP,
        _LARGEST_ELSEWHERE,
    ),
    tolerance=1e-3,
    canonical=lambda product: torch.asinh(product / 1e-20),  # so that tiny entries count too
)


# --- 2. A product with the Gauss–Newton matrix ---------------------------------------------------


def my_gauss_newton_product(logits_of, theta, v):
    logits, change = torch.func.jvp(logits_of, (theta,), (v,))
    p = logits.softmax(dim=1)
    bent = p * (change - (p * change).sum(dim=1, keepdim=True))  # H J v, image by image
    _, pull = torch.func.vjp(logits_of, theta)
    return pull(bent / len(logits))[0]


def _with_dense_jacobian(product):
    """A product made from the logits (N, K), their Jacobian (N, K, d) and v."""
    return lambda logits_of, theta, v: product(
        logits_of(theta), torch.func.jacrev(logits_of)(theta), v
    )


def _pulled_back(logit_curvature):
    """(1/N) Σ J_iᵀ u_i, with u made from the probabilities and from J v."""

    def product(logits: Tensor, jacobian: Tensor, v: Tensor) -> Tensor:
        bent = logit_curvature(logits.softmax(dim=1), jacobian @ v)
        return torch.einsum("nkd,nk->d", jacobian, bent) / len(logits)

    return _with_dense_jacobian(product)


def _scaled(factor):
    """The right product, times a factor that depends on N and K."""

    def wrong(logits_of, theta, v):
        return my_gauss_newton_product(logits_of, theta, v) * factor(*logits_of(theta).shape)

    return wrong


def _of_mean_probability(p: Tensor, change: Tensor) -> Tensor:
    return _plain(p.mean(dim=0, keepdim=True).expand_as(p), change)


def _second_derivative(loss_of):
    """The Hessian, times v, of a scalar loss of the logits."""

    def wrong(logits_of, theta, v):
        gradient = torch.func.grad(lambda t: loss_of(logits_of(t)))
        return torch.func.jvp(gradient, (theta,), (v,))[1]

    return wrong


def _loss_of_predicted(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, logits.detach().argmax(dim=1))


def _residual_gradients(logits: Tensor, jacobian: Tensor) -> Tensor:
    """Gradient of each sample's cross-entropy with the predicted class as its label: (N, d)."""
    residual = logits.softmax(dim=1) - F.one_hot(logits.argmax(dim=1), logits.shape[1])
    return torch.einsum("nkd,nk->nd", jacobian, residual)


def _fisher(logits: Tensor, jacobian: Tensor, v: Tensor) -> Tensor:
    gradients = _residual_gradients(logits, jacobian)
    return gradients.T @ (gradients @ v) / len(logits)


def _outer_product_of_mean(logits: Tensor, jacobian: Tensor, v: Tensor) -> Tensor:
    gradient = _residual_gradients(logits, jacobian).mean(dim=0)
    return gradient * (gradient @ v)


def _mean_first(logits: Tensor, jacobian: Tensor, v: Tensor) -> Tensor:
    jacobian = jacobian.mean(dim=0, keepdim=True)
    p = logits.softmax(dim=1).mean(dim=0, keepdim=True)
    return torch.einsum("nkd,nk->d", jacobian, _plain(p, jacobian @ v))


def _line(theta: float, v: float, *x: float):
    """Arguments of a network with logits (θ x, 0) and one parameter."""
    inputs = torch.tensor(x)
    return (
        lambda theta: torch.stack([theta * inputs, 0 * theta * inputs], dim=1),
        torch.tensor([theta]),
        torch.tensor([v]),
    )


def _parabola(theta: float, v: float):
    """Arguments of a network with one image, logits (θ², 0) and one parameter."""
    return (
        lambda theta: torch.stack([theta**2, 0 * theta], dim=1),
        torch.tensor([theta]),
        torch.tensor([v]),
    )


def _perceptron(n: int, n_classes: int, seed: int, hidden: int = 4, features: int = 3):
    """Arguments of a perceptron with one hidden layer of tanh, on n random images."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, features, generator=generator)
    first = features * hidden

    def logits_of(theta):
        inner = torch.tanh(inputs @ theta[:first].view(features, hidden))
        return inner @ theta[first:].view(hidden, n_classes)

    theta, v = torch.randn(2, first + hidden * n_classes, generator=generator)
    return logits_of, theta, v


_dense_gauss_newton_product = _pulled_back(
    lambda p, change: torch.einsum(
        "nkl,nl->nk", p.diag_embed() - p[:, :, None] * p[:, None], change
    )
)

gauss_newton = Exercise(
    lesson="03",
    name="gauss_newton",
    title="A Gauss–Newton product",
    difficulty=4,
    importance=5,
    minutes=20,
    reference=my_gauss_newton_product,
    cases=(
        value_case(
            "one parameter",
            "logits (θ x, 0) at θ = 0 for two images, x = 2 and x = 4; v = 3",
            _line(0.0, 3.0, 2.0, 4.0),
            [7.5],
            "G is the mean over images of Jᵀ H J; here J = (x, 0) and p = (1/2, 1/2).",
        ),
        value_case(
            "one image surer than the other",
            "logits (θ x, 0) at θ = log 3 for two images, x = 1 and x = 2; v = 2",
            _line(math.log(3), 2.0, 1.0, 2.0),
            [0.5475],
            "Each image has its own J and its own H; here p = (3/4, 1/4) and (9/10, 1/10).",
        ),
        value_case(
            "a curved network",
            "one image, logits (θ², 0) at θ = 1; v = 1",
            _parabola(1.0, 1.0),
            [4 * math.e / (1 + math.e) ** 2],
            "G holds first derivatives of the logits only, here J = (2θ, 0).",
        ),
        value_case(
            "a perceptron",
            "6 images in 5 classes, one hidden layer of 4 tanh units, 32 parameters, random v",
            _perceptron(6, 5, seed=0),
            _dense_gauss_newton_product,
            "The same definition holds for any network that is a function of its parameters.",
        ),
    ),
    wrong=(
        WrongSolution(
            "sum instead of mean",
            _scaled(lambda n, k: n),
            "You add the images up. The loss is their mean, and so is its curvature: otherwise "
            "the sharpness would grow with the data set.",
        ),
        WrongSolution(
            "mean over classes as well",
            _scaled(lambda n, k: 1 / k),
            "You divide by N times K, as `.mean()` of all entries does. The mean is over images "
            "only; the classes of an image are summed inside Jᵀ.",
        ),
        WrongSolution(
            "divided by the number of parameters",
            lambda logits_of, theta, v: my_gauss_newton_product(logits_of, theta, v) / len(v),
            "You divide by the number of parameters. The mean is over images; a product with a "
            "matrix has one sum per parameter, and no mean.",
        ),
        WrongSolution(
            "Jᵀ J, without H",
            _pulled_back(lambda p, change: change),
            "You pull J v straight back: Jᵀ J is Gauss–Newton for squared error, where H is the "
            "identity. With cross-entropy, H stands between Jᵀ and J.",
        ),
        WrongSolution(
            "diag(p) for H",
            _pulled_back(lambda p, change: p * change),
            "You bend J v by diag(p) only: the term − p pᵀ of the logit Hessian is missing.",
        ),
        WrongSolution(
            "H of the mean probability",
            _pulled_back(_of_mean_probability),
            "You build one H from probabilities averaged over the images. Sure images have "
            "almost no curvature and unsure ones have it all: each needs its own H.",
        ),
        WrongSolution(
            "averaged before the product",
            _with_dense_jacobian(_mean_first),
            "You average the images before you multiply, Jacobians too. G is the mean of the "
            "products Jᵀ H J, not a product of means.",
        ),
        WrongSolution(
            "Hessian of the loss",
            _second_derivative(_loss_of_predicted),
            "This is the Hessian of the cross-entropy with the predicted classes as labels. It "
            "has a second term, with second derivatives of the logits, that Gauss–Newton leaves "
            "out; G needs no labels at all.",
        ),
        WrongSolution(
            "Hessian of log-sum-exp",
            _second_derivative(lambda logits: torch.logsumexp(logits, dim=1).mean()),
            "You differentiate the mean of log-sum-exp twice, in the parameters. Its Hessian in "
            "the logits is H, but the network bends as well, and that adds second derivatives "
            "of the logits. Differentiate the logits once only.",
        ),
        WrongSolution(
            "outer products of gradients",
            _with_dense_jacobian(_fisher),
            "You average outer products of the images' gradients: the empirical Fisher matrix, "
            "with the residuals p − e_y where H belongs. It matches G only when labels are drawn "
            "from p.",
        ),
        WrongSolution(
            "outer product of the mean gradient",
            _with_dense_jacobian(_outer_product_of_mean),
            "You take the outer product of the gradient of the mean loss with itself, a matrix "
            "of rank one. At a minimum it would be 0, and the curvature is not.",
        ),
    ),
    hints=(
        "Three moves, from right to left: J v (shape (N, K)), then the H of each image (your last "
        "exercise), then Jᵀ, which also adds up the images. And the mean?",
        "`torch.func.jvp` along v gives the logits and J v in one pass (see the docstring); feed "
        "both to your product with the logit Hessian.",
        "`torch.func.vjp` gives the logits and Jᵀ as a function `pull`: `pull(u)` is a "
        "tuple with one entry, and u is what the logit Hessian gave, divided by N.",
    ),
    probes=(
        _line(math.log(3), 2.0, 1.0, 2.0),
        _parabola(1.0, 1.0),
        _perceptron(6, 5, seed=0),
        _perceptron(3, 4, seed=1),
    ),
)


# --- 3. Power iteration --------------------------------------------------------------------------


def my_power_iteration(matvec, v, n_iterations):
    v = v / v.norm()
    for _ in range(n_iterations):
        product = matvec(v)
        v = product / product.norm()
    return v @ matvec(v)


def _iterated(finish, size_of=torch.linalg.vector_norm, fewer=0):
    """Power iteration, except for the size each product is divided by, and what is returned."""

    def wrong(matvec, v, n_iterations):
        v = v / size_of(v)
        for _ in range(n_iterations - fewer):
            product = matvec(v)
            v = product / size_of(product)
        return finish(matvec, v)

    return wrong


def _of_whole_matrix(matvec, v, n_iterations):
    matrix = torch.stack([matvec(column) for column in torch.eye(len(v))])
    eigenvalues = torch.linalg.eigvalsh(matrix)
    return eigenvalues[eigenvalues.abs().argmax()]


def _not_normalised(finish):
    def wrong(matvec, v, n_iterations):
        for _ in range(n_iterations):
            v = matvec(v)
        return finish(v, matvec(v))

    return wrong


def _diagonal(*entries: float):
    scale = torch.tensor(entries)
    return lambda v: scale * v


def _symmetric(eigenvalues: Tensor, seed: int):
    """A matrix with these eigenvalues and random eigenvectors, as a product; and a start."""
    generator = torch.Generator().manual_seed(seed)
    d = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    matrix = ((basis * eigenvalues) @ basis.T).float()
    return lambda v: matrix @ v, torch.randn(d, generator=generator)


def _quotients(matrix: Tensor, v: Tensor, n_iterations: int) -> list[float]:
    """The Rayleigh quotient after 0, 1, …, n products, by the definition in float64."""
    found = []
    for power in range(n_iterations + 1):
        w = torch.linalg.matrix_power(matrix.double(), power) @ v.double()
        found.append((w @ matrix.double() @ w / (w @ w)).item())
    return found


_LEANING = torch.tensor([[4.0, 1.0], [1.0, 2.0]])
_EARLY = (lambda v: _LEANING @ v, torch.tensor([0.0, 1.0]), 2)


def _stops_when_told(answer) -> Finding | None:
    found = number(answer(*_EARLY))
    # Of the vector after the last product, or of the one that went into it: both are usual.
    if any(abs(found - right) <= 1e-3 for right in _quotients(_LEANING, *_EARLY[1:])[1:]):
        return None
    return Finding(
        show(found),
        "After two iterations v has not settled: the estimate is that of the vector two products "
        "(or one) from this start, not yet the eigenvalue (to within 0.001).",
    )


def _takes_a_product_for_each_iteration(answer) -> Finding | None:
    matvec, start, _ = _CROWD
    counted = Counted(matvec)
    answer(counted, start, 5)
    if 5 <= counted.calls <= 12:  # one at the end is usual, and asking twice is a matter of taste
        return None
    return Finding(
        f"after {counted.calls} products with A",
        "Each of the 5 iterations takes one product, and the estimate one more. On a network every "
        "product costs a pass over the data, and the whole matrix one for each parameter.",
    )


_ALONG_AN_AXIS = (_diagonal(5.0, 1.0, 3.0), torch.tensor([0.0, 0.0, 2.0]), 10)
_TWO = (_diagonal(3.0, 1.0), torch.tensor([3.0, 4.0]), 20)
# Neither axis is an eigenvector: the length of v is then not its largest entry, nor their sum.
_TILTED = (lambda v: 2 * v + v.flip(0), torch.tensor([1.0, 3.0]), 20)
_NEGATIVE = (_diagonal(2.0, -5.0, 1.0), torch.tensor([1.0, 2.0, 2.0]), 31)
_STEEP = (_diagonal(2000.0, 500.0, 100.0), torch.tensor([1.0, 1.0, 2.0]), 40)
_FLAT = (_diagonal(0.1, 0.01, 0.03), torch.tensor([1.0, 1.0, 2.0]), 60)
_CROWD = (
    *_symmetric(
        torch.linspace(0, 8, 40, dtype=torch.float64).index_fill(0, torch.tensor(39), 10), 4
    ),
    100,
)

power_iteration = Exercise(
    lesson="03",
    name="power_iteration",
    title="Power iteration",
    difficulty=3,
    importance=4,
    minutes=12,
    reference=my_power_iteration,
    cases=(
        value_case(
            "two directions",
            "A = diag(3, 1), start (3, 4), 20 iterations",
            _TWO,
            3.0,
            "The estimate is the largest eigenvalue of A.",
            tolerance=1e-3,
        ),
        value_case(
            "a steep matrix",
            "A = diag(2000, 500, 100), start (1, 1, 2), 40 iterations",
            _STEEP,
            2000.0,
            "However large the eigenvalue and however many the iterations, numbers stay finite.",
            tolerance=1e-3,
        ),
        value_case(
            "a flat matrix",
            "A = diag(0.1, 0.01, 0.03), start (1, 1, 2), 60 iterations",
            _FLAT,
            0.1,
            "However small the eigenvalue and however many the iterations, it is not lost.",
            tolerance=1e-4,
        ),
        value_case(
            "a negative eigenvalue",
            "A = diag(2, −5, 1), start (1, 2, 2), 31 iterations",
            _NEGATIVE,
            -5.0,
            "The estimate is the eigenvalue of largest size, the one whose direction takes over, "
            "with its sign.",
            tolerance=1e-3,
        ),
        value_case(
            "40 directions",
            "a symmetric matrix with eigenvalues between 0 and 8 and one of 10, no axis of which "
            "is an eigenvector; random start, 100 iterations",
            _CROWD,
            10.0,
            "The same holds for any symmetric matrix with one eigenvalue above the others.",
            tolerance=1e-3,
        ),
        Case(
            "two iterations",
            "A with rows (4, 1) and (1, 2), start (0, 1), 2 iterations",
            _stops_when_told,
        ),
        value_case(
            "a start along an eigenvector",
            "A = diag(5, 1, 3), start (0, 0, 2), 10 iterations",
            _ALONG_AN_AXIS,
            3.0,
            "The start decides: along an eigenvector, every product stays along it.",
            tolerance=1e-3,
        ),
        Case(
            "the number of products",
            "the matrix with 40 directions, 5 iterations; products with it are counted",
            _takes_a_product_for_each_iteration,
        ),
    ),
    wrong=(
        WrongSolution(
            "never normalised",
            _not_normalised(torch.dot),
            "You never divide by the length of v. It grows by the eigenvalue with every product, "
            "and v · A v is an eigenvalue only for v of length 1.",
        ),
        WrongSolution(
            "normalised at the end only",
            _not_normalised(lambda v, product: v @ product / (v @ v)),
            "You divide by v · v once, at the end. By then the entries have grown (or shrunk) by "
            "the eigenvalue to the power of the iterations, and 32-bit floats end at 3e38 (or "
            "1e-45). Normalise every time.",
        ),
        WrongSolution(
            "length of the last product, v not normalised",
            _not_normalised(lambda v, product: product.norm()),
            "You return the length of a product that was never normalised: it is the eigenvalue "
            "to the power of the iterations.",
        ),
        WrongSolution(
            "length of A v",
            _iterated(lambda matvec, v: matvec(v).norm()),
            "You return the length of A v. A length has no sign: compare A v with the v that went "
            "in.",
        ),
        WrongSolution(
            "length of the last product",
            _iterated(lambda matvec, v: matvec(v).norm(), fewer=1),
            "You return the length of the last product: after the loop v is that product "
            "normalised, so v times it is its length, which has no sign. Compare a product with "
            "the v that went into it.",
        ),
        WrongSolution(
            "length of v",
            _iterated(lambda matvec, v: v.norm()),
            "You return the length of v. You have just made that 1: the eigenvalue is in what A "
            "does to v.",
        ),
        WrongSolution(
            "one iteration",
            lambda matvec, v, n_iterations: my_power_iteration(matvec, v, 1),
            "You iterate once. Does each product start from the vector that the last one gave, and "
            "is the `return` outside the loop?",
        ),
        WrongSolution(
            "no iteration",
            lambda matvec, v, n_iterations: my_power_iteration(matvec, v, 0),
            "Your estimate is that of the start vector: v never changes in your loop.",
        ),
        WrongSolution(
            "number of iterations ignored",
            lambda matvec, v, n_iterations: my_power_iteration(matvec, v, 100),
            "You iterate as often as you like, not `n_iterations` times. The caller decides how "
            "many products the estimate may cost.",
        ),
        WrongSolution(
            "start ignored",
            lambda matvec, v, n_iterations: my_power_iteration(
                matvec, torch.ones_like(v), n_iterations
            ),
            "You start from a vector of your own. The caller's may be good: the eigenvector of the "
            "last checkpoint, with which few products are enough.",
        ),
        WrongSolution(
            "the whole matrix",
            _of_whole_matrix,
            "You build the whole matrix, column by column, and solve that. A network's curvature "
            "has as many columns as parameters: only products with vectors are affordable.",
        ),
        WrongSolution(
            "the eigenvector",
            _iterated(lambda matvec, v: v),
            "You return the vector. Asked for is its eigenvalue, by which A stretches it.",
        ),
        WrongSolution(
            "the last product",
            _iterated(lambda matvec, v: matvec(v)),
            "You return A v, a vector. One number is asked for: how long is A v along v?",
        ),
        WrongSolution(
            "largest entry for the length",
            _iterated(lambda matvec, v: v @ matvec(v), size_of=lambda v: v.abs().max()),
            "You divide by the largest entry. That keeps numbers finite, but v · A v needs v of "
            "length 1: divide by the Euclidean norm, or by v · v at the end.",
        ),
        WrongSolution(
            "sum for the length",
            _iterated(lambda matvec, v: v @ matvec(v), size_of=lambda v: v.abs().sum()),
            "You divide by the sum of absolute entries. v · A v is an eigenvalue only if the "
            "squares of v add up to 1.",
        ),
    ),
    hints=(
        "Multiply, divide by the length, repeat: `n_iterations` times, each time from the last "
        "vector.",
        "When v has settled, A v = λ v. With v of length 1, which product of v and A v is λ, "
        "sign included?",
        "It is the Rayleigh quotient vᵀA v / vᵀv. In a loop: call `matvec`, divide the result by "
        "its `.norm()`, and call it v. After the loop, the inner product of v with A v.",
    ),
    probes=(
        _TWO,
        _TILTED,
        _NEGATIVE,
        _STEEP,
        _FLAT,
        (*_NEGATIVE[:2], 30),
        _EARLY,
        _ALONG_AN_AXIS,
    ),
    tolerance=1e-3,
    canonical=lambda x: x.abs() if x.numel() > 1 else x,  # an eigenvector has no sign
)


# --- 4. The largest stable learning rate ---------------------------------------------------------


def my_stable_learning_rate(eigenvalues):
    return 2 / eigenvalues.max()


def _spread(n: int, largest: float, seed: int) -> Tensor:
    """Eigenvalues as of a network: most tiny, one far above the rest, in no order."""
    generator = torch.Generator().manual_seed(seed)
    eigenvalues = 10 ** (3 * torch.rand(n, generator=generator) - 3)
    eigenvalues[n // 3] = largest
    return eigenvalues


def _descent_is_stable_up_to_the_rate(answer) -> Finding | None:
    eigenvalues = _spread(200, largest=50.0, seed=0)
    rate = number(answer(eigenvalues))
    if not (math.isfinite(rate) and rate > 0):
        return Finding(show(rate), "A learning rate is a finite number above 0.")
    below, above = ((1 - s * rate * eigenvalues).abs().max().item() for s in (0.99, 1.01))
    if below >= 1:
        return Finding(
            show(rate),
            f"A step of gradient descent shrinks every component at 99 % of this rate. The worst "
            f"component is multiplied by {below:.4g} in size.",
        )
    if above <= 1:
        return Finding(
            show(rate),
            "At 101 % of this rate some component grows. But every one still shrinks: there are "
            "larger stable rates.",
        )
    return None


stable_rate = Exercise(
    lesson="03",
    name="stable_rate",
    title="The largest stable learning rate",
    difficulty=1,
    importance=4,
    minutes=6,
    reference=my_stable_learning_rate,
    cases=(
        value_case(
            "one direction",
            "one eigenvalue, 8",
            (torch.tensor([8.0]),),
            0.25,
            "Below the rate a step shrinks θ, also if it overshoots; above the rate θ grows.",
        ),
        value_case(
            "a long valley",
            "eigenvalues 0.5 and 4",
            (torch.tensor([0.5, 4.0]),),
            0.5,
            "Below the rate every component shrinks; above it one of them grows.",
        ),
        value_case(
            "in no order",
            "eigenvalues 1, 5, 0.1, 2",
            (torch.tensor([1.0, 5.0, 0.1, 2.0]),),
            0.4,
            "The order of the eigenvalues does not matter.",
        ),
        Case(
            "200 directions",
            "200 eigenvalues, most of them below 1, one of them 50; gradient descent runs at 99 % "
            "and at 101 % of the rate that came back",
            _descent_is_stable_up_to_the_rate,
        ),
    ),
    wrong=(
        WrongSolution(
            "1/λ of the steepest",
            lambda eigenvalues: 1 / eigenvalues.max(),
            "At this rate a step lands exactly on the minimum of the steepest direction: there "
            "1 − ηλ = 0. That is stable, but overshooting is too, as long as |1 − ηλ| < 1.",
        ),
        WrongSolution(
            "flattest direction",
            lambda eigenvalues: 2 / eigenvalues.min(),
            "Your rate suits the flattest direction. The steeper ones blow up first.",
        ),
        WrongSolution(
            "mean eigenvalue",
            lambda eigenvalues: 2 / eigenvalues.mean(),
            "You average the eigenvalues. Components do not help each other: one that grows is "
            "enough for gradient descent to diverge.",
        ),
        WrongSolution(
            "trace",
            lambda eigenvalues: 2 / eigenvalues.sum(),
            "You add the eigenvalues up, which gives the trace. Components move independently: "
            "that rate is safe, and far too small when there are many.",
        ),
        WrongSolution(
            "upside down",
            lambda eigenvalues: eigenvalues.max() / 2,
            "Your fraction is upside down: the steeper the bowl, the smaller the step it bears.",
        ),
        WrongSolution(
            "fastest rate",
            lambda eigenvalues: 2 / (eigenvalues.max() + eigenvalues.min()),
            "This rate converges fastest: it balances the steepest and the flattest direction. "
            "The largest stable one lies above it.",
        ),
        WrongSolution(
            "first eigenvalue",
            lambda eigenvalues: 2 / eigenvalues[0],
            "You use the first eigenvalue. They come in no particular order.",
        ),
        WrongSolution(
            "last eigenvalue",
            lambda eigenvalues: 2 / eigenvalues[-1],
            "You use the last eigenvalue, as if they were sorted. They come in no particular "
            "order.",
        ),
        WrongSolution(
            "one rate for each",
            lambda eigenvalues: 2 / eigenvalues,
            "You return one rate for each direction. Gradient descent has a single one, and all "
            "components must shrink with it.",
        ),
    ),
    hints=(
        "A step multiplies the component with eigenvalue λ by 1 − ηλ. When does it shrink?",
        "It shrinks when −1 < 1 − ηλ < 1. Solve for η, then ask which eigenvalue is the first to "
        "break the condition as η grows.",
    ),
    probes=(
        (torch.tensor([1.0, 5.0, 0.1, 2.0]),),
        (torch.tensor([0.5, 4.0, 0.7]),),
        (_spread(20, largest=30.0, seed=1),),
    ),
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_negative = Prediction(
    "03",
    "predicted_negative",
    "Negative eigenvalues",
    ("neither has any", "only G", "only the Hessian", "both"),
)
predicted_rounding = Prediction(
    "03",
    "predicted_rounding",
    "Relative error of the plain formula in 32 bits, at a margin of 15",
    unit="%",
    factor=3,
)
predicted_lanczos = Prediction(
    "03",
    "predicted_lanczos",
    "How many times as many products power iteration needs as Lanczos",
    factor=1.5,
)
predicted_warm_start = Prediction(
    "03",
    "predicted_warm_start",
    "And as Lanczos from the eigenvector of 25 steps before",
    factor=1.5,
)
predicted_climb = Prediction(
    "03",
    "predicted_climb",
    "The sharpness in 1,500 steps",
    (
        "it stays near 5",
        "it rises and stays below 20",
        "it rises past 20, then falls",
        "it rises past 20, and the loss blows up",
    ),
)
predicted_growth = Prediction(
    "03",
    "predicted_growth",
    "How many times the mean of ‖J‖² grows",
    factor=2,
)

"""Exercises of lesson 07: the robust term, the smoothness term, a weight chosen on validation data.

A term of a loss is its value and its gradient: checks differentiate what comes back, and mistakes
that only the gradient shows (a forgotten `create_graph`, a detached side) are told apart by it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..margins import true_margin
from ._answer import Answer
from ._values import difference
from .framework import Case, Exercise, Finding, WrongSolution, parts, show, value_case
from .predictions import Prediction


class _Network(nn.Module):
    """A small network in training, with gradients that belong to the caller."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)

    def with_gradients(self) -> "_Network":
        """Itself, with a gradient in each parameter: what an answer adds or erases is seen."""
        for weight in self.parameters():
            weight.grad = torch.full_like(weight, 0.5)
        return self

    def gradient_of(self, term: Any) -> Tensor:
        """Gradient (d,) in all parameters, on the CPU; zeros where the term depends on none."""
        weights = list(self.parameters())
        if not (isinstance(term, Tensor) and term.requires_grad):
            return torch.zeros(sum(weight.numel() for weight in weights))
        found = torch.autograd.grad(term.sum(), weights, allow_unused=True)
        pairs = zip(found, weights, strict=True)
        flat = [(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs]
        return torch.cat(flat).cpu()  # an answer may have moved the network to its own device


def _layer(*sizes: int, bias: bool = True) -> nn.Linear:
    """Without initial weights, so that an import draws none of the learner's random numbers."""
    return nn.utils.skip_init(nn.Linear, *sizes, bias=bias)


def _linear(weight: list[list[float]]) -> _Network:
    layer = _layer(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return _Network(layer).with_gradients()


def _kinked() -> _Network:
    first, last = _layer(2, 2), _layer(2, 2, bias=False)
    first.weight.data, first.bias.data = torch.eye(2), torch.tensor([-0.5, 0.0])
    last.weight.data = 5 * torch.eye(2)
    return _Network(first, nn.ReLU(), last).with_gradients()


def _bent(seed: int, dtype: torch.dtype = torch.float32) -> _Network:
    """Six pixels, five hidden units, four classes; weights large enough to bend within a ball."""
    generator = torch.Generator().manual_seed(seed)
    network = _Network(_layer(6, 5), nn.Tanh(), _layer(5, 4))
    for weight in network.parameters():
        weight.data = 1.2 * torch.randn(weight.shape, generator=generator)
    return network.to(dtype).with_gradients()


def _images(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of 1 × 2 × 3 pixels, some near the ends of the range, and labels 0 to 3."""
    generator = torch.Generator().manual_seed(seed)
    pixels = (1.3 * torch.rand(n, 1, 2, 3, generator=generator) - 0.15).clamp(0, 1)
    return pixels, torch.randint(4, (n,), generator=generator)


def _pixels(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[:, None, None, :]


def _term_and_gradient(answer: Answer, network: _Network, *arguments: Any) -> tuple:
    """What a term of a loss is: its value, and its gradient in the parameters of its network."""
    term = answer(network, *arguments)
    return term, answer.given[0].gradient_of(term)


def _finite_differences(value: Callable[[], Tensor], network: _Network, step=1e-5) -> Tensor:
    """Central differences of a float64 value in every parameter."""
    slopes = []
    for weight in (w for parameter in network.parameters() for w in parameter.data.view(-1)):
        there = []
        for shift in (step, -2 * step):  # `weight` is a view: the network moves with it
            weight += shift
            there.append(float(value()))
        weight += step
        slopes.append((there[0] - there[1]) / (2 * step))
    return torch.tensor(slopes)


def _gradient_case(name: str, given: str, make: Callable, seed: int, *rest: Any) -> Case:
    """A case on the gradient; `make(network, images, target, ...)` gives the term in float64."""

    def check(answer: Answer) -> Finding | None:
        inputs, target = _images(3, seed)
        term, gradient = _term_and_gradient(answer, _bent(seed), inputs, target, *rest)
        exact = _bent(seed, torch.float64)
        right = _finite_differences(make(exact, inputs.double(), target, *rest), exact)
        # float32 rounding, about 1e-6; finite differences are good to 1e-8.
        if torch.allclose(gradient.double(), right.double(), rtol=1e-3, atol=1e-3):
            return None
        if not gradient.any():
            return Finding(
                f"{show(term)}, with no gradient in the parameters",
                "The term depends on the parameters, so `backward()` on it moves them.",
            )
        return Finding(
            f"a gradient of length {gradient.norm():.3g}",
            "The gradient in the parameters is that of the term, found by moving each parameter "
            "a little (to within 0.001).",
        )

    return Case(name, given, check)


# --- 1. The robust term --------------------------------------------------------------------------


def my_robust_term(model, inputs, target, epsilon, step_size, steps):
    point = inputs
    for _ in range(steps):
        point = point.detach().requires_grad_()
        error = torch.nn.functional.cross_entropy(model(point), target)
        (uphill,) = torch.autograd.grad(error, point)
        moved = point + step_size * uphill.sign()
        point = moved.clamp(inputs - epsilon, inputs + epsilon).clamp(0, 1)
    log_p = model(inputs).log_softmax(1)
    log_q = model(point.detach()).log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def _gradient_at(model: nn.Module, point: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
    point = point.detach().requires_grad_()
    return torch.autograd.grad(objective(model(point)), point)[0]


def _cross_entropy(clean: Tensor, target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: F.cross_entropy(logits, target)


def _into_ball(point: Tensor, inputs: Tensor, epsilon: float) -> Tensor:
    return point.clamp(inputs - epsilon, inputs + epsilon)


def _project(point: Tensor, inputs: Tensor, epsilon: float) -> Tensor:
    return _into_ball(point, inputs, epsilon).clamp(0, 1)


def _divergence(log_p: Tensor, log_q: Tensor, target: Tensor) -> Tensor:
    """Mean over samples of Σ p (log p - log q)."""
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def _robust(
    objective: Callable = _cross_entropy,
    direction: Callable = torch.sign,
    project: Callable = _project,
    finish: Callable = _divergence,
    walk: Callable = lambda steps, step_size, epsilon: (steps, step_size),
):
    """The robust term with one part replaced.

    objective(clean logits, target) makes what the attack climbs; direction(gradient) is its step;
    project(point, inputs, epsilon); walk gives the number and the size of the steps; and
    finish(log_p, log_q, target) is what is returned.
    """

    def term(model, inputs, target, epsilon, step_size, steps):
        climb = objective(model(inputs).detach(), target)
        point, (count, size) = inputs, walk(steps, step_size, epsilon)
        for _ in range(count):
            point = point + size * direction(_gradient_at(model, point, climb))
            point = project(point, inputs, epsilon)
        return finish(model(inputs).log_softmax(1), model(point).log_softmax(1), target)

    return term


def _robust_of_logits(model, inputs, target, *rest):
    """`F.kl_div` on the attacked images' logits as they are."""
    seen = []

    def finish(log_p, log_q, target):
        return F.kl_div(seen[-1], log_p, reduction="batchmean", log_target=True)

    def watched(x):
        seen.append(model(x))
        return seen[-1]

    return _robust(finish=finish)(watched, inputs, target, *rest)


def _each_step_from_the_clean_image(model, inputs, target, epsilon, step_size, steps):
    return my_robust_term(model, inputs, target, epsilon, min(step_size, epsilon), 1)


def _robust_in_float64(network: _Network, inputs, target, epsilon, step_size, steps):
    """The term as a function of the parameters, x_adv being fixed: written with loops and NumPy."""
    point = inputs.clone()
    for _ in range(steps):
        for i in range(len(inputs)):
            x = point[i : i + 1].clone().requires_grad_()
            loss = torch.logsumexp(network(x)[0], 0) - network(x)[0, target[i]]
            gradient = torch.autograd.grad(loss, x)[0][0]
            lowest = (inputs[i] - epsilon).clamp_min(0)
            highest = (inputs[i] + epsilon).clamp_max(1)
            moved = point[i] + step_size * gradient.sign()
            point[i] = torch.minimum(torch.maximum(moved, lowest), highest)

    @torch.no_grad()
    def value() -> Tensor:
        p, q = network(inputs).softmax(1), network(point).softmax(1)
        return (p * (p / q).log()).sum() / len(p)

    return value


def _robust_value(network, inputs, target, *rest):
    return _robust_in_float64(_bent(5, torch.float64), inputs.double(), target, *rest)()


def _two_class_kl(clean_gap: float, adversarial_gap: float) -> float:
    """KL between two pairs of probabilities, given as differences of logits."""
    p, q = (1 / (1 + math.exp(-gap)) for gap in (clean_gap, adversarial_gap))
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


_FIVE = _linear([[5.0, 0.0], [0.0, 5.0]])
_ZERO = torch.tensor([0])
_ONE_STEP = (_FIVE, _pixels([0.6, 0.4]), _ZERO, 0.2, 0.15, 1)
# Logits (5 max(x₁ - ½, 0), 5 x₂): below ½ the first pixel has no effect.
_FLAT_START = (_kinked(), _pixels([0.45, 0.4]), _ZERO, 0.2, 0.1, 1)
_LONG_WALK = (_FIVE, _pixels([0.7, 0.4]), _ZERO, 0.1, 0.04, 5)
_BORDER = (_FIVE, _pixels([0.06, 0.96]), _ZERO, 0.1, 0.1, 2)
_BATCH = (
    _FIVE,
    _pixels([0.6, 0.4], [0.7, 0.4], [0.5, 0.5], [0.2, 0.6]),
    torch.tensor([0, 0, 0, 0]),
    0.1,
    0.1,
    1,
)
_REST = (0.25, 0.1, 3)

robust_term = Exercise(
    lesson="07",
    name="robust_term",
    title="The robust term",
    difficulty=4,
    importance=5,
    minutes=20,
    reference=my_robust_term,
    cases=(
        value_case(
            "one step",
            "logits (5 x₁, 5 x₂); one image, pixels (0.6, 0.4), label 0; radius 0.2, one step of "
            "0.15: x_adv = (0.45, 0.55)",
            _ONE_STEP,
            _two_class_kl(1.0, -0.5),
            "The result is KL(p(x) ‖ p(x_adv)) in nats.",
        ),
        value_case(
            "a walk to the rim",
            "pixels (0.7, 0.4), label 0; radius 0.1, five steps of 0.04: x_adv = (0.6, 0.5)",
            _LONG_WALK,
            _two_class_kl(1.5, 0.5),
            "The attack walks until it is stopped by the rim of the ball around the clean image.",
        ),
        value_case(
            "near black and white",
            "pixels (0.06, 0.96), label 0; radius 0.1, two steps of 0.1: x_adv = (0, 1)",
            _BORDER,
            _two_class_kl(-4.5, -5.0),
            "x_adv is an image: its pixels lie in [0, 1].",
        ),
        value_case(
            "a pixel without effect",
            "logits (5 max(x₁ − ½, 0), 5 x₂); pixels (0.45, 0.4), label 0; radius 0.2, one step of "
            "0.1: x_adv = (0.45, 0.5)",
            _FLAT_START,
            _two_class_kl(-2.0, -2.5),
            "A pixel whose gradient is 0 stays where it is.",
        ),
        value_case(
            "a batch",
            "pixels (0.6, 0.4), (0.7, 0.4), (0.5, 0.5), (0.2, 0.6), all with label 0; radius 0.1, "
            "one step of 0.1: both pixels of each image move by 0.1",
            _BATCH,
            sum(_two_class_kl(g, g - 1) for g in (1.0, 1.5, 0.0, -2.0)) / 4,
            "The result is the mean over images of the sum over classes.",
        ),
        value_case(
            "a network",
            "six images in four classes, a network with one tanh layer; radius 0.25, three steps "
            "of 0.1",
            (_bent(5), *_images(6, 5), *_REST),
            _robust_value,
            "The same holds for any network and any number of classes.",
        ),
        _gradient_case(
            "its gradient",
            "three images, another network of that kind; the term is differentiated",
            _robust_in_float64,
            6,
            *_REST,
        ),
    ),
    wrong=(
        WrongSolution(
            "KL the other way round",
            _robust(finish=lambda log_p, log_q, y: _divergence(log_q, log_p, y)),
            "You compute KL(p(x_adv) ‖ p(x)). The clean prediction is the one that averages: "
            "KL(p ‖ q) = Σ p log(p/q). `F.kl_div` takes the *second* distribution first.",
        ),
        WrongSolution(
            "mean over classes too",
            _robust(finish=lambda log_p, log_q, y: (log_p.exp() * (log_p - log_q)).mean()),
            'You average over images and classes, as `reduction="mean"` does: your term is too '
            "small by the number of classes. A divergence *adds up* over classes.",
        ),
        WrongSolution(
            "sum over images",
            _robust(finish=lambda log_p, log_q, y: (log_p.exp() * (log_p - log_q)).sum()),
            "You add the images up. A term of a loss is a mean over images, or its weight would "
            "depend on the batch size.",
        ),
        WrongSolution(
            "probabilities where logarithms belong",
            _robust(
                finish=lambda log_p, log_q, y: F.kl_div(
                    log_q.exp(), log_p.exp(), reduction="batchmean"
                )
            ),
            "You give `F.kl_div` probabilities. Its first argument is a *log*-probability (and its "
            "second too, with `log_target=True`).",
        ),
        WrongSolution(
            "logits where logarithms belong",
            _robust_of_logits,
            "You give `F.kl_div` plain logits for the attacked images. They are log-probabilities "
            "only after `log_softmax`.",
        ),
        WrongSolution(
            "clean side detached",
            _robust(finish=lambda log_p, log_q, y: _divergence(log_p.detach(), log_q, y)),
            "The number is right, its gradient is not: you detach the clean prediction, so that "
            "only p(x_adv) is drawn to p(x). Both sides are the network's, and both move.",
        ),
        WrongSolution(
            "attacked side detached",
            _robust(finish=lambda log_p, log_q, y: _divergence(log_p, log_q.detach(), y)),
            "The number is right, its gradient is not: you detach the prediction at x_adv. What is "
            "held fixed is the attacked *image*; the network's answer to it moves.",
        ),
        WrongSolution(
            "no gradient",
            _robust(finish=lambda log_p, log_q, y: _divergence(log_p, log_q, y).detach()),
            "The number is right, but it has no gradient. Is everything inside `torch.no_grad()`, "
            "detached, or turned into a float?",
        ),
        WrongSolution(
            "gradient not signed",
            _robust(direction=lambda gradient: gradient),
            "Your attack steps along the gradient itself. In this ball each pixel may move equally "
            "far: only the sign counts.",
        ),
        WrongSolution(
            "downhill",
            _robust(direction=lambda gradient: -gradient.sign()),
            "Your attack walks downhill: it makes the image *easier*. It has to raise the "
            "cross-entropy.",
        ),
        WrongSolution(
            "attack on the KL",
            _robust(
                objective=lambda clean, target: (
                    lambda logits: F.kl_div(
                        logits.log_softmax(1),
                        clean.log_softmax(1),
                        reduction="sum",
                        log_target=True,
                    )
                )
            ),
            "Your attack climbs the KL itself. At the clean image the KL is 0, its minimum, and so "
            "is its gradient: the first step goes nowhere, or where rounding sends it. (TRADES "
            "climbs the KL, from a random start.) Here the attack climbs the cross-entropy.",
        ),
        WrongSolution(
            "attack on the margin",
            _robust(
                objective=lambda clean, target: lambda logits: -true_margin(logits, target).sum()
            ),
            "Your attack lowers the margin, which looks at the strongest rival only. That is how "
            "robust margins are *measured*; this one raises the cross-entropy, where all classes "
            "count.",
        ),
        WrongSolution(
            "attack on the prediction",
            _robust(
                objective=lambda clean, target: (
                    lambda logits: F.cross_entropy(logits, clean.argmax(1))
                )
            ),
            "Your attack takes the network's answers for labels. Where an answer is wrong, moving "
            "away from it helps the network.",
        ),
        WrongSolution(
            "one step over the whole radius",
            _robust(walk=lambda steps, step_size, epsilon: (1, epsilon)),
            "You take one step as long as the radius. `steps` steps of `step_size` each, with a "
            "new gradient each time, find worse images.",
        ),
        WrongSolution(
            "each step from the clean image",
            _each_step_from_the_clean_image,
            "Each of your steps starts again at the clean image, so the walk is never longer than "
            "one step. The clean image is only the centre of the ball.",
        ),
        WrongSolution(
            "one step too few",
            _robust(walk=lambda steps, step_size, epsilon: (steps - 1, step_size)),
            "Your walk is one step short: the last gradient is taken, but not followed.",
        ),
        WrongSolution(
            "ball forgotten",
            _robust(project=lambda point, inputs, epsilon: point.clamp(0, 1)),
            "Your walk never goes back into the ball: it may end further than the radius from the "
            "clean image.",
        ),
        WrongSolution(
            "[0, 1] forgotten",
            _robust(project=_into_ball),
            "Some pixels of your x_adv leave [0, 1]: no image has them.",
        ),
        WrongSolution(
            "cross-entropy at x_adv",
            _robust(finish=lambda log_p, log_q, y: F.nll_loss(log_q, y)),
            "You return the cross-entropy of the attacked images: that is adversarial training "
            "(Madry et al.). This term compares two predictions and leaves the label to the "
            "cross-entropy of the clean image.",
        ),
    ),
    hints=(
        "Two parts. First the attack: `steps` times the gradient of the cross-entropy in the "
        "pixels, a step along its sign, back into the ball, back into [0, 1]. Then two "
        "predictions and their divergence.",
        "`torch.autograd.grad` gives a gradient in the pixels alone, and touches no "
        "parameter; `point` must be a tensor with `requires_grad`. The bounds of `clamp` may be "
        "tensors.",
        "`F.kl_div(a, b, log_target=True)` is KL(b ‖ a) of log-probabilities, and "
        '`reduction="batchmean"` divides by the number of images only. x_adv is a constant: '
        "detach the image, and neither prediction.",
    ),
    probes=(
        _ONE_STEP,
        _LONG_WALK,
        _BORDER,
        _FLAT_START,
        _BATCH,
        (_bent(1), *_images(6, 1), *_REST),
        (_bent(2), *_images(5, 2), 0.2, 0.15, 4),
        (_bent(3), *_images(8, 3), *_REST),
    ),
    observe=_term_and_gradient,
)


# --- 2. The smoothness term ----------------------------------------------------------------------


def my_smooth_term(model, inputs, target):
    inputs = inputs.clone().requires_grad_()
    logits = model(inputs)
    true = logits.gather(1, target[:, None])[:, 0]
    rival = logits.scatter(1, target[:, None], float("-inf")).amax(1)
    (gradient,) = torch.autograd.grad((true - rival).sum(), inputs, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()


def _squared_length(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).square().sum(1).mean()


def _smooth(
    quantity: Callable = lambda logits, target: true_margin(logits, target).sum(),
    finish: Callable = _squared_length,
    create_graph: bool = True,
):
    """The smoothness term with another scalar to differentiate, or another end."""

    def term(model, inputs, target):
        inputs = inputs.clone().requires_grad_()
        total = quantity(model(inputs), target)
        return finish(torch.autograd.grad(total, inputs, create_graph=create_graph)[0])

    return term


def _smooth_in_parameters(model, inputs, target):
    total = true_margin(model(inputs), target).mean()
    gradients = torch.autograd.grad(total, list(model.parameters()), create_graph=True)
    return sum(gradient.square().sum() for gradient in gradients)


def _label(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target[:, None])[:, 0]


def _smooth_in_float64(network: _Network, inputs, target):
    """The term as a function of the parameters: slopes of the margin by central differences."""
    n, step = inputs[0].numel(), 1e-4
    shifts = step * torch.eye(n, dtype=torch.float64).view(n, *inputs.shape[1:])

    @torch.no_grad()
    def value() -> Tensor:
        total = 0.0
        for x, y in zip(inputs, target.tolist(), strict=True):
            up, down = (network(x + sign * shifts) for sign in (1, -1))
            others = [k for k in range(up.shape[1]) if k != y]
            rival = others[int(network(x[None])[0, others].argmax())]
            rise = (up[:, y] - up[:, rival]) - (down[:, y] - down[:, rival])
            total += (rise / (2 * step)).square().sum()
        return total / len(inputs)

    return value


def _smooth_value(network, inputs, target):
    return _smooth_in_float64(_bent(5, torch.float64), inputs.double(), target)()


_THREE = _linear([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])
_BELOW_ZERO = (
    _linear([[-1.0, 0.0], [0.0, -3.0], [-2.0, -2.0]]),
    _pixels([0.9, 0.2]),
    torch.tensor([1]),
)
_ONE_IMAGE = (_THREE, _pixels([0.9, 0.2]), torch.tensor([0]))
_THREE_IMAGES = (_THREE, _pixels([0.9, 0.2], [0.1, 0.8], [0.9, 0.2]), torch.tensor([0, 0, 2]))

smooth_term = Exercise(
    lesson="07",
    name="smooth_term",
    title="The smoothness term",
    difficulty=4,
    importance=5,
    minutes=15,
    reference=my_smooth_term,
    cases=(
        value_case(
            "one image",
            "logits (x₁, 3 x₂, 2 x₁ + 2 x₂); pixels (0.9, 0.2), label 0: the rival is class 2, so "
            "m = −x₁ − 2 x₂",
            _ONE_IMAGE,
            5.0,
            "The result is the squared length of the gradient of the margin in the pixels.",
        ),
        value_case(
            "all logits below zero",
            "logits (−x₁, −3 x₂, −2 x₁ − 2 x₂); pixels (0.9, 0.2), label 1: the rival is class 0, "
            "so m = x₁ − 3 x₂",
            _BELOW_ZERO,
            10.0,
            "The rival is the strongest other class, also where its logit is negative.",
        ),
        value_case(
            "three images",
            "the same network as at first; pixels (0.9, 0.2) with label 0, (0.1, 0.8) with label 0 "
            "(m = x₁ − 3 x₂) and (0.9, 0.2) with label 2 (m = x₁ + 2 x₂)",
            _THREE_IMAGES,
            (5.0 + 10.0 + 5.0) / 3,
            "The result is the mean over images; each has a gradient of its own.",
        ),
        value_case(
            "a network",
            "six images of 1 × 2 × 3 pixels in four classes, a network with one tanh layer",
            (_bent(5), *_images(6, 5)),
            _smooth_value,
            "The same holds for any network: all pixels of an image count.",
            tolerance=1e-3,
        ),
        _gradient_case(
            "its gradient",
            "three images, another network of that kind; the term is differentiated",
            _smooth_in_float64,
            6,
        ),
    ),
    wrong=(
        WrongSolution(
            "no second gradient",
            _smooth(create_graph=False),
            "The number is right, but `backward()` on it moves no parameter: the first gradient "
            "was taken without a record of how it was computed. Which argument of "
            "`torch.autograd.grad` keeps that record? (And is nothing detached after it?)",
        ),
        WrongSolution(
            "length, not squared",
            _smooth(finish=lambda gradient: gradient.flatten(1).norm(dim=1).mean()),
            "You return the length of the gradient. The term is its square; the root also has no "
            "derivative where the gradient vanishes.",
        ),
        WrongSolution(
            "square of the mean length",
            _smooth(finish=lambda gradient: gradient.flatten(1).norm(dim=1).mean().square()),
            "You square after averaging. Square each image's length, then average.",
        ),
        WrongSolution(
            "gradient of the loss",
            _smooth(lambda logits, target: F.cross_entropy(logits, target, reduction="sum")),
            "You differentiate the cross-entropy. Its gradient fades where the network is sure, "
            "and with it the term; the margin's does not.",
        ),
        WrongSolution(
            "gradient of the mean loss",
            _smooth(F.cross_entropy),
            "You differentiate the cross-entropy, and its mean at that. Asked for is the gradient "
            "of each image's margin.",
        ),
        WrongSolution(
            "gradient of the mean margin",
            _smooth(lambda logits, target: true_margin(logits, target).mean()),
            "You differentiate the *mean* margin, so that every image's gradient is divided by the "
            "number of images, and its square by that number squared. Differentiate the sum: "
            "images do not mix.",
        ),
        WrongSolution(
            "mean over pixels",
            _smooth(finish=lambda gradient: gradient.square().mean()),
            "You average over the pixels too. A squared length adds them up.",
        ),
        WrongSolution(
            "sum over images",
            _smooth(finish=lambda gradient: gradient.square().sum()),
            "You add the images up. A term of a loss is a mean over images.",
        ),
        WrongSolution(
            "sum over one axis",
            _smooth(finish=lambda gradient: gradient.square().sum(-1).mean()),
            "You add up the last axis of the pixels and average over the rest. Flatten each image "
            "first: a length has all its pixels.",
        ),
        WrongSolution(
            "absolute values",
            _smooth(finish=lambda gradient: gradient.flatten(1).abs().sum(1).mean()),
            "You add up absolute values: the L1 length, which is what an L∞ attack gains. The term "
            "has the squared Euclidean one.",
        ),
        WrongSolution(
            "mean gradient",
            _smooth(finish=lambda gradient: gradient.flatten(1).mean(0).square().sum()),
            "You average the gradients of different images before you square. They cancel; their "
            "lengths do not.",
        ),
        WrongSolution(
            "the true class alone",
            _smooth(lambda logits, target: _label(logits, target).sum()),
            "You differentiate the logit of the true class. A margin is its lead over the "
            "strongest rival, which moves as well.",
        ),
        WrongSolution(
            "true class set to zero",
            _smooth(
                lambda logits, target: (
                    _label(logits, target) - logits.scatter(1, target[:, None], 0.0).amax(1)
                ).sum()
            ),
            "You put 0 in place of the true class. Where all other logits are negative, that 0 is "
            "the strongest rival, and it does not move with the image.",
        ),
        WrongSolution(
            "the prediction's margin",
            _smooth(lambda logits, target: logits.topk(2, dim=1).values.diff(dim=1).sum()),
            "You use the predicted class. The margin is that of the label, also where the network "
            "is wrong.",
        ),
        WrongSolution(
            "the soft margin",
            _smooth(
                lambda logits, target: (
                    _label(logits, target)
                    - logits.scatter(1, target[:, None], float("-inf")).logsumexp(1)
                ).sum()
            ),
            "You use the log-odds of the true class, where all rivals count. The true margin has "
            "the strongest one only.",
        ),
        WrongSolution(
            "gradient in the parameters",
            _smooth_in_parameters,
            "You differentiate in the parameters first. The term asks how fast the margin changes "
            "with the *image*; the parameters come second, in `backward()`.",
        ),
    ),
    hints=(
        "One gradient inside the other: first of the margins in the pixels, then (by whoever "
        "calls `backward()`) of what you return in the parameters.",
        "Make the inputs a tensor that requires a gradient, compute the true margins (lesson 02, "
        "or `cc.true_margin`), and call `torch.autograd.grad` on their *sum*: no image's margin "
        "depends on another image.",
        "`create_graph=True` makes the gradient itself differentiable. Then square, add up over "
        "all pixels of an image (`flatten(1)`), and average over images.",
    ),
    probes=(
        _ONE_IMAGE,
        _BELOW_ZERO,
        _THREE_IMAGES,
        (_bent(1), *_images(6, 1)),
        (_bent(2), *_images(5, 2)),
    ),
    observe=_term_and_gradient,
)


# --- 3. A weight chosen on validation data -------------------------------------------------------


def my_report(weights, train_ece, validation_loss, validation_ece, test_ece):
    chosen = validation_loss.mean(dim=1).argmin()
    return weights[chosen], test_ece[chosen].mean()


def _choosing(place: Callable, report: Callable | None = None):
    """Choose a row by `place(columns)`, and report the mean of `report(columns)` there."""

    def wrong(weights, train_ece, validation_loss, validation_ece, test_ece):
        columns = {
            "train_ece": train_ece,
            "validation_loss": validation_loss,
            "validation_ece": validation_ece,
            "test_ece": test_ece,
        }
        chosen = place(columns)
        shown = columns["test_ece"] if report is None else report(columns)
        return weights[chosen], shown[chosen].mean()

    return wrong


def _lowest(column: str) -> Callable:
    return lambda columns: columns[column].mean(1).argmin()


def _each_seed_its_own(weights, train_ece, validation_loss, validation_ece, test_ece):
    chosen = validation_loss.argmin(0)
    return weights[chosen].mean(), test_ece[chosen, torch.arange(test_ece.shape[1])].mean()


def _best_seed(weights, train_ece, validation_loss, validation_ece, test_ece):
    chosen = validation_loss.mean(1).argmin()
    return weights[chosen], test_ece[chosen].min()


def _luckiest_run(weights, train_ece, validation_loss, validation_ece, test_ece):
    chosen, seed = divmod(int(validation_loss.argmin()), validation_loss.shape[1])
    return weights[chosen], test_ece[chosen, seed]


def _luckiest_weight(weights, train_ece, validation_loss, validation_ece, test_ece):
    chosen = int(validation_loss.argmin()) // validation_loss.shape[1]
    return weights[chosen], test_ece[chosen].mean()


def _its_place(weights, train_ece, validation_loss, validation_ece, test_ece):
    chosen = validation_loss.mean(1).argmin()
    return chosen.float(), test_ece[chosen].mean()


def _all_seeds(weights, train_ece, validation_loss, validation_ece, test_ece):
    chosen = validation_loss.mean(1).argmin()
    return weights[chosen], test_ece[chosen]


_WEIGHTS = torch.tensor([0.0, 0.001, 0.01, 0.1])
_BY_HAND = (
    _WEIGHTS,
    torch.tensor([[0.00, 0.01], [0.01, 0.03], [0.04, 0.05], [0.10, 0.12]]),
    torch.tensor([[0.90, 0.80], [0.60, 0.50], [0.46, 0.48], [0.40, 0.70]]),
    torch.tensor([[0.13, 0.11], [0.04, 0.02], [0.06, 0.05], [0.09, 0.09]]),
    torch.tensor([[0.14, 0.12], [0.07, 0.06], [0.05, 0.03], [0.02, 0.03]]),
)


def _sweep(seed: int, n_seeds: int = 3) -> tuple[Tensor, ...]:
    """Made-up columns in which no two rules of choice agree."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(4, 6, n_seeds, generator=generator)
    train_ece, loss, validation_ece, test_ece = draws.unbind()
    return 10 ** (4 * torch.rand(6, generator=generator) - 4), train_ece, loss + 0.2, \
        validation_ece, test_ece  # fmt: skip


def _follows_the_rule(answer) -> Finding | None:
    """In eight sweeps any other rule (the median, the worst seed, the first) chooses otherwise."""
    for seed in range(1, 9):
        weights, _, loss, _, test = arguments = _sweep(seed)
        _, weight, ece = min(
            (sum(loss[i].tolist()), weights[i].item(), sum(test[i].tolist()) / 3) for i in range(6)
        )
        returned = answer(*arguments)
        fault = difference(returned, (weight, ece), 1e-4)
        if fault:
            return Finding(
                f"{show(returned)} in sweep {seed} of 8",
                f"The weight has the lowest mean validation loss, whatever the sweep. {fault}",
            )
    return None


def _test_data_do_not_choose(answer) -> Finding | None:
    arguments = _sweep(0)
    before = parts(answer(*arguments), 2)
    after = parts(answer(*arguments[:-1], arguments[-1].flip(0)), 2)
    if len(before) == len(after) == 2 and torch.allclose(before[0], after[0]):
        return None
    return Finding(
        f"λ_s = {show(before[0])}; with other test data, λ_s = {show(after[0])}",
        "Other test images never change the choice.",
    )


validated_choice = Exercise(
    lesson="07",
    name="validated_choice",
    title="A weight chosen on validation data",
    difficulty=2,
    importance=5,
    minutes=8,
    reference=my_report,
    cases=(
        value_case(
            "four weights, two seeds",
            "weights 0, 0.001, 0.01, 0.1; validation loss (0.90, 0.80), (0.60, 0.50), (0.46, "
            "0.48), (0.40, 0.70); test ECE (0.14, 0.12), (0.07, 0.06), (0.05, 0.03), (0.02, 0.03)",
            _BY_HAND,
            (0.01, 0.04),
            "First the weight with the lowest validation loss, averaged over seeds; then its mean "
            "test ECE.",
        ),
        Case(
            "other test images",
            "six weights and three seeds; then the same with the rows of test ECE reversed",
            _test_data_do_not_choose,
        ),
        Case(
            "eight sweeps",
            "random numbers for six weights, in no order, and three seeds; eight times",
            _follows_the_rule,
        ),
    ),
    wrong=(
        WrongSolution(
            "chosen on the test data",
            _choosing(_lowest("test_ece")),
            "You choose the weight by its test ECE, and report that very number. It is the "
            "smallest of several noisy ones, so it promises too much: test data judge a choice "
            "that was made without them.",
        ),
        WrongSolution(
            "chosen by training ECE",
            _choosing(_lowest("train_ece")),
            "You choose by the ECE of the training images. A network that knows them by heart has "
            "none, however over-confident it is elsewhere.",
        ),
        WrongSolution(
            "chosen by validation ECE",
            _choosing(_lowest("validation_ece")),
            "You choose by the validation ECE. A useless network can have an ECE of 0 (lesson 01), "
            "and on 500 images it is mostly noise. The rule here is the validation *loss*, which a "
            "network lowers by being right as well as by being honest.",
        ),
        WrongSolution(
            "validation ECE reported",
            _choosing(_lowest("validation_loss"), lambda columns: columns["validation_ece"]),
            "The choice is right, but you report the validation ECE. Those images took part in the "
            "choice; the test images did not.",
        ),
        WrongSolution(
            "training ECE reported",
            _choosing(_lowest("validation_loss"), lambda columns: columns["train_ece"]),
            "The choice is right, but you report the ECE of the training images.",
        ),
        WrongSolution(
            "validation loss reported",
            _choosing(_lowest("validation_loss"), lambda columns: columns["validation_loss"]),
            "The choice is right, but you report the loss that made it. Asked for is the test ECE.",
        ),
        WrongSolution(
            "chosen and reported by validation ECE",
            _choosing(_lowest("validation_ece"), lambda columns: columns["validation_ece"]),
            "You choose by the validation ECE and report it. The least of several noisy numbers "
            "promises too much, also on validation data.",
        ),
        WrongSolution(
            "highest loss",
            _choosing(lambda columns: columns["validation_loss"].mean(1).argmax()),
            "You take the *highest* validation loss: `argmax` for `argmin`.",
        ),
        WrongSolution(
            "worst seed chooses",
            _choosing(lambda columns: columns["validation_loss"].amax(1).argmin()),
            "You choose by each weight's worst seed. The rule here is the mean over seeds.",
        ),
        WrongSolution(
            "median chooses",
            _choosing(lambda columns: columns["validation_loss"].median(1).values.argmin()),
            "You choose by the median over seeds. The rule here is the mean.",
        ),
        WrongSolution(
            "first seed chooses",
            _choosing(lambda columns: columns["validation_loss"][:, 0].argmin()),
            "You choose by the first seed alone. The rule here is the mean over seeds.",
        ),
        WrongSolution(
            "each seed its own weight",
            _each_seed_its_own,
            "Each seed chooses a weight of its own. One weight is asked for, by the mean over "
            "seeds.",
        ),
        WrongSolution(
            "best seed reported",
            _best_seed,
            "You report the best seed. Whoever trains with this weight gets the average one.",
        ),
        WrongSolution(
            "luckiest run",
            _luckiest_run,
            "You take the single run of lowest validation loss. One lucky seed is no evidence for "
            "a weight: average over seeds first.",
        ),
        WrongSolution(
            "weight of the luckiest run",
            _luckiest_weight,
            "One lucky run chooses your weight. Average the validation loss over seeds first.",
        ),
        WrongSolution(
            "place instead of weight",
            _its_place,
            "You return the weight's place in the list. Its value is asked for.",
        ),
        WrongSolution(
            "every seed reported",
            _all_seeds,
            "You report one ECE per seed. Here their mean is asked for.",
        ),
    ),
    hints=(
        "Two numbers per weight matter: one chooses, the other is reported. Which of the four "
        "columns may choose?",
        "Average the validation loss over seeds (`dim=1`); `argmin` gives the place of the "
        "smallest. The weight and the test ECE are read at this place.",
    ),
    probes=(_BY_HAND, *map(_sweep, range(2, 9))),
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_turned = Prediction(
    "07",
    "predicted_turned",
    "Share of margins of at least 5 that an attack of 8/255 turns negative",
    unit="%",
    within=10,
)
predicted_reverse = Prediction(
    "07",
    "predicted_reverse",
    "The other direction of KL, for an image that is lost",
    ("grows with every lost logit too", "levels off", "charges next to nothing"),
)
_REMEDIES = ("CE", "CE, stopped early", "label smoothing", "CalMO", "CE + temperature")
predicted_lowest_ece = Prediction(
    "07",
    "predicted_lowest_ece",
    "The lowest test ECE, in this run",
    (*_REMEDIES, "two or more tie, within the noise"),
)
predicted_fewest_lost = Prediction(
    "07", "predicted_fewest_lost", "The fewest right images lost to the attack", _REMEDIES
)
predicted_claims = Prediction(
    "07", "predicted_claims", "How many of the sixteen claims hold", within=2
)
predicted_natural_claims = Prediction(
    "07", "predicted_natural_claims", "How many of the sixteen hold on CIFAR-10", within=2
)

"""Exercises of lesson 02: the true margin, its band, log Q, and one step of an attack."""

import math

import torch
from torch import Tensor

from .framework import Case, Exercise, Finding, WrongSolution, parts, show, value_case
from .predictions import Prediction

# --- 1. The true margin --------------------------------------------------------------------------


def my_margin(logits, target):
    true = logits.gather(1, target[:, None])[:, 0]
    rivals = logits.scatter(1, target[:, None], float("-inf"))  # never the strongest of them
    return true - rivals.max(dim=1).values


def _true(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target[:, None]).squeeze(1)


def _margin_over(rival_of):
    """The lead of the true logit over what `rival_of(logits, target)` takes for the rival."""

    def wrong(logits, target):
        return _true(logits, target) - rival_of(logits, target)

    return wrong


def _predicted_margin(logits, target):
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second


def _mean_rival(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.sum(dim=1) - _true(logits, target)) / (logits.shape[1] - 1)


def _rivals_with(value: float):
    def rivals(logits: Tensor, target: Tensor) -> Tensor:
        return logits.scatter(1, target[:, None], value)

    return rivals


def _strongest_of_other_value(logits: Tensor, target: Tensor) -> Tensor:
    equal = logits == _true(logits, target)[:, None]
    return logits.masked_fill(equal, -math.inf).amax(dim=1)


def _random_logits(n: int, n_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, n_classes, generator=generator)
    return logits, torch.randint(n_classes, (n,), generator=generator)


def _margin_by_loop(logits: Tensor, target: Tensor) -> list[float]:
    rows = zip(logits.tolist(), target.tolist(), strict=True)
    return [row[y] - max(row[:y] + row[y + 1 :]) for row, y in rows]


_RIGHT = (torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]]), torch.tensor([0, 2]))
_MISTAKEN = (torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0]]), torch.tensor([0, 2]))
_TIED = (torch.tensor([[2.0, 2.0, 0.0], [-7.0, 3.0, 3.0]]), torch.tensor([0, 2]))
_BELOW_ZERO = (torch.tensor([[-1.0, -5.0, -3.0], [-1e3, -1005.0, -1003.0]]), torch.tensor([0, 0]))

margin = Exercise(
    lesson="02",
    name="margin",
    title="The true margin",
    difficulty=2,
    importance=5,
    minutes=8,
    reference=my_margin,
    cases=(
        value_case(
            "right answers",
            "logits (3, 1, 0) with label 0, and (0, 2, 5) with label 2",
            _RIGHT,
            [2.0, 3.0],
            "The margin is the lead, in logits, over the strongest other class.",
        ),
        value_case(
            "wrong answers",
            "logits (1, 4, 2) twice, with labels 0 and 2",
            _MISTAKEN,
            [-3.0, -2.0],
            "Where another class is ahead of the label, the margin is negative.",
        ),
        value_case(
            "ties",
            "logits (2, 2, 0) with label 0, and (−7, 3, 3) with label 2",
            _TIED,
            [0.0, 0.0],
            "A rival that draws level leaves no lead.",
        ),
        value_case(
            "all logits below zero",
            "logits (−1, −5, −3) and (−1000, −1005, −1003), both with label 0",
            _BELOW_ZERO,
            [2.0, 3.0],
            "Only differences of logits count, wherever the logits lie.",
        ),
        value_case(
            "300 images",
            "300 images with random logits in 10 classes, and random labels",
            _random_logits(300, 10, seed=1),
            _margin_by_loop,
            "The same definition holds for any number of images and classes.",
        ),
    ),
    wrong=(
        WrongSolution(
            "true class among the rivals",
            _margin_over(lambda logits, target: logits.amax(dim=1)),
            "Your maximum runs over all classes, the true one too. Then no margin is above 0, and "
            "every right answer has margin 0: a class cannot lead over itself.",
        ),
        WrongSolution(
            "predicted margin",
            _predicted_margin,
            "You computed the predicted margin: the lead of the largest logit over the second. It "
            "never looks at the label, so it is positive also where the network is wrong.",
        ),
        WrongSolution(
            "probabilities instead of logits",
            lambda logits, target: my_margin(logits.softmax(dim=1), target),
            "You compare probabilities. They saturate at 1, and so does their difference; the "
            "margin is measured in logits because those keep growing.",
        ),
        WrongSolution(
            "sign reversed",
            lambda logits, target: -my_margin(logits, target),
            "You have the sign reversed: the margin is positive where the network is right.",
        ),
        WrongSolution(
            "mean of the rivals",
            _margin_over(_mean_rival),
            "You compare with the mean of the rivals. One strong rival is enough to win, however "
            "weak the others are.",
        ),
        WrongSolution(
            "logsumexp of the rivals",
            _margin_over(lambda z, y: _rivals_with(-math.inf)(z, y).logsumexp(dim=1)),
            "You add up the rivals (log-sum-exp) instead of taking the strongest. That is the "
            "log-odds of the true class, log(p_y / (1 − p_y)): at most the margin, and at least "
            "the margin less log(K − 1).",
        ),
        WrongSolution(
            "second largest logit",
            _margin_over(lambda logits, target: logits.topk(2, dim=1).values[:, 1]),
            "You compare with the second largest logit. That is the strongest rival only where "
            "the true class is the largest; where the network is wrong, the rival is the first.",
        ),
        WrongSolution(
            "true class set to zero",
            _margin_over(lambda logits, target: _rivals_with(0.0)(logits, target).amax(dim=1)),
            "You put 0 in place of the true class. Where all rivals are negative, that 0 becomes "
            "the strongest of them. What number is never the largest?",
        ),
        WrongSolution(
            "left out by value",
            _margin_over(_strongest_of_other_value),
            "You leave out every logit that equals the true one. A rival may have the same value, "
            "and then the margin is 0: leave out the class, not the number.",
        ),
    ),
    hints=(
        "Two numbers per image: the logit of its label, and the largest of the others.",
        "`gather(1, target[:, None])` picks one logit from each row. Mind the shape: (N, 1) minus "
        "(N,) would broadcast to (N, N).",
        "`scatter(1, target[:, None], value)` gives a copy in which the logit of the label is "
        "replaced. Which value can never be the maximum?",
    ),
    probes=(_RIGHT, _MISTAKEN, _TIED, _BELOW_ZERO, _random_logits(40, 5, seed=2)),
)


# --- 2. The band ---------------------------------------------------------------------------------


def my_band(margin, n_classes):
    # s/(1 + s) is 1/(1 + 1/s), and 1/s may overflow: 1/inf is 0.
    one_rival = 1 / (1 + torch.exp(margin))
    all_level = 1 / (1 + torch.exp(margin) / (n_classes - 1))
    return one_rival, all_level


def _band_of(lower_of, upper_of):
    """A band made of e^{-m} and the number of rivals K - 1."""

    def wrong(margin, n_classes):
        rival = torch.exp(-margin)
        return lower_of(rival, n_classes - 1), upper_of(rival, n_classes - 1)

    return wrong


def _lower(rival: Tensor, rivals: int) -> Tensor:
    return rival / (1 + rival)


def _upper(rival: Tensor, rivals: int) -> Tensor:
    return rivals * rival / (1 + rivals * rival)


def _paper_lower(rival: Tensor, rivals: int) -> Tensor:
    return rival / (1 + rivals * rival)


def _paper_upper(rival: Tensor, rivals: int) -> Tensor:
    return rivals * rival


def _band_by_sigmoid(margin: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(-margin), torch.sigmoid(math.log(n_classes - 1) - margin)


_SIDES = ("lower", "upper")
_MARGINS = torch.tensor([-math.log(3), 0.0, math.log(9)])  # other ones for each K

band = Exercise(
    lesson="02",
    name="band",
    title="The band around the error probability",
    difficulty=2,
    importance=4,
    minutes=8,
    reference=my_band,
    cases=(
        value_case(
            "two classes",
            "margins 0 and log 3; 2 classes",
            (torch.tensor([0.0, math.log(3)]), 2),
            ([0.5, 0.25], [0.5, 0.25]),
            "With one rival, the margin decides: both bounds are 1 − p_y itself.",
            names=_SIDES,
        ),
        value_case(
            "ten classes",
            "margins 0 and log 9; 10 classes",
            (torch.tensor([0.0, math.log(9)]), 10),
            ([0.5, 0.1], [0.9, 0.5]),
            "The lower bound is met when one rival counts, the upper when all K − 1 are level.",
            names=_SIDES,
        ),
        value_case(
            "wrong answers",
            "margins −log 3 and −10; 4 classes",
            (torch.tensor([-math.log(3), -10.0]), 4),
            ([0.75, 0.9999546], [0.9, 0.9999849]),
            "Both bounds stay below 1, as 1 − p_y does, also for negative margins.",
            names=_SIDES,
        ),
        value_case(
            "300 images",
            "the true margins of 300 images with random logits; 10 classes",
            (my_margin(*_random_logits(300, 10, seed=1)), 10),
            _band_by_sigmoid,
            "The same two formulas hold for every margin.",
            names=_SIDES,
        ),
    ),
    wrong=(
        WrongSolution(
            "paper's lower bound",
            _band_of(_paper_lower, _upper),
            "Your lower bound is the paper's looser one: it divides the smallest S_y by one plus "
            "the largest. Numerator and denominator hold the same S_y.",
        ),
        WrongSolution(
            "paper's upper bound",
            _band_of(_lower, _paper_upper),
            "Your upper bound is the paper's looser one, without a denominator. It passes 1 as "
            "soon as the margin is below log(K − 1), and then says nothing about a probability.",
        ),
        WrongSolution(
            "paper's band",
            _band_of(_paper_lower, _paper_upper),
            "This is the looser band of the paper's Lemma B.3. Both sides can be tightened: the "
            "function s/(1 + s) increases, so put the bounds of S_y into it as they are.",
        ),
        WrongSolution(
            "factor of the paper's lower bound",
            _band_of(lambda r, k: 1 / (1 + k * r), _upper),
            "Your lower bound tends to 1 for large margins, where the error probability tends to "
            "0. What you have on the left bounds p_y, not 1 − p_y.",
        ),
        WrongSolution(
            "bounds of S_y",
            _band_of(lambda r, k: r, _paper_upper),
            "You bound S_y, which may be any positive number. The error probability is "
            "S_y/(1 + S_y).",
        ),
        WrongSolution(
            "(K − 1) times the lower bound",
            _band_of(_lower, lambda r, k: k * r / (1 + r)),
            "Your upper bound is K − 1 times the lower one, and passes 1 for small margins. It is "
            "S_y that can be K − 1 times as large, and s/(1 + s) bends: put the larger s into "
            "numerator and denominator.",
        ),
        WrongSolution(
            "K ignored",
            _band_of(_lower, _lower),
            "Your two bounds are the same whatever K is: that of a single rival. With K classes, "
            "up to K − 1 rivals can be level.",
        ),
        WrongSolution(
            "in per cent",
            _band_of(lambda r, k: 100 * _lower(r, k), lambda r, k: 100 * _upper(r, k)),
            "Your bounds are in per cent, 100 times too large: a probability is at most 1.",
        ),
        WrongSolution(
            "sides swapped",
            lambda margin, n_classes: my_band(margin, n_classes)[::-1],
            "Your two sides are swapped: the lower bound comes first. With K − 1 strong rivals the "
            "error probability is larger than with one.",
        ),
        WrongSolution(
            "K instead of K − 1",
            lambda margin, n_classes: my_band(margin, n_classes + 1),
            "You count K rivals. The true class is no rival of its own: S_y has K − 1 terms.",
        ),
        WrongSolution(
            "sign of m",
            lambda margin, n_classes: my_band(-margin, n_classes),
            "You have the sign of the margin reversed: the larger the margin, the smaller the "
            "error probability.",
        ),
        WrongSolution(
            "bounds on p_y",
            _band_of(lambda r, k: 1 / (1 + k * r), lambda r, k: 1 / (1 + r)),
            "You bound p_y. The error probability is 1 − p_y, so 1 minus your bounds, and their "
            "order turns round.",
        ),
    ),
    hints=(
        "Both sides are the same function s/(1 + s), at the least and at the largest S_y that the "
        "margin allows.",
        "One rival at distance m contributes e^{−m} to S_y. At least one rival is there, and at "
        "most K − 1 are as strong.",
        "Compute e^{−m} once, under a name; each side is then one fraction of it. Or "
        "recognise the logistic function: `torch.sigmoid` of minus the margin is one of the two.",
    ),
    probes=((_MARGINS, 2), (_MARGINS + 0.5, 4), (_MARGINS - 0.5, 10)),
)


# --- 3. log Q ------------------------------------------------------------------------------------


def my_log_q(margin):
    largest = (-margin).max()
    # After this shift every exponent is at most 0, and one is 0: no overflow, no log 0.
    return largest + torch.log(torch.exp(-margin - largest).mean())


def _sum_for_mean(margin: Tensor) -> Tensor:
    return torch.logsumexp(-margin, dim=0)


def _shifted_by(shift_of, add_back: bool = True):
    """log Q as in the reference, except for the shift."""

    def wrong(margin):
        shift = shift_of(-margin)
        return torch.log(torch.exp(-margin - shift).mean()) + (shift if add_back else 0)

    return wrong


def _log_q_by_logsumexp(margin: Tensor) -> Tensor:
    return torch.logsumexp(-margin.double(), dim=0) - math.log(len(margin))


_SUM = (
    "You add up where Q is a mean: a data set twice as large would have twice the Q. In the "
    "logarithm, log n is left over."
)
_SIGN = (
    "You average e^{+m}: the sign of the margin is lost, and the best images rule the result "
    "instead of the worst."
)
_OVERFLOWS = " Besides, for margins of ±1000 the exponential overflows or underflows."

log_q = Exercise(
    lesson="02",
    name="log_q",
    title="log Q without overflow",
    difficulty=3,
    importance=4,
    minutes=10,
    reference=my_log_q,
    cases=(
        value_case(
            "two margins",
            "margins 0 and log 3",
            (torch.tensor([0.0, math.log(3)]),),
            math.log(2 / 3),
            "The result is the logarithm of the mean of e^{−m}.",
        ),
        value_case(
            "equal margins",
            "four margins of 5",
            (torch.full((4,), 5.0),),
            -5.0,
            "If all margins are equal, log Q is minus that margin.",
        ),
        value_case(
            "one image far wrong",
            "margins 0, −1000, 1000, 0",
            (torch.tensor([0.0, -1000.0, 1000.0, 0.0]),),
            1000 - math.log(4),
            "One very negative margin rules Q, and log Q is still a finite number.",
        ),
        value_case(
            "all far right",
            "margins 1000 and 1002",
            (torch.tensor([1000.0, 1002.0]),),
            -1000 + math.log((1 + math.exp(-2)) / 2),
            "Where every e^{−m} is too small for a float, log Q is still a finite number.",
        ),
        value_case(
            "300 images",
            "the true margins of 300 images with random logits in 10 classes",
            (my_margin(*_random_logits(300, 10, seed=1)),),
            _log_q_by_logsumexp,
            "The same definition holds for any number of images.",
        ),
    ),
    wrong=(
        WrongSolution(
            "exp first",
            _shifted_by(lambda exponent: 0.0),
            "Your formula is right on paper, but e^{1000} is more than a float can hold: it "
            "becomes inf, and e^{−1000} becomes 0, whose logarithm is −inf. Keep the exponents "
            "small before you exponentiate.",
        ),
        WrongSolution("sum instead of mean", _sum_for_mean, _SUM),
        WrongSolution(
            "sum instead of mean, exp first",
            lambda margin: (-margin).exp().sum().log(),
            _SUM + _OVERFLOWS,
        ),
        WrongSolution("mean of exp(+m)", lambda margin: my_log_q(-margin), _SIGN),
        WrongSolution(
            "mean of exp(+m), exp first",
            lambda margin: margin.exp().mean().log(),
            _SIGN + _OVERFLOWS,
        ),
        WrongSolution(
            "log and mean exchanged",
            lambda margin: -margin.mean(),
            "You averaged −m: logarithm and mean are exchanged. The log of a mean is at least the "
            "mean of the logs (Jensen), and the difference is exactly the tail that Q is for.",
        ),
        WrongSolution(
            "logarithm to base 10",
            lambda margin: my_log_q(margin) / math.log(10),
            "Your logarithm has base 10. Here log is the natural one, the inverse of exp.",
        ),
        WrongSolution(
            "logarithm to base 2",
            lambda margin: my_log_q(margin) / math.log(2),
            "Your logarithm has base 2. Here log is the natural one, the inverse of exp.",
        ),
        WrongSolution(
            "base 10, shifted in base e",
            lambda margin: -margin.min() + torch.exp(margin.min() - margin).mean().log10(),
            "You exponentiate with base e and take the logarithm with base 10 (`log10`): they do "
            "not undo each other.",
        ),
        WrongSolution(
            "Q instead of log Q",
            lambda margin: (-margin).exp().mean(),
            "This is Q itself. It does not fit into a float for margins of −1000; its logarithm "
            "does.",
        ),
        WrongSolution(
            "sign of the result",
            lambda margin: -my_log_q(margin),
            "You return −log Q. Large margins make Q small, and log Q negative.",
        ),
        WrongSolution(
            "worst image alone",
            lambda margin: -margin.min(),
            "You return the largest exponent alone. It comes close where one image rules, but the "
            "other images, and the n that the mean divides by, count as well.",
        ),
        WrongSolution(
            "shift not added back",
            _shifted_by(torch.max, add_back=False),
            "You shift the exponents and never undo it. e^{a} = e^{c} · e^{a − c}: what was taken "
            "out has to come back, in the logarithm as a sum.",
        ),
        WrongSolution(
            "shifted by the smallest",
            _shifted_by(torch.min),
            "You shift by the smallest exponent, so all the others are above 0 and can overflow. "
            "Which shift puts all of them at 0 or below?",
        ),
        WrongSolution(
            "shifted by the mean",
            _shifted_by(torch.mean),
            "You shift by the mean exponent. A single image far from the others still has an "
            "exponent of hundreds: shift by one that none exceeds.",
        ),
    ),
    hints=(
        "e^{−m} overflows, so it must never be formed. What can you take out of a sum of "
        "exponentials, as a common factor?",
        "For any c, log of the mean of e^{a_i} equals c plus the log of the mean of e^{a_i − c}. "
        "Choose c so that every exponent is at most 0 and one of them is exactly 0.",
        "`torch.logsumexp` does this for the sum. A mean is the sum divided by n: what does that "
        "become in the logarithm?",
    ),
    probes=(
        (torch.tensor([0.0, math.log(3)]),),
        (torch.tensor([0.0, -1000.0, 1000.0, 0.0]),),
        (torch.tensor([1000.0, 1002.0]),),
        (torch.tensor([-100.0, 0.0]),),  # e^100 overflows, e^50 does not
    ),
)


# --- 4. One step of projected gradient descent ---------------------------------------------------


def my_pgd_step(point, gradient, clean, step_size, epsilon):
    moved = point - step_size * gradient.sign()
    inside = torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon)
    return inside.clamp(0, 1)


def _into_ball(moved: Tensor, centre: Tensor, epsilon: float) -> Tensor:
    return centre + (moved - centre).clamp(-epsilon, epsilon)


def _into_l2_ball(moved: Tensor, centre: Tensor, epsilon: float) -> Tensor:
    change = moved - centre
    length = change.flatten(1).norm(dim=1).clamp(min=1e-12)
    return centre + change * (epsilon / length).clamp(max=1)[:, None, None, None]


def _step_along(direction_of):
    """A step as in the reference, except for its direction."""

    def wrong(point, gradient, clean, step_size, epsilon):
        moved = point + step_size * direction_of(gradient)
        return _into_ball(moved, clean, epsilon).clamp(0, 1)

    return wrong


def _step_ending(end):
    """A step as in the reference, up to what follows the move: end(moved, point, clean, ε)."""

    def wrong(point, gradient, clean, step_size, epsilon):
        return end(point - step_size * gradient.sign(), point, clean, epsilon)

    return wrong


def _unit_length(gradient: Tensor) -> Tensor:
    length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
    return -gradient / length[:, None, None, None]


def _pixels(*values: float) -> Tensor:
    """One image with a single row of pixels."""
    return torch.tensor(values)[None, None, None]


def _walk_reaches_the_corner(answer) -> Finding | None:
    generator = torch.Generator().manual_seed(5)
    clean = torch.rand(2, 1, 4, 4, generator=generator)
    gradient = torch.randn(2, 1, 4, 4, generator=generator)
    point = clean
    for _ in range(10):
        point = parts(answer(point, gradient, clean, 0.03, 0.1))[0].float()
    # The margin is linear, so its least value in ball and range is at a corner, known beforehand.
    corner = torch.where(gradient > 0, clean - 0.1, clean + 0.1).clamp(0, 1)
    distance = (point - corner).abs().max()
    if distance <= 1e-4:
        return None
    return Finding(
        f"a point that is {show(distance)} away, in its worst pixel, from where the walk should "
        "end",
        "When the gradient is the same everywhere, the walk ends in the corner of the ball (cut "
        "off at 0 and 1) that lowers the margin most, and stays there (to within 0.0001).",
    )


_START = (_pixels(0.5, 0.5, 0.5), _pixels(3.0, -0.01, 0.0), _pixels(0.5, 0.5, 0.5), 0.1, 0.2)
_UNDERWAY = (
    _pixels(0.55, 0.45, 0.58, 0.42),
    _pixels(2.0, 0.5, -0.1, -4.0),
    _pixels(0.5, 0.5, 0.5, 0.5),
    0.08,
    0.1,
)
_BLACK_AND_WHITE = (
    _pixels(0.02, 0.98, 0.02, 0.98),
    _pixels(1.0, -2.0, -1.0, 2.0),
    _pixels(0.0, 1.0, 0.05, 0.95),
    0.06,
    0.1,
)
_LONG = (_pixels(0.48, 0.52), _pixels(1.5, -0.2), _pixels(0.5, 0.5), 0.3, 0.06)

pgd_step = Exercise(
    lesson="02",
    name="pgd_step",
    title="One step of an attack",
    difficulty=3,
    importance=4,
    minutes=10,
    reference=my_pgd_step,
    cases=(
        value_case(
            "first step",
            "three pixels of 0.5, gradient (3, −0.01, 0); step 0.1, radius 0.2",
            _START,
            _pixels(0.4, 0.6, 0.5),
            "Each pixel moves by the step size so that the margin falls; one without gradient "
            "stays.",
        ),
        value_case(
            "near the rim of the ball",
            "pixels (0.55, 0.45, 0.58, 0.42) around a clean image of 0.5; gradient "
            "(2, 0.5, −0.1, −4); step 0.08, radius 0.1",
            _UNDERWAY,
            _pixels(0.47, 0.4, 0.6, 0.5),
            "The walk goes on from where it is, and no pixel is ever further than the radius from "
            "the clean image.",
        ),
        value_case(
            "black and white pixels",
            "pixels (0.02, 0.98, 0.02, 0.98), clean (0, 1, 0.05, 0.95); gradient (1, −2, −1, 2); "
            "step 0.06, radius 0.1",
            _BLACK_AND_WHITE,
            _pixels(0.0, 1.0, 0.08, 0.92),
            "The result is an image again: its pixels lie in [0, 1].",
        ),
        value_case(
            "a step longer than the radius",
            "pixels (0.48, 0.52), clean (0.5, 0.5); gradient (1.5, −0.2); step 0.3, radius 0.06",
            _LONG,
            _pixels(0.44, 0.56),
            "Whatever the step size, the result lies in the ball.",
        ),
        Case(
            "a walk of ten steps",
            "two random images, 4 × 4, of a linear margin; step 0.03, radius 0.1",
            _walk_reaches_the_corner,
        ),
    ),
    wrong=(
        WrongSolution(
            "uphill",
            _step_along(torch.sign),
            "You climb: the step raises the margin. That is the usual sign for an attack on the "
            "loss, which wants to go up; the margin has to go down.",
        ),
        WrongSolution(
            "gradient not signed",
            _step_along(torch.neg),
            "You step along the gradient itself. Its size differs by orders of magnitude between "
            "pixels; in this ball each pixel may move equally far, so only the sign counts.",
        ),
        WrongSolution(
            "gradient of unit length",
            _step_along(_unit_length),
            "You scale the gradient to length 1, the step for the L2 ball. In the L-infinity ball "
            "every pixel takes the whole step.",
        ),
        WrongSolution(
            "pixels without gradient move",
            _step_along(lambda gradient: torch.where(gradient > 0, -1.0, 1.0)),
            "Pixels whose gradient is 0 move as well. There the margin has no direction, and they "
            "stay: a change without effect is not part of an attack.",
        ),
        WrongSolution(
            "ball around the point",
            _step_ending(lambda moved, point, clean, e: _into_ball(moved, point, e).clamp(0, 1)),
            "Your ball is centred where the walk is, so it travels along, and after many steps "
            "the image may be anywhere. Its centre is the clean image.",
        ),
        WrongSolution(
            "ball forgotten",
            _step_ending(lambda moved, point, clean, e: moved.clamp(0, 1)),
            "You never go back into the ball. Without a radius, any image can become any other.",
        ),
        WrongSolution(
            "[0, 1] forgotten",
            _step_ending(lambda moved, point, clean, e: _into_ball(moved, clean, e)),
            "Some of your pixels leave [0, 1]. No image has them: darker than black, or brighter "
            "than white.",
        ),
        WrongSolution(
            "neither ball nor [0, 1]",
            _step_ending(lambda moved, point, clean, e: moved),
            "You step but never project: the result must lie in the ball around the clean image, "
            "and in [0, 1].",
        ),
        WrongSolution(
            "L2 ball",
            _step_ending(lambda moved, point, clean, e: _into_l2_ball(moved, clean, e).clamp(0, 1)),
            "You shrink the whole change until its length is the radius: that is the L2 ball. In "
            "the L-infinity ball each pixel is limited on its own.",
        ),
        WrongSolution(
            "from the clean image",
            lambda point, gradient, clean, step_size, epsilon: my_pgd_step(
                clean, gradient, clean, step_size, epsilon
            ),
            "Each of your steps starts again at the clean image, so a walk never gets beyond one "
            "step. It starts at `point`; `clean` is only the centre of the ball.",
        ),
        WrongSolution(
            "straight to the rim",
            lambda point, gradient, clean, step_size, epsilon: my_pgd_step(
                point, gradient, clean, epsilon, epsilon
            ),
            "Your step is as long as the radius. `epsilon` says how far the walk may get in all, "
            "`step_size` how far each step goes.",
        ),
        WrongSolution(
            "the change alone",
            lambda point, gradient, clean, step_size, epsilon: (
                my_pgd_step(point, gradient, clean, step_size, epsilon) - clean
            ),
            "You return the change of the clean image. The image itself is asked for, clean plus "
            "change.",
        ),
    ),
    hints=(
        "Three moves in a row: one step downhill, back into the ball around the clean image, back "
        "into [0, 1].",
        "`gradient.sign()` is −1, 0 or 1 in each pixel. The margin has to fall, so go against it.",
        "The L-infinity ball is an interval for each pixel, from clean − ε to clean + ε. "
        "`torch.clamp` accepts tensors as bounds, as `torch.maximum` and `torch.minimum` do.",
    ),
    probes=(_START, _UNDERWAY, _BLACK_AND_WHITE, _LONG),
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_worst = Prediction(
    "02",
    "predicted_worst",
    "The most wrong test image is wrong",
    ("by fewer logits than the median training image is right", "by more"),
)
predicted_share = Prediction(
    "02",
    "predicted_share",
    "Share of the test set's Q that its worst 1 % hold",
    unit="%",
    within=10,
)
predicted_turned = Prediction(
    "02",
    "predicted_turned",
    "Share of margins of at least 5 that an attack of 8/255 turns negative",
    unit="%",
    within=10,
)

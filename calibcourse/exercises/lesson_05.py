"""Exercises of lesson 05: Lemma B.2, one half in place of 1/K, rungs, a network without bias."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .framework import Case, Exercise, Finding, WrongSolution, array, number, show, value_case
from .predictions import Prediction

# --- 1. Lemma B.2, proved by computing -----------------------------------------------------------


def my_gap_and_rest(logits, target):
    p = torch.softmax(logits, dim=1)
    confidence, answer = p.max(dim=1)
    right = answer == target
    gap = (right.float() - confidence).abs()
    on_both = p.gather(1, answer[:, None])[:, 0] + p.gather(1, target[:, None])[:, 0]
    rest = torch.where(right, torch.zeros_like(gap), 1 - on_both)
    return gap, rest


def _with_parts(pair, dim=1):
    """A pair made from p, the confidence, p_y and whether the answer is right."""

    def wrong(logits, target):
        p = logits.softmax(dim=dim)
        confidence, answer = p.max(dim=1)
        true = p.gather(1, target[:, None])[:, 0]
        return pair(p, confidence, true, (answer == target).to(p.dtype))

    return wrong


def _rest(confidence: Tensor, true: Tensor, right: Tensor) -> Tensor:
    return (1 - right) * (1 - confidence - true)


def _by_definition(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The gap, and the bound less the gap, in float64."""
    p = logits.double().softmax(dim=1)
    right = (p.argmax(dim=1) == target).double()
    gap = (right - p.amax(dim=1)).abs()
    return gap, 1 - p.gather(1, target[:, None])[:, 0] - gap


def _random_logits(n: int, n_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, n_classes, generator=generator)
    return logits, torch.randint(n_classes, (n,), generator=generator)


def _log_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


_B2 = ("gap", "rest")
_RIGHT = (_log_of(0.7, 0.2, 0.1), torch.tensor([0]))
_WRONG = (_log_of(0.7, 0.2, 0.1), torch.tensor([1]))

gap = Exercise(
    lesson="05",
    name="gap",
    title="Lemma B.2, proved by computing",
    difficulty=2,
    importance=5,
    minutes=10,
    reference=my_gap_and_rest,
    cases=(
        value_case(
            "a right answer",
            "probabilities 0.7, 0.2, 0.1; label 0",
            _RIGHT,
            ([0.3], [0.0]),
            "Where the answer is right, the gap is 1 − p_y itself, and nothing is left.",
            names=_B2,
        ),
        value_case(
            "a wrong answer",
            "probabilities 0.7, 0.2, 0.1; label 1",
            _WRONG,
            ([0.7], [0.1]),
            "Where the answer is wrong, the gap is the confidence; what is left of 1 − p_y is the "
            "mass on the classes that are neither label nor answer.",
            names=_B2,
        ),
        value_case(
            "two classes",
            "probabilities 0.9 and 0.1, twice; labels 0 and 1",
            (torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log(), torch.tensor([0, 1])),
            ([0.1, 0.9], [0.0, 0.0]),
            "With two classes no third one is there to hold any mass.",
            names=_B2,
        ),
        value_case(
            "300 images",
            "300 images with random logits in 10 classes, and random labels",
            _random_logits(300, 10, seed=1),
            _by_definition,
            "Gap and rest add up to 1 − p_y on every image.",
            names=_B2,
        ),
    ),
    wrong=(
        WrongSolution(
            "gap without looking",
            _with_parts(lambda p, c, true, right: (1 - c, _rest(c, true, right))),
            "Your gap is 1 − c on every image, as if every answer were right. A wrong answer has "
            "the indicator 0, and its gap is c.",
        ),
        WrongSolution(
            "signed gap",
            _with_parts(lambda p, c, true, right: (right - c, _rest(c, true, right))),
            "Your gap has a sign. Over- and under-confidence both count: the lemma bounds the "
            "absolute value.",
        ),
        WrongSolution(
            "p_y for the confidence",
            _with_parts(lambda p, c, true, right: (1 - true, _rest(c, true, right))),
            "Your gap is 1 − p_y, which is the bound. The gap compares the confidence, the largest "
            "probability, with whether the answer is right; it needs the label only for that.",
        ),
        WrongSolution(
            "rest also where right",
            _with_parts(lambda p, c, true, right: ((right - c).abs(), 1 - c - (1 - right) * true)),
            "Your rest is not 0 where the answer is right. Label and answer are then one class, "
            "and all the mass off it is already in the gap.",
        ),
        WrongSolution(
            "label and answer counted twice",
            _with_parts(lambda p, c, true, right: ((right - c).abs(), 1 - c - true)),
            "Where label and answer are the same class, you take its probability away twice: the "
            "rest becomes negative there.",
        ),
        WrongSolution(
            "the bound for the rest",
            _with_parts(lambda p, c, true, right: ((right - c).abs(), 1 - true)),
            "Your second value is the bound 1 − p_y. Asked for is what the lemma gives away: the "
            "bound less the gap.",
        ),
        WrongSolution(
            "order reversed",
            lambda logits, target: my_gap_and_rest(logits, target)[::-1],
            "Your two values are in the other order: the gap comes first.",
        ),
        WrongSolution(
            "softmax twice",
            lambda logits, target: my_gap_and_rest(logits.softmax(dim=1), target),
            "You take the softmax of probabilities. That pushes all of them towards 1/K: take it "
            "once, of the logits.",
        ),
        WrongSolution(
            "softmax over the images",
            _with_parts(
                lambda p, c, true, right: ((right - c).abs(), _rest(c, true, right)), dim=0
            ),
            "Your softmax runs over the images (dim 0). The probabilities of one image, one row, "
            "add up to 1.",
        ),
        WrongSolution(
            "mean over the images",
            lambda logits, target: tuple(x.mean() for x in my_gap_and_rest(logits, target)),
            "You average over the images. The lemma holds image by image: one value each.",
        ),
    ),
    hints=(
        "Two kinds of images. Where the answer is right, the gap is 1 − c and c is p_y. Where it "
        "is wrong, the gap is c.",
        "Right: nothing of 1 − p_y is left over. Wrong: label and answer are two different "
        "classes; how much mass is on neither?",
        "`p.max(dim=1)` gives confidence and answer at once, `gather` the probability of the "
        "label, and `torch.where(right, …, …)` chooses between the two kinds.",
    ),
    probes=(_RIGHT, _WRONG, _random_logits(12, 5, seed=2)),
)


# --- 2. One half in place of 1/K -----------------------------------------------------------------


def my_ece_lower(margin):
    gamma = margin.min()
    if gamma <= 0:
        return float("nan")  # some answer is wrong: nothing is promised
    return torch.exp(-margin).mean() / (1 + torch.exp(-gamma))


def _interpolating(bound):
    """A bound that knows when it applies."""
    return lambda margin: bound(margin) if margin.min() > 0 else float("nan")


def _q(margin: Tensor) -> Tensor:
    return torch.exp(-margin).mean()


def _never_above_ece(answer) -> Finding | None:
    """Logits with one rival level with the margin and all others far below: ECE is mean σ(-m)."""
    for margin in (torch.full((5,), 0.01), torch.tensor([3.0, 0.2, 5.0]), torch.full((3,), 8.0)):
        found = number(answer(margin))
        ece = torch.sigmoid(-margin).mean().item()  # one rival: 1 - c, and every answer is right
        if found > ece * (1 + 1e-4):
            return Finding(
                f"{show(found)} for margins {show(margin)}",
                f"No lower bound exceeds what it bounds. With two classes ECE is {show(ece)} here.",
            )
    return None


_THREE_IMAGES = (torch.tensor([4.0, 2.0, 8.0]).log(),)
_MIXED = (torch.tensor([2.0, -1.0, 3.0]),)
_TIED = (torch.tensor([0.0, 1.0]),)
_SPREAD = (torch.tensor([1.0, 0.3, 2.5, 4.0]),)

ece_lower = Exercise(
    lesson="05",
    name="ece_lower",
    title="One half in place of 1/K",
    difficulty=3,
    importance=4,
    minutes=12,
    reference=my_ece_lower,
    cases=(
        value_case(
            "three images",
            "margins log 4, log 2 and log 8",
            _THREE_IMAGES,
            7 / 36,
            "Every image obeys e^{−m}/(1 + e^{−m}) ≤ 1 − p_y; put the smallest margin into the "
            "denominator, and the mean of the numerators is Q.",
        ),
        value_case(
            "one image",
            "one margin, log 3",
            (torch.tensor([math.log(3)]),),
            0.25,
            "With a single image, the bound is that of the image.",
        ),
        Case(
            "never above ECE",
            "margins of images in two classes, all answers right; ECE is then known exactly",
            _never_above_ece,
        ),
        value_case(
            "a wrong answer among them",
            "margins 2, −1 and 3",
            _MIXED,
            float("nan"),
            "Where the theorem does not apply, the result is nan: no number is promised.",
        ),
        value_case(
            "a tie",
            "margins 0 and 1",
            _TIED,
            float("nan"),
            "γ must be above 0: at a tie, the answer may be wrong.",
        ),
    ),
    wrong=(
        WrongSolution(
            "the paper's 1/K",
            _interpolating(lambda m: _q(m) / 10),
            "This is the paper's Q/K, true but weaker. It makes the denominator of B.3 as large as "
            "it can be with K classes, although numerator and denominator hold the same S_y.",
        ),
        WrongSolution(
            "Q/2",
            _interpolating(lambda m: _q(m) / 2),
            "Q/2 is true, and close. But margins are at least γ here: how large can 1 + e^{−m} be?",
        ),
        WrongSolution(
            "mean of σ(−m)",
            _interpolating(lambda m: torch.sigmoid(-m).mean()),
            "You average the bound of each image. That is true, and even sharper, but it is "
            "another function of the margins: asked for is a constant times Q, so that ECE and Q "
            "bound each other.",
        ),
        WrongSolution(
            "mean margin for γ",
            _interpolating(lambda m: _q(m) / (1 + torch.exp(-m.mean()))),
            "You use the mean margin. The denominator must be large enough for every image, the "
            "one with the smallest margin too.",
        ),
        WrongSolution(
            "largest margin for γ",
            _interpolating(lambda m: _q(m) / (1 + torch.exp(-m.max()))),
            "You use the largest margin. The denominator is then too small for all other images, "
            "and the bound may exceed ECE.",
        ),
        WrongSolution(
            "first margin for γ",
            lambda m: _q(m) / (1 + torch.exp(-m[0])) if m[0] > 0 else float("nan"),
            "You use the first margin. γ is the smallest of them, wherever it stands.",
        ),
        WrongSolution(
            "the worst image alone",
            _interpolating(lambda m: torch.sigmoid(-m.min())),
            "You bound the error probability of the worst image. The calibration error is a mean: "
            "most images are better than that.",
        ),
        WrongSolution(
            "no denominator",
            _interpolating(_q),
            "You return Q. One image in two classes with margin log 2 has Q = 1/2, but 1 − p_y is "
            "1/3: S_y/(1 + S_y), not S_y.",
        ),
        WrongSolution(
            "assumption forgotten",
            lambda m: _q(m) / (1 + torch.exp(-m.min())),
            "You do not look whether the theorem applies. With a wrong answer, ECE may be 0 while "
            "Q is large: return nan where γ is not above 0.",
        ),
        WrongSolution(
            "a tie let through",
            lambda m: _q(m) / (1 + torch.exp(-m.min())) if m.min() >= 0 else float("nan"),
            "You let γ = 0 through. At a tie the first class wins, and that may be the wrong one: "
            "the theorem wants γ > 0.",
        ),
        WrongSolution(
            "upper bound",
            _interpolating(lambda m: 9 * _q(m)),
            "This is the upper bound (K − 1) Q. Asked for is what ECE is at least.",
        ),
        WrongSolution(
            "sign of γ",
            _interpolating(lambda m: _q(m) / (1 + torch.exp(m.min()))),
            "You have the sign of γ reversed: for large margins the factor must tend to 1, not "
            "to 0.",
        ),
    ),
    hints=(
        "Start from one image: 1 − p_y ≥ e^{−m}/(1 + e^{−m}). Which image has the largest "
        "denominator?",
        "Replace every denominator by the largest one, 1 + e^{−γ} with γ the smallest margin; "
        "then average.",
        "And look first whether γ is above 0: if it is not, return `float('nan')`.",
    ),
    probes=(_THREE_IMAGES, _MIXED, _TIED, _SPREAD),
)


# --- 3. Three rungs ------------------------------------------------------------------------------


def my_rungs(grams, hessians):
    size = torch.linalg.eigvalsh(grams)[:, -1]
    bend = torch.linalg.eigvalsh(hessians)[:, -1]
    together = torch.linalg.eigvals(grams @ hessians).real.amax(dim=1)
    return together.mean(), (size * bend).mean(), size.max() * bend.mean()


def _of_sizes(rungs):
    """Rungs from ‖J‖², λ_max(H) and λ_max(Jᵀ H J) of each image."""

    def wrong(grams, hessians):
        size = torch.linalg.eigvalsh(grams)[:, -1]
        bend = torch.linalg.eigvalsh(hessians)[:, -1]
        return rungs(size, bend, torch.linalg.eigvals(grams @ hessians).real.amax(dim=1))

    return wrong


def _symmetric_routine(grams, hessians):
    size = torch.linalg.eigvalsh(grams)[:, -1]
    bend = torch.linalg.eigvalsh(hessians)[:, -1]
    together = torch.linalg.eigvalsh(grams @ hessians)[:, -1]
    return together.mean(), (size * bend).mean(), size.max() * bend.mean()


def _first_of_product(grams, hessians):
    _, second, third = my_rungs(grams, hessians)
    return torch.linalg.eigvals(grams @ hessians).real[:, 0].mean(), second, third


def _by_traces(grams, hessians):
    size, bend = (m.diagonal(dim1=1, dim2=2).sum(1) for m in (grams, hessians))
    together = (grams * hessians).sum((1, 2))
    return together.mean(), (size * bend).mean(), size.max() * bend.mean()


def _of_means(grams, hessians):
    return my_rungs(grams.mean(0, keepdim=True), hessians.mean(0, keepdim=True))


def _images(n: int, n_classes: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Gram matrices J Jᵀ and logit Hessians of n images."""
    generator = torch.Generator().manual_seed(seed)
    jacobians = torch.randn(n, n_classes, d, generator=generator)
    p = (2 * torch.randn(n, n_classes, generator=generator)).softmax(1)
    return jacobians @ jacobians.mT, torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def _from_jacobians(n: int, n_classes: int, d: int, seed: int) -> list[float]:
    """The same three numbers from d × d matrices, in float64."""
    generator = torch.Generator().manual_seed(seed)
    jacobians = torch.randn(n, n_classes, d, generator=generator).double()
    hessians = _images(n, n_classes, d, seed)[1].double()
    together = torch.linalg.eigvalsh(jacobians.mT @ hessians @ jacobians)[:, -1]
    size = torch.linalg.matrix_norm(jacobians, ord=2).square()
    bend = torch.linalg.matrix_norm(hessians, ord=2)
    return [together.mean().item(), (size * bend).mean().item(), (size.max() * bend.mean()).item()]


def _pair(*sizes: float) -> tuple[Tensor, Tensor]:
    """Images in two classes with J Jᵀ = size · I; p = (1/2, 1/2), then (9/10, 1/10)."""
    bend = torch.tensor([0.25, 0.09])[: len(sizes), None, None]
    grams = torch.tensor(sizes)[:, None, None] * torch.eye(2)
    return grams, bend * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])


# J's longest direction is the one that H does not see.
_ALIGNED = (
    torch.tensor([[[5.0, 4.0], [4.0, 5.0]]]),
    torch.tensor([[[0.25, -0.25], [-0.25, 0.25]]]),
)

# Uncertain between two classes in which J is short; LAPACK lists the eigenvalues in no order.
_SHORT_WHERE_UNSURE = (
    torch.diag(torch.tensor([1.0, 1.0, 30.0, 30.0]))[None],
    (lambda p: (torch.diag(p) - p[:, None] * p)[None])(torch.tensor([0.45, 0.45, 0.05, 0.05])),
)

rungs = Exercise(
    lesson="05",
    name="rungs",
    title="Three rungs of the ladder",
    difficulty=4,
    importance=4,
    minutes=20,
    reference=my_rungs,
    cases=(
        value_case(
            "one image",
            "one image in two classes, p = (1/2, 1/2), J Jᵀ = 3 I",
            _pair(3.0),
            (1.5, 1.5, 1.5),
            "H has the eigenvalue 1/2, and J stretches all directions alike: no rung loses "
            "anything.",
        ),
        value_case(
            "a direction that H does not see",
            "one image, p = (1/2, 1/2), J Jᵀ = ((5, 4), (4, 5)) with eigenvalues 9 and 1",
            _ALIGNED,
            (0.5, 4.5, 4.5),
            "J is longest along (1, 1), where H is 0. u1 knows that, u2 does not.",
        ),
        value_case(
            "a sure and an unsure image",
            "J Jᵀ = 1 I with p = (1/2, 1/2), and J Jᵀ = 10 I with p = (9/10, 1/10)",
            _pair(1.0, 10.0),
            (1.15, 1.15, 3.4),
            "u3 lets the longest Jacobian meet the mean Hessian; u2 pairs each with its own.",
        ),
        value_case(
            "four classes",
            "one image, p = (0.45, 0.45, 0.05, 0.05), J Jᵀ diagonal with entries 1, 1, 30, 30",
            _SHORT_WHERE_UNSURE,
            (1.5, 13.5, 13.5),
            "The largest eigenvalue counts, wherever a routine lists it.",
        ),
        value_case(
            "20 images",
            "20 images in 5 classes with random Jacobians (12 parameters) and random logits",
            _images(20, 5, 12, seed=0),
            lambda grams, hessians: _from_jacobians(20, 5, 12, seed=0),
            "u1 agrees with the d × d matrices Jᵀ H J, which you never formed.",
            tolerance=1e-3,
        ),
    ),
    wrong=(
        WrongSolution(
            "symmetric routine on a product",
            _symmetric_routine,
            "You call `eigvalsh` on J Jᵀ H. A product of symmetric matrices is not symmetric, and "
            "the routine reads one triangle and never tells. Use one for general matrices.",
        ),
        WrongSolution(
            "first eigenvalue of the product",
            _first_of_product,
            "You take the first eigenvalue of J Jᵀ H. A routine for general matrices lists them in "
            "no order: ask for the largest.",
        ),
        WrongSolution(
            "trace for the top eigenvalue",
            _by_traces,
            "You take traces, the sums of all eigenvalues. The rungs are about the largest one.",
        ),
        WrongSolution(
            "averaged first",
            _of_means,
            "You average the matrices and then take eigenvalues. The mean of the largest "
            "eigenvalues is larger than the largest eigenvalue of a mean: that inequality is the "
            "rung.",
        ),
        WrongSolution(
            "square root of the Gram matrix",
            _of_sizes(lambda s, b, t: (t.mean(), (s.sqrt() * b).mean(), s.sqrt().max() * b.mean())),
            "You take the norm of J, not its square. J stands on both sides of H.",
        ),
        WrongSolution(
            "square of the Gram matrix",
            _of_sizes(lambda s, b, t: (t.mean(), (s**2 * b).mean(), (s**2).max() * b.mean())),
            "You square the eigenvalue of J Jᵀ. It is ‖J‖² already.",
        ),
        WrongSolution(
            "largest product for u3",
            _of_sizes(lambda s, b, t: (t.mean(), (s * b).mean(), (s * b).max())),
            "Your u3 is the worst image's product. Only the Jacobian is replaced by its largest "
            "value; the Hessians are still averaged.",
        ),
        WrongSolution(
            "both largest for u3",
            _of_sizes(lambda s, b, t: (t.mean(), (s * b).mean(), s.max() * b.max())),
            "Your u3 takes the largest Jacobian and the largest Hessian. The Hessians are still "
            "averaged.",
        ),
        WrongSolution(
            "product of means for u2",
            _of_sizes(lambda s, b, t: (t.mean(), s.mean() * b.mean(), s.max() * b.mean())),
            "Your u2 multiplies two means. Image by image, a long Jacobian may meet a large "
            "Hessian: then the mean of the products is larger, and yours is no bound.",
        ),
        WrongSolution(
            "u1 as u2",
            _of_sizes(lambda s, b, t: ((s * b).mean(), (s * b).mean(), s.max() * b.mean())),
            "Your u1 is u2. u1 keeps J and H together: the largest eigenvalue of Jᵀ H J, also "
            "where the longest direction of J is one that H does not see.",
        ),
        WrongSolution(
            "sum instead of mean",
            _of_sizes(lambda s, b, t: (t.sum(), (s * b).sum(), s.max() * b.sum())),
            "You add the images up. G is a mean over images, and so are its bounds.",
        ),
        WrongSolution(
            "order reversed",
            lambda grams, hessians: my_rungs(grams, hessians)[::-1],
            "Your rungs are in the other order: u1, the tightest, comes first.",
        ),
    ),
    hints=(
        "‖J‖² is the largest eigenvalue of J Jᵀ, which is `grams`; `torch.linalg.eigvalsh` works "
        "on a whole stack of symmetric matrices and sorts ascending.",
        "For u1: A B and B A have the same non-zero eigenvalues. Write Jᵀ H J as Jᵀ times (H J) "
        "and turn it round.",
        "J Jᵀ H is K × K but not symmetric: `torch.linalg.eigvals`, then `.real` (they are real), "
        "then the largest of each image.",
    ),
    probes=(_ALIGNED, _pair(1.0, 10.0), _images(6, 4, 9, seed=3), _SHORT_WHERE_UNSURE),
)


# --- 4. A network that escapes l4 ----------------------------------------------------------------


def my_small_features(weight):
    n_classes, width = weight.shape
    features = torch.ones(1, width)
    return 0.1 * features / (features.norm() * n_classes**0.5)


def _escape(weight: Tensor):
    """Whether λ_max(G) of the last layer lies below u/(K-1), with features of the learner's."""

    def check(answer) -> Finding | None:
        returned = answer(weight)
        features = array(returned)
        width = weight.shape[1]
        if features.ndim != 2 or features.shape[1] != width or not len(features):
            wanted = f"Features have shape (N, {width}): one row per image, no column for a bias."
            return Finding(show(returned), wanted)
        if not torch.isfinite(features).all():
            return Finding(show(returned), "Features are finite numbers.")
        curvature, bound = _curvature_and_l4(features, weight.double())
        if curvature < bound:
            return None
        return Finding(
            f"λ_max(G) = {show(curvature)} and u/(K − 1) = {show(bound)}",
            "λ_max(G) lies below u/(K − 1), where a bias would not let it go.",
        )

    return check


def _curvature_and_l4(features: Tensor, weight: Tensor) -> tuple[float, float]:
    """λ_max of the mean of H_i ⊗ a_i a_iᵀ, and u/(K-1)."""
    p = (features @ weight.T).softmax(1)
    hessians = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    size = weight.numel()
    blocks = torch.einsum("nkl,ni,nj->kilj", hessians, features, features) / len(features)
    curvature = torch.linalg.eigvalsh(blocks.reshape(size, size))[-1].item()
    rivals = p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)  # 1 - p_max, without cancellation
    return curvature, rivals.mean().item() / (len(weight) - 1)


def _weights(n_classes: int, width: int, scale: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_classes, width, generator=generator)


def _kind_of_features(features: Tensor) -> Tensor:
    """What matters of an answer: its shape and which side of two sizes it is on."""
    norm = features.norm(dim=-1).max() if features.numel() else torch.tensor(0.0)
    size = float(norm >= 0.2) + float(norm >= 100)
    columns = features.shape[-1] if features.ndim else 0
    return torch.tensor([float(features.ndim), float(columns), size])


def _sized(norm: float):
    def wrong(weight):
        return norm * F.normalize(torch.ones(1, weight.shape[1]), dim=1)

    return wrong


escape = Exercise(
    lesson="05",
    name="escape",
    title="A network that escapes l4",
    difficulty=3,
    importance=4,
    minutes=12,
    reference=my_small_features,
    cases=(
        Case(
            "a network that knows nothing",
            "3 classes, 2 features, all weights 0: every probability is 1/3",
            _escape(torch.zeros(3, 2)),
        ),
        Case(
            "ten classes",
            "10 classes, 20 features, random weights",
            _escape(_weights(10, 20, 1.0, seed=0)),
        ),
        Case(
            "large weights",
            "10 classes, 5 features, random weights of size 30",
            _escape(_weights(10, 5, 30.0, seed=1)),
        ),
    ),
    wrong=(
        WrongSolution(
            "ordinary features",
            _sized(3.0),
            "Your features are of ordinary size, and curvature grows with the square of their "
            "length: λ_max(G) is about ‖a‖² times that of the Hessian. Which length makes it "
            "small?",
        ),
        WrongSolution(
            "huge features",
            _sized(1000.0),
            "Huge features make the network sure, so λ_max(G) falls; but u, the misconfidence, "
            "falls with it, and G gains the factor ‖a‖². It is the ratio of the two that counts.",
        ),
        WrongSolution(
            "a 1 appended",
            lambda weight: torch.cat([my_small_features(weight), torch.ones(1, 1)], dim=1),
            "You appended a 1 to the features. That is the bias you were to leave out, and with it "
            "the bound holds.",
        ),
        WrongSolution(
            "one image as a vector",
            lambda weight: my_small_features(weight)[0],
            "You return a vector. Features have one row per image, also for a single image.",
        ),
        WrongSolution(
            "one column per class",
            lambda weight: torch.full((1, len(weight)), 0.01),
            "Your rows have one entry per class. Those are logits; features are what the last "
            "layer multiplies, one entry per column of `weight`.",
        ),
    ),
    hints=(
        "G is the mean of H_i ⊗ (a_i a_iᵀ). What happens to λ_max(G) if every feature vector is "
        "multiplied by a number t below 1, and what happens to u?",
        "λ_max(G) ≤ max ‖a‖² · mean λ_max(H) ≤ 2 max ‖a‖² u (the rungs u3 and u4). The bound fails "
        "as soon as that is below u/(K − 1).",
        "One image is enough, whatever the weights: any row of `weight.shape[1]` entries whose "
        "length is well below 1/√(2(K − 1)).",
    ),
    probes=((torch.zeros(3, 2),), (_weights(10, 20, 1.0, seed=0),), (_weights(4, 6, 1.0, seed=2),)),
    canonical=_kind_of_features,
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_rest = Prediction(
    "05",
    "predicted_rest",
    "What B.2 leaves over",
    ("nothing, ever", "nothing where right, something where wrong", "something everywhere"),
)
predicted_step = Prediction(
    "05",
    "predicted_step",
    "The step that loses most, on test images at the end: that to",
    ("u1", "u2", "u3", "u4", "u5", "u6"),
)
predicted_band = Prediction(
    "05",
    "predicted_band",
    "Where the band of ECE closes by the end",
    ("on both splits", "on training images only", "on test images only", "on neither"),
)
predicted_width = Prediction(
    "05",
    "predicted_width",
    "Upper over lower side, at the median probe on training images",
    factor=10,
)

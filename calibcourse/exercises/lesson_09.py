"""Exercises of lesson 09: tie or difference, a hidden class, a split, what is not to be said."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._values import difference as how_it_differs
from .framework import Case, Exercise, Finding, WrongSolution, array, show, value_case
from .predictions import Prediction

# --- 1. A tie or a difference --------------------------------------------------------------------


def my_verdict(in_noise, difference, resampled):
    half = 1.96 * (resampled[:, 0] - resampled[:, 1]).std()
    if in_noise.all() or abs(difference) <= half:
        return 0
    return 1 if difference > 0 else -1


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _paired(resampled: Tensor) -> float:
    return 1.96 * float((resampled[:, 0] - resampled[:, 1]).std())


def _judging(tied_by_noise: Callable = Tensor.all, half: Callable = _paired, sign: int = 1):
    """A verdict as in the reference, with one of its rules replaced."""

    def verdict(in_noise, difference, resampled):
        tie = bool(tied_by_noise(in_noise)) or abs(difference) <= half(resampled)
        return 0 if tie else sign * _sign(difference)

    return verdict


def _overlap(in_noise, difference, resampled):
    middle, reach = resampled.mean(0), 1.96 * resampled.std(0)
    apart = (middle[0] - middle[1]).abs() > reach.sum()
    return _sign(difference) if apart and not in_noise.all() else 0


def _resamples(difference: float, shared: float, own: float, n: int = 400) -> Tensor:
    """(n, 2) made-up ECEs: luck that both share, and a difference that swings normally by `own`."""
    steps = torch.arange(n, dtype=torch.float64)
    common = shared * (2 * (steps % 4 < 2) - 1)
    swing = own * torch.special.ndtri((steps + 0.5) / n)
    return torch.stack([0.06 + common + difference + swing / 2, 0.06 + common - swing / 2], 1)


def _noise(first: bool, second: bool) -> Tensor:
    return torch.tensor([first, second])


# The standard deviation of the differences is 0.99 own, and their percentiles say the same.
_TOGETHER = (_noise(False, False), 0.03, _resamples(0.03, 0.01, 0.0))
_BOTH_IN_NOISE = (_noise(True, True), 0.012, _resamples(0.012, 0.004, 0.001))
_ONE_IN_NOISE = (_noise(True, False), -0.03, _resamples(-0.03, 0.004, 0.01))
_SHARED_LUCK = (_noise(False, False), 0.02, _resamples(0.02, 0.05, 0.008))
_NEARLY = (_noise(False, False), -0.018, _resamples(-0.018, 0.004, 0.01))
_JUST = (_noise(False, True), 0.022, _resamples(0.022, 0.03, 0.01))
_TWICE = (_noise(False, False), 0.0, _resamples(0.0, 0.01, 0.0))


def _pairs(seed: int) -> tuple[Tensor, float, Tensor]:
    """Normal luck, shared and own; the difference is nowhere near the end of its interval."""
    generator = torch.Generator().manual_seed(seed)
    draws = 0.01 * torch.randn(200, 3, generator=generator, dtype=torch.float64)
    draws -= draws.mean(0)
    reach = 1.96 * float((draws[:, 0] - draws[:, 1]).std())
    size = (0.8, 1.2, 0.3, 2.0)[seed % 4] * (-1) ** (seed // 4)
    resampled = 0.05 + draws[:, :2] + draws[:, 2:]
    resampled[:, 0] += size * reach
    return torch.rand(2, generator=generator) < 0.5, size * reach, resampled


def _follows_the_rule(answer) -> Finding | None:
    for seed in range(30):
        in_noise, difference, resampled = _pairs(seed)
        gaps = [a - b for a, b in resampled.tolist()]
        middle = sum(gaps) / len(gaps)
        spread = math.sqrt(sum((gap - middle) ** 2 for gap in gaps) / (len(gaps) - 1))
        tie = all(in_noise.tolist()) or abs(difference) <= 1.96 * spread
        returned = answer(in_noise, difference, resampled)
        fault = how_it_differs(returned, 0 if tie else _sign(difference), 1e-6)
        if fault:
            return Finding(
                f"{show(returned)} for pair {seed + 1} of 30",
                "A tie where both lie in the noise or the paired interval of 95 % holds 0; else "
                "the sign of the difference.",
            )
    return None


verdict = Exercise(
    lesson="09",
    name="verdict",
    title="A tie or a difference",
    difficulty=3,
    importance=5,
    minutes=12,
    reference=my_verdict,
    cases=(
        value_case(
            "the same luck for both",
            "neither ECE is in its noise; the difference is 0.03, and 0.03 in every resample",
            _TOGETHER,
            1,
            "A difference that no resample moves is one.",
        ),
        value_case(
            "both in the noise",
            "both ECEs lie in the band of a calibrated network; the difference is 0.012, steady "
            "over the resamples",
            _BOTH_IN_NOISE,
            0,
            "Of two networks that may both be calibrated, neither is the worse one.",
        ),
        value_case(
            "one in the noise",
            "the first alone lies in its noise; the difference is −0.03, its resamples swing by "
            "0.01",
            _ONE_IN_NOISE,
            -1,
            "One network in the noise and one far above it differ.",
        ),
        value_case(
            "shared luck",
            "neither is in its noise; both ECEs swing by 0.05, always together; their difference "
            "is 0.02 and swings by 0.008",
            _SHARED_LUCK,
            1,
            "Images that are hard for both move both ECEs, and leave the difference alone.",
        ),
        value_case(
            "not quite enough",
            "neither is in its noise; the difference is −0.018 and swings by 0.01",
            _NEARLY,
            0,
            "The interval of 95 % around this difference holds 0.",
        ),
        value_case(
            "the same network twice",
            "neither is in its noise; all differences are 0",
            _TWICE,
            0,
            "A network ties with itself.",
        ),
        Case("thirty pairs", "made-up networks, 200 resamples each", _follows_the_rule),
    ),
    wrong=(
        WrongSolution(
            "the larger number is worse",
            lambda in_noise, difference, resampled: _sign(difference),
            "You go by the sign alone. Two calibrated networks have different ECEs too, and so has "
            "one network on two sets of images.",
        ),
        WrongSolution(
            "noise ignored",
            _judging(lambda in_noise: False),
            "You look at the interval alone. An ECE inside the noise floor is what a calibrated "
            "network shows; a steady difference of two such numbers is no miscalibration.",
        ),
        WrongSolution(
            "one in the noise is enough",
            _judging(Tensor.any),
            "You call it a tie as soon as one ECE is in its noise. The other may lie far above.",
        ),
        WrongSolution(
            "interval ignored",
            _judging(half=lambda resampled: 0.0),
            "You look at the noise floor alone. Of two miscalibrated networks the one with the "
            "larger ECE may be so by the luck of these images: ask the resamples.",
        ),
        WrongSolution(
            "two intervals that overlap",
            _overlap,
            "You ask whether the two networks' own intervals overlap. Both were read on the same "
            "images, and share their luck: take the difference first, resample by resample.",
        ),
        WrongSolution(
            "two intervals that overlap, noise ignored",
            lambda in_noise, difference, resampled: (
                _overlap(~in_noise, difference, resampled)
                or _overlap(in_noise, difference, resampled)
            ),
            "You go by the two networks' own intervals alone. Two ECEs in the noise tie, however "
            "narrow those are; and two that share the luck of the same images can differ though "
            "they overlap.",
        ),
        WrongSolution(
            "variances added",
            _judging(half=lambda r: 1.96 * float(r.std(0).norm())),
            "You add the variances, as for two independent sets of images. These are the same "
            "images: what is hard for both cancels in the difference.",
        ),
        WrongSolution(
            "divided by the root of the resamples",
            _judging(half=lambda r: _paired(r) / math.sqrt(len(r))),
            "You divide by the square root of the number of resamples. Their standard deviation "
            "*is* the uncertainty already; more resamples are no more images.",
        ),
        WrongSolution(
            "one standard deviation",
            _judging(half=lambda r: _paired(r) / 1.96),
            "You allow one standard deviation: an interval of 68 %. In one comparison of three you "
            "would see a difference where there is none.",
        ),
        WrongSolution(
            "an interval of 90 %",
            _judging(half=lambda r: _paired(r) * 1.645 / 1.96),
            "Your interval covers 90 %. For 95 % it has to reach further.",
        ),
        WrongSolution(
            "the other one",
            _judging(sign=-1),
            "Your verdict names the other network: the difference is first less second, and the "
            "larger ECE is the worse.",
        ),
    ),
    hints=(
        "Two reasons for a tie, either of which is enough. One is about each network by itself, "
        "one about the two on the same images.",
        "In each resample, subtract: that gives one difference per row. How far do these "
        "differences scatter?",
        "About 95 % of a normal distribution lie within 1.96 standard deviations. Compare the "
        "absolute difference with that; if it is larger, its sign is the verdict.",
    ),
    probes=(
        _TOGETHER,
        _BOTH_IN_NOISE,
        _ONE_IN_NOISE,
        _SHARED_LUCK,
        _NEARLY,
        _JUST,
        (_noise(False, False), 0.012, _resamples(0.012, 0.0, 0.01)),
        (_noise(False, False), 0.0005, _resamples(0.0005, 0.0, 0.01)),
        (_noise(True, True), 0.05, _resamples(0.05, 0.004, 0.001)),
        (_noise(False, False), 0.022, _resamples(0.022, 0.02, 0.008)),
        *map(_pairs, range(6)),
    ),
)


# --- 2. The class that the average hides ---------------------------------------------------------


def my_hidden_class(logits, target):
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    excess = confidence - (predicted == target).float()
    total = torch.bincount(predicted, excess)
    chance = torch.bincount(predicted, confidence * (1 - confidence)).sqrt()
    hidden = (total / chance).abs().nan_to_num().argmax()
    return hidden, total[hidden] / torch.bincount(predicted)[hidden]


def _sums(logits: Tensor, target: Tensor, by_label: bool = False) -> tuple[Tensor, ...]:
    """Per class: samples, summed confidence - right, its standard deviation by chance, right."""
    confidence, predicted = logits.softmax(1).max(1)
    right = (predicted == target).float()
    of, n = (target if by_label else predicted), logits.shape[1]
    variance = torch.bincount(of, confidence * (1 - confidence), n)
    sums = (torch.bincount(of, x, n) for x in (confidence - right, right))
    total, n_right = sums
    return torch.bincount(of, minlength=n), total, variance.sqrt(), n_right


def _class_where(score: Callable, value: Callable | None = None, by_label: bool = False):
    """The class of the largest score(count, total, chance, n_right); NaN counts as nothing."""

    def wrong(logits, target):
        count, total, chance, n_right = _sums(logits, target, by_label)
        hidden = score(count, total, chance, n_right).nan_to_num(nan=-math.inf).argmax()
        shown = total / count if value is None else value(total, chance)
        return hidden, shown[hidden]

    return wrong


def _surprise(count, total, chance, n_right):
    return (total / chance).abs()


def _first_without_samples(logits, target):
    count, total, chance, _ = _sums(logits, target)
    hidden = (total / chance).abs().argmax()  # NaN is the largest for argmax
    return hidden, total[hidden] / count[hidden]


def _by_logits(logits, target):
    highest, predicted = logits.max(1)
    excess = highest - (predicted == target).float()
    total = torch.bincount(predicted, excess, logits.shape[1])
    count = torch.bincount(predicted, minlength=logits.shape[1])
    hidden = (total / count.sqrt()).abs().nan_to_num().argmax()
    return hidden, total[hidden] / count[hidden]


def _spoken(*groups: tuple[int, float, int, int], n_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Samples (class said, confidence, how many, how many right); a wrong one's label is next."""
    rows, labels = [], []
    for said, confidence, n, right in groups:
        rest = math.log((1 - confidence) / (n_classes - 1))
        row = [math.log(confidence) if k == said else rest for k in range(n_classes)]
        rows += [row] * n
        labels += [said] * right + [(said + 1) % n_classes] * (n - right)
    return torch.tensor(rows), torch.tensor(labels)


_TWO = _spoken((0, 0.8, 50, 30), (1, 0.8, 50, 41), (2, 0.8, 50, 40), (3, 0.8, 50, 40))
_RARE = _spoken((0, 0.7, 400, 240), (1, 0.6, 4, 1), (2, 0.9, 100, 90), (3, 0.9, 100, 90))
_DOUBTS = _spoken((0, 0.9, 100, 88), (1, 0.5, 100, 90), (2, 0.8, 60, 44), (3, 0.9, 60, 54))
_SILENT = _spoken((0, 0.9, 100, 90), (2, 0.7, 100, 50), (3, 0.8, 100, 82))
_SURE = _spoken((0, 0.99, 400, 380), (1, 0.55, 400, 190), (2, 0.9, 60, 54))
_UNEVEN = _spoken((0, 0.8, 100, 74), (1, 0.8, 16, 9))
# Images of class 1 are often taken for class 0: by label they look too sure, though "1" is not.
_CONFUSED = _spoken((0, 0.7, 200, 110), (1, 0.6, 40, 36), (2, 0.8, 100, 80), (3, 0.8, 100, 80))


def _made_up(seed: int) -> tuple[Tensor, Tensor]:
    """300 samples of six classes; two of them are said with too little or too much confidence."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(300, 6, generator=generator)
    bias = torch.randn(6, generator=generator)
    target = torch.multinomial((logits + 0.5 * bias).softmax(1), 1, generator=generator)[:, 0]
    return logits, target


def _stands_out(logits: Tensor, target: Tensor) -> tuple[int, float]:
    """The same with loops, in float64."""
    groups: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(logits.double().softmax(1).tolist(), target.tolist(), strict=True):
        said = row.index(max(row))
        groups.setdefault(said, []).append((max(row), said == label))
    surprise = {
        k: abs(sum(c - r for c, r in members)) / math.sqrt(sum(c * (1 - c) for c, _ in members))
        for k, members in groups.items()
    }
    worst = max(surprise, key=surprise.__getitem__)
    return worst, sum(c - r for c, r in groups[worst]) / len(groups[worst])


def _in_forty_networks(answer) -> Finding | None:
    for seed in range(40):
        logits, target = _made_up(seed)
        returned = answer(logits, target)
        fault = how_it_differs(returned, _stands_out(logits, target), 1e-3)
        if fault:
            return Finding(
                f"{show(returned)} for network {seed + 1} of 40",
                f"The class has the largest distance from 0 in units of what chance gives. {fault}",
            )
    return None


hidden_class = Exercise(
    lesson="09",
    name="hidden_class",
    title="The class that the average hides",
    difficulty=3,
    importance=4,
    minutes=15,
    reference=my_hidden_class,
    cases=(
        value_case(
            "one class too sure",
            "four classes, each said 50 times with confidence 0.8; right 30, 41, 40 and 40 times",
            _TWO,
            (0, 0.2),
            "The first value is the class, the second its mean confidence less its accuracy.",
        ),
        value_case(
            "one class in doubt",
            "class 1 is said 100 times with confidence 0.5 and right 90 times; the others are off "
            "by less",
            _DOUBTS,
            (1, -0.4),
            "A class that is right more often than it says is off as well.",
        ),
        value_case(
            "a rare class",
            "class 0, said 400 times, is too sure by 0.1; class 1, said 4 times, by 0.35; the "
            "others are right as often as they say",
            _RARE,
            (0, 0.1),
            "Four samples are off by 0.35 by chance more easily than 400 are by 0.1.",
        ),
        value_case(
            "a class that is never said",
            "class 1 is never predicted; class 2 is too sure by 0.2",
            _SILENT,
            (2, 0.2),
            "A class without predictions has no confidence to judge.",
        ),
        value_case(
            "sure and unsure",
            "class 0 says 0.99 400 times, right 380 times; class 1 says 0.55 400 times, right 190 "
            "times",
            _SURE,
            (0, 0.04),
            "At a confidence of 0.99 chance moves the accuracy far less than at 0.55.",
        ),
        value_case(
            "said, not shown",
            "class 1 is said 40 times; 90 more images of it are taken for class 0",
            _CONFUSED,
            (0, 0.15),
            "The samples of a class are those that are predicted as it: when it says so, how "
            "often is it right?",
        ),
        Case("forty networks", "300 samples of six classes each", _in_forty_networks),
    ),
    wrong=(
        WrongSolution(
            "by the label",
            _class_where(_surprise, by_label=True),
            "You sort the samples by their label. Nobody knows the label when the network speaks: "
            "confidence is judged among the samples that it *says* are of a class.",
        ),
        WrongSolution(
            "the largest gap",
            _class_where(lambda count, total, chance, right: (total / count).abs()),
            "You take the largest gap, however few samples it rests on. A rare class is off by a "
            "lot by chance.",
        ),
        WrongSolution(
            "the largest gap of those that stand out",
            _class_where(
                lambda count, total, chance, right: torch.where(
                    total.abs() > 1.96 * chance, (total / count).abs(), 0
                )
            ),
            "You take the largest gap among the classes that stand out, as the package's list is "
            "sorted. Asked for is the one that chance explains worst, which may be a smaller gap "
            "of more samples.",
        ),
        WrongSolution(
            "too sure only",
            _class_where(lambda count, total, chance, right: total / chance),
            "You look for classes that are too sure. One that doubts too much hides in the average "
            "just as well.",
        ),
        WrongSolution(
            "the most samples",
            _class_where(lambda count, total, chance, right: total.abs()),
            "You take the largest sum of gaps, which grows with the samples by chance alone. "
            "Divide by what chance would make of it.",
        ),
        WrongSolution(
            "the least accurate class",
            _class_where(lambda count, total, chance, right: 1 - right / count),
            "You take the class that is most often wrong. A class may be wrong often and know it.",
        ),
        WrongSolution(
            "coins at one half",
            _class_where(lambda count, total, chance, right: total.abs() / count.sqrt()),
            "You divide by the root of the number of samples, as if each were a fair coin. A coin "
            "that falls right with 99 % varies less: its variance is c(1 − c).",
        ),
        WrongSolution(
            "a variance for a standard deviation",
            _class_where(lambda count, total, chance, right: total.abs() / chance.square()),
            "You divide by the variance. Chance moves a sum by its square root.",
        ),
        WrongSolution(
            "a class without predictions",
            _first_without_samples,
            "Your class was never predicted: 0/0 is NaN, and `argmax` takes a NaN for the largest.",
        ),
        WrongSolution(
            "logits for confidence",
            _by_logits,
            "You take the largest logit for the confidence. Softmax makes probabilities of logits.",
        ),
        WrongSolution(
            "in units of chance",
            _class_where(_surprise, lambda total, chance: total / chance),
            "The class is right. The second value is its over-confidence, a difference of "
            "probabilities, not how surprising that is.",
        ),
        WrongSolution(
            "the sum for the mean",
            _class_where(_surprise, lambda total, chance: total),
            "The class is right. The second value is a mean over its samples; yours is their sum.",
        ),
        WrongSolution(
            "accuracy less confidence",
            _class_where(_surprise, lambda total, chance: -total),
            "Your sign says the opposite: over-confidence is confidence less accuracy.",
        ),
    ),
    hints=(
        "Sort by what the network says. For each class add up confidence minus right-or-wrong; "
        "where it is calibrated, that sum is 0 but for chance.",
        "If each sample is right with its own confidence c, the variance of that sum is the sum of "
        "c(1 − c). `torch.bincount(predicted, weights)` adds up per class.",
        "Divide the sum by that standard deviation, take absolute values, turn NaN into 0 "
        "(`nan_to_num`); `argmax` names the class. Its over-confidence is the sum over the count.",
    ),
    probes=(_TWO, _DOUBTS, _RARE, _SILENT, _SURE, _UNEVEN, _CONFUSED, _made_up(1), _made_up(2)),
)


# --- 3. A split without leakage ------------------------------------------------------------------


def my_split(trained_on, group):
    seen = torch.isin(group, group[trained_on])
    even = group % 2 == 0
    return ~seen & even, ~seen & ~even


def _splitting(left_out: Callable, half: Callable = lambda group: group % 2 == 0):
    """Rows that are not left out, in the half and outside it."""

    def wrong(trained_on, group):
        kept, first = ~left_out(trained_on, group), half(group)
        return kept & first, kept & ~first

    return wrong


def _with_their_group(trained_on: Tensor, group: Tensor) -> Tensor:
    return torch.isin(group, group[trained_on])


def _by_row(group: Tensor) -> Tensor:
    return torch.arange(len(group)) % 2 == 0


def _all_even(trained_on, group):
    even = ~_with_their_group(trained_on, group) & (group % 2 == 0)
    return even, even


def _the_rest_reports(trained_on, group):
    even = ~_with_their_group(trained_on, group) & (group % 2 == 0)
    return even, ~even


def _everything_reports(trained_on, group):
    kept = ~_with_their_group(trained_on, group)
    return kept & (group % 2 == 0), kept


def _fit_on_training(trained_on, group):
    return trained_on, ~_with_their_group(trained_on, group)


def _rows(trained_on, group):
    return tuple(mask.nonzero()[:, 0] for mask in my_split(trained_on, group))


def _flags(*values: int) -> Tensor:
    return torch.tensor(values).bool()


_ALONE = (_flags(0, 0, 0, 0), torch.tensor([0, 1, 2, 3]))
_PHOTOS = (_flags(0, 0, 0, 0, 0, 0), torch.tensor([4, 7, 7, 4, 9, 2]))
_SEEN = (_flags(1, 0, 0, 0, 1), torch.tensor([0, 2, 3, 5, 7]))
_SISTERS = (
    _flags(1, 0, 0, 0, 0, 1, 0, 0),
    torch.tensor([4, 4, 6, 6, 3, 5, 5, 1]),
)


def _log(seed: int, n: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(40, (n,), generator=generator)
    return torch.rand(n, generator=generator) < 0.15, group


def _leaks_nothing(answer) -> Finding | None:
    for seed in range(20):
        trained_on, group = _log(seed)
        bad = {g for g, t in zip(group.tolist(), trained_on.tolist(), strict=True) if t}
        right = tuple(
            [g not in bad and g % 2 == parity for g in group.tolist()] for parity in (0, 1)
        )
        returned = answer(trained_on, group)
        fault = how_it_differs(returned, torch.tensor(right).double().unbind(), 1e-6, _SIDES)
        if fault:
            return Finding(
                f"{show(returned, _SIDES)} for log {seed + 1} of 20",
                f"No garment is on two sides, none of training on any. {fault}",
            )
    return None


_SIDES = ("fit", "report")


def _sides_case(name: str, given: str, arguments: tuple, sides: tuple, should: str) -> Case:
    """As `value_case`, for bools: no remark on fractions."""

    def check(answer) -> Finding | None:
        returned = answer(*arguments)
        fault = how_it_differs(returned, sides, 1e-6, _SIDES)
        return Finding(show(returned, _SIDES), f"{should} {fault}") if fault else None

    return Case(name, given, check)


split = Exercise(
    lesson="09",
    name="split",
    title="A split without leakage",
    difficulty=2,
    importance=5,
    minutes=10,
    reference=my_split,
    cases=(
        _sides_case(
            "one photo each",
            "garments 0, 1, 2, 3, one photo each, none of them trained on",
            _ALONE,
            ([1, 0, 1, 0], [0, 1, 0, 1]),
            "Even garments fit, odd ones report.",
        ),
        _sides_case(
            "several photos",
            "garments 4, 7, 7, 4, 9, 2, none of them trained on",
            _PHOTOS,
            ([1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0]),
            "All photos of one garment are on one side.",
        ),
        _sides_case(
            "photos of training",
            "garments 0, 2, 3, 5, 7, one photo each; the first and the last were trained on",
            _SEEN,
            ([0, 1, 0, 0, 0], [0, 0, 1, 1, 0]),
            "What the network was trained on neither fits nor reports.",
        ),
        _sides_case(
            "sisters of training photos",
            "garments 4, 4, 6, 6, 3, 5, 5, 1; the first photo and the sixth were trained on",
            _SISTERS,
            ([0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 1]),
            "Another photo of a garment that was trained on is no new garment.",
        ),
        Case(
            "twenty logs",
            "60 photos of up to 40 garments, one in seven trained on",
            _leaks_nothing,
        ),
    ),
    wrong=(
        WrongSolution(
            "photos of training kept",
            _splitting(lambda trained_on, group: torch.zeros_like(trained_on)),
            "Photos that the network was trained on are still there. On them it is right and sure; "
            "a temperature fitted there says that nothing is wrong.",
        ),
        WrongSolution(
            "sisters of training photos kept",
            _splitting(lambda trained_on, group: trained_on),
            "You leave out the photos that were trained on, but not other photos of the same "
            "garment. The network knows that garment.",
        ),
        WrongSolution(
            "every other photo",
            _splitting(_with_their_group, _by_row),
            "You put every other *photo* on a side, so that one garment is on both: it takes part "
            "in the fit, and then judges it.",
        ),
        WrongSolution(
            "every other photo, training kept",
            _splitting(lambda trained_on, group: torch.zeros_like(trained_on), _by_row),
            "You go by the place in the file alone. Neither training nor garments are in it.",
        ),
        WrongSolution(
            "one side for both",
            _all_even,
            "Both sides are the same photos: the temperature is judged by those that chose it.",
        ),
        WrongSolution(
            "the fit reports too",
            _everything_reports,
            "All photos report, those of the fit among them. Judge by what took no part.",
        ),
        WrongSolution(
            "all the rest reports",
            _the_rest_reports,
            "Whatever does not fit reports, photos of training included. They are on neither side.",
        ),
        WrongSolution(
            "fit on the training photos",
            _fit_on_training,
            "You fit on the photos of training. There confidence and accuracy agree, whatever "
            "happens on new ones.",
        ),
        WrongSolution(
            "sides swapped",
            lambda trained_on, group: my_split(trained_on, group)[::-1],
            "Your sides have changed places: even garments fit, odd ones report.",
        ),
        WrongSolution(
            "row numbers",
            _rows,
            "You return the numbers of the rows. Asked for are two masks, one bool per photo.",
        ),
    ),
    hints=(
        "Think in garments, not in photos: which garments may take part at all?",
        "`torch.isin(group, some_groups)` says for every photo whether its garment is among some.",
        "`group[trained_on]` are the garments of training. Masks combine with `&`, and `~` turns "
        "one around.",
    ),
    probes=(_ALONE, _PHOTOS, _SEEN, _SISTERS, _log(1), _log(2)),
)


# --- 4. What may not be concluded ----------------------------------------------------------------


def my_missing():
    return [0, 1, 3, 0, 2, 4, 1, 2, 3, 4]


_KINDS = {
    "what a file shows": (
        (1, 4),
        "A statement about these images, or images like them, whose interval leaves out 0, stands.",
        "You refuse what the file does show. On images like these, an over-confidence whose "
        "interval lies clear of 0 is a finding.",
    ),
    "no difference seen": (
        (2, 7),
        "That nothing was seen with 2,500 images leaves room for what 2,500 images cannot show.",
        "You take “not seen” for “not there”. A tie, or an interval that holds 0, excludes what is "
        "larger than the interval, and nothing smaller. What would shrink it?",
    ),
    "other images": (
        (5, 8),
        "Every number in the file is about one kind of photo. The statement is about another kind.",
        "You carry a result over to photos of another kind. More photos of the *same* kind would "
        "not test that, nor would another network.",
    ),
    "inside the network": (
        (3, 9),
        "The statement is about neighbours of an image, or of the weights. No row of logits has "
        "them.",
        "You read from the logits what is not in them: how they change when pixels or weights move "
        "(lessons 02 and 03). A large margin may be a fragile one.",
    ),
    "a recipe": (
        (6, 10),
        "The statement is about a way to train, and the file is of one network.",
        "You take one network for its recipe. The next seed may differ, and two networks that "
        "differ in several things do not tell which of them matters.",
    ),
}


def _sentence_case(kind: str) -> Case:
    sentences, should, _ = _KINDS[kind]

    def check(answer) -> Finding | None:
        found = array(answer())
        if found.shape != (10,):
            return Finding(show(found), "Ten numbers come back, one for each sentence.")
        wrong = [n for n in sentences if found[n - 1] != my_missing()[n - 1]]
        if not wrong:
            return None
        return Finding(f"{found[wrong[0] - 1]:g} for sentence {wrong[0]}", should)

    return Case(kind, f"sentences {sentences[0]} and {sentences[1]}", check)


def _with(**changes: int) -> Callable:
    """The right list with some sentences (s2=0) answered otherwise."""

    def wrong():
        found = my_missing()
        for sentence, code in changes.items():
            found[int(sentence[1:]) - 1] = code
        return found

    return wrong


def _why(found: list[Tensor]) -> str | None:
    """The first kind of sentence that is answered wrongly."""
    if len(found) != 1 or found[0].shape != (10,):
        return None
    for sentences, _, diagnosis in _KINDS.values():
        if any(found[0][n - 1] != my_missing()[n - 1] for n in sentences):
            return diagnosis
    return None


missing = Exercise(
    lesson="09",
    name="missing",
    title="What may not be concluded",
    difficulty=2,
    importance=5,
    minutes=10,
    reference=my_missing,
    cases=tuple(_sentence_case(kind) for kind in _KINDS),
    wrong=(
        WrongSolution(
            "everything may be said",
            lambda: [0] * 10,
            "You let every sentence stand. The file holds one network's logits on one kind of "
            "image: what in each sentence goes beyond that?",
        ),
        WrongSolution(
            "more images settle everything",
            lambda: [min(code, 1) for code in my_missing()],
            "You ask for more images each time. They shrink an interval; they bring no other kind "
            "of photo, no pixels to move, and no second training run.",
        ),
        WrongSolution(
            "nothing may be said",
            _with(s1=1, s4=1),
            "You let nothing stand. Two of these sentences are about images like those in the "
            "file, with an interval clear of 0.",
        ),
        WrongSolution("a tie is equality", _with(s2=0, s7=0), _KINDS["no difference seen"][2]),
        WrongSolution("test images are all images", _with(s5=0, s8=0), _KINDS["other images"][2]),
        WrongSolution(
            "logits tell of the network", _with(s3=0, s9=0), _KINDS["inside the network"][2]
        ),
        WrongSolution("one run is the recipe", _with(s6=0, s10=0), _KINDS["a recipe"][2]),
        WrongSolution(
            "counted from 1",
            lambda: [code + 1 for code in my_missing()],
            "All your codes are one too high: 0 stands for a sentence that lacks nothing.",
        ),
    ),
    hints=(
        "Two of the ten lack nothing, and each other code is right for two.",
        "Ask of each: is it about these images, about images of another kind, about the network's "
        "neighbourhood, or about how it was trained? And if about these images: was something "
        "seen, or only not seen?",
    ),
    probes=((),),
    explain=_why,
)

# --- Predictions ---------------------------------------------------------------------------------

_DAMAGES = ("probabilities", "counted from 1", "another order", "a pickle", "two exchanged")
predicted_noticed = Prediction(
    "09", "predicted_noticed", "Read, and noticed by the audit only", _DAMAGES
)
predicted_unnoticed = Prediction("09", "predicted_unnoticed", "Noticed by nobody", _DAMAGES)
predicted_a_and_c = Prediction(
    "09", "predicted_a_and_c", "The ECE of case_a against case_c", ("a tie", "a difference")
)
predicted_b_and_c = Prediction(
    "09", "predicted_b_and_c", "The ECE of case_b against case_c", ("a tie", "a difference")
)
predicted_off_a = Prediction("09", "predicted_off_a", "Classes of case_a that are off", within=1)
predicted_off_c = Prediction("09", "predicted_off_c", "Classes of case_c that are off", within=1)
predicted_leaked = Prediction(
    "09", "predicted_leaked", "T fitted on the loop's training photos", ("below 1", "above 1")
)
predicted_turned = Prediction(
    "09",
    "predicted_turned",
    "How many times the repaired ECE grows when the photos are turned",
    factor=2,
)
predicted_lost = Prediction(
    "09", "predicted_lost", "Right answers lost within 8/255", unit="%", within=15
)

"""Exercises of lesson 01: reliability bins, ECE, a useless model with ECE 0, and temperature."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .framework import Case, Exercise, Finding, WrongSolution, array, number, show, value_case
from .predictions import Prediction

# --- 1. Reliability bins -------------------------------------------------------------------------


def my_bins(confidence, correct, n_bins):
    inner_edges = torch.linspace(0, 1, n_bins + 1, device=confidence.device)[1:-1]
    index = torch.bucketize(confidence, inner_edges)  # edge[i] < confidence <= edge[i + 1]
    count = torch.bincount(index, minlength=n_bins)
    images = count.clamp(min=1)  # an empty bin has sum 0: divide it by 1, not by 0
    confidence_mean = torch.bincount(index, confidence, n_bins) / images
    accuracy = torch.bincount(index, correct.float(), n_bins) / images
    return count, confidence_mean, accuracy


def _index(confidence: Tensor, n_bins: int) -> Tensor:
    return torch.bucketize(confidence, torch.linspace(0, 1, n_bins + 1)[1:-1])


def _sums(confidence: Tensor, correct: Tensor, index: Tensor, n_bins: int):
    """Per bin: the number of images, the sum of confidences, the number of right ones."""
    return (
        torch.bincount(index, minlength=n_bins).float(),
        torch.bincount(index, confidence, n_bins),
        torch.bincount(index, correct.float(), n_bins),
    )


def _means(count: Tensor, confidence: Tensor, right: Tensor):
    return count, confidence / count.clamp(min=1), right / count.clamp(min=1)


def _bins_where(index_of):
    """Bins as in the reference, except for the bin that a confidence is put in (-1 for none)."""

    def wrong(confidence, correct, n_bins):
        index = index_of(confidence, n_bins)
        kept = index >= 0
        return _means(*_sums(confidence[kept], correct[kept], index[kept], n_bins))

    return wrong


def _bins_from_sums(finish):
    """Bins as in the reference, except for what is made of the sums of each bin."""

    def wrong(confidence, correct, n_bins):
        return finish(*_sums(confidence, correct, _index(confidence, n_bins), n_bins))

    return wrong


def _left_closed(confidence: Tensor, n_bins: int) -> Tensor:
    return torch.bucketize(confidence, torch.linspace(0, 1, n_bins + 1)[1:-1], right=True)


def _zero_dropped(confidence: Tensor, n_bins: int) -> Tensor:
    return torch.where(confidence > 0, _index(confidence, n_bins), -1)


def _one_dropped(confidence: Tensor, n_bins: int) -> Tensor:
    return torch.where(confidence < 1, _left_closed(confidence, n_bins), -1)


def _phantom(confidence: Tensor, n_bins: int) -> Tensor:
    return (confidence * n_bins).floor().long()


def _middles(count: Tensor, confidence: Tensor, right: Tensor):
    n_bins = len(count)
    return count, (torch.arange(n_bins) + 0.5) / n_bins, right / count.clamp(min=1)


def _confidences(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(n, generator=generator)
    return confidence, torch.rand(n, generator=generator) < confidence


_VALUES = ("count", "confidence_mean", "accuracy")
_ON_EDGES = (
    torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]),
    torch.tensor([True, False, True, False, True]),
    4,
)
_WITH_EMPTY = (torch.tensor([0.3, 0.5, 0.55]), torch.tensor([True, True, False]), 5)

bins = Exercise(
    lesson="01",
    name="bins",
    title="The bins of a reliability diagram",
    difficulty=2,
    importance=4,
    minutes=12,
    reference=my_bins,
    cases=(
        value_case(
            "two bins",
            "confidences 0.2, 0.4, 0.7, 0.9; all right but the first; 2 bins",
            (torch.tensor([0.2, 0.4, 0.7, 0.9]), torch.tensor([False, True, True, True]), 2),
            ([2, 2], [0.3, 0.8], [0.5, 1.0]),
            "Each bin has its number of images, their mean confidence, and the share that is "
            "right.",
            names=_VALUES,
        ),
        value_case(
            "on the edges",
            "confidences 0, 0.25, 0.5, 0.75, 1; the first, third and fifth are right; 4 bins",
            _ON_EDGES,
            ([2, 1, 1, 1], [0.125, 0.5, 0.75, 1.0], [0.5, 1.0, 0.0, 1.0]),
            "There are 4 bins (a, b]: each with its right edge, the first with both.",
            names=_VALUES,
        ),
        value_case(
            "empty bins",
            "confidences 0.3, 0.5, 0.55; the first two are right; 5 bins",
            _WITH_EMPTY,
            ([0, 1, 2, 0, 0], [0, 0.3, 0.525, 0, 0], [0, 1.0, 0.5, 0, 0]),
            "A bin without images has count 0 and means 0, and it is there all the same.",
            names=_VALUES,
        ),
        value_case(
            "1,000 images",
            "1,000 random confidences; 15 bins",
            (*_confidences(1000, seed=1), 15),
            my_bins,
            "The same definition holds for any number of images and bins.",
            names=_VALUES,
        ),
    ),
    wrong=(
        WrongSolution(
            "bins [a, b)",
            _bins_where(_left_closed),
            "Your bins contain their left edge, [a, b). Here a bin is (a, b]: a confidence that "
            "equals an edge belongs to the bin below it.",
        ),
        WrongSolution(
            "1.0 dropped",
            _bins_where(_one_dropped),
            "A confidence of exactly 1 is in none of your bins, which are all [a, b). Saturated "
            "networks give many of them, and they would vanish from the diagram.",
        ),
        WrongSolution(
            "1.0 in a phantom bin",
            _bins_where(_phantom),
            "A confidence of exactly 1 opens a bin of its own behind the last one: rounding "
            "`confidence * n_bins` down gives the index n_bins. Only 0 to n_bins − 1 exist.",
        ),
        WrongSolution(
            "0 dropped",
            _bins_where(_zero_dropped),
            "A confidence of exactly 0 is in none of your bins: `confidence > a` leaves it out of "
            "the first. The first bin has both of its edges.",
        ),
        WrongSolution(
            "empty bins give NaN",
            _bins_from_sums(lambda n, confidence, right: (n, confidence / n, right / n)),
            "You divide by the number of images also where it is 0, and 0/0 is NaN. One NaN "
            "makes every later sum over bins NaN.",
        ),
        WrongSolution(
            "sums instead of means",
            _bins_from_sums(lambda n, confidence, right: (n, confidence, right)),
            "Your bins hold sums where means are asked for: a full bin would look confident "
            "because it is full.",
        ),
        WrongSolution(
            "divided by all images",
            _bins_from_sums(
                lambda n, confidence, right: (n, confidence / n.sum(), right / n.sum())
            ),
            "You divide by the number of all images. The mean of a bin is over the images in "
            "that bin alone.",
        ),
        WrongSolution(
            "middle of the bin",
            _bins_from_sums(_middles),
            "You report the middle of each bin, not the mean of the confidences in it. The two "
            "differ most where it matters: in the last bin, where confidences crowd near 1.",
        ),
        WrongSolution(
            "bins behind the last full one missing",
            lambda confidence, correct, n_bins: [
                part[: int(_index(confidence, n_bins).max()) + 1]
                for part in my_bins(confidence, correct, n_bins)
            ],
            "Your vectors end with the last bin that holds an image: `bincount` counts no further "
            "than the largest index it meets. Which of its arguments asks for more?",
        ),
        WrongSolution(
            "accuracy and confidence swapped",
            lambda confidence, correct, n_bins: [
                my_bins(confidence, correct, n_bins)[i] for i in (0, 2, 1)
            ],
            "Your accuracy and your mean confidence have changed places: the order is count, mean "
            "confidence, accuracy.",
        ),
        WrongSolution(
            "right images counted",
            _bins_from_sums(
                lambda n, confidence, right: (right, *_means(n, confidence, right)[1:])
            ),
            "Your count is of the right images only. A bin counts every image in it.",
        ),
    ),
    hints=(
        "Give every image the index of its bin first; counts and means follow from the index.",
        "`torch.bucketize(confidence, edges)` finds that index; its argument `right` says which "
        "edge a bin owns. Only the inner edges are needed: then 0 falls into the first bin and 1 "
        "into the last.",
        "`torch.bincount(index, weights, minlength)` adds up per bin. Before you divide, what can "
        "stand in for a count of 0, when the sum above it is 0 anyway?",
    ),
    probes=(_ON_EDGES, _WITH_EMPTY, (*_confidences(60, seed=2), 10)),
)


# --- 2. Expected calibration error ---------------------------------------------------------------


def my_ece(logits, target, n_bins=15):
    confidence, prediction = logits.softmax(dim=1).max(dim=1)
    correct = (prediction == target).float()
    inner_edges = torch.linspace(0, 1, n_bins + 1, device=confidence.device)[1:-1]
    index = torch.bucketize(confidence, inner_edges)
    # n_b |confidence_b - accuracy_b| is the absolute value of a sum over the bin: no division.
    gap = torch.bincount(index, confidence - correct, n_bins)
    return gap.abs().sum() / len(target)


def _judge(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    confidence, prediction = logits.softmax(dim=1).max(dim=1)
    return confidence, (prediction == target).float()


def _ece_where(index_of):
    """ECE as in the reference, except for the bin that a confidence is put in (-1 for none)."""

    def wrong(logits, target, n_bins):
        confidence, correct = _judge(logits, target)
        index = index_of(confidence, n_bins)
        gap = torch.bincount(index.clamp(min=0), (confidence - correct) * (index >= 0), n_bins)
        return gap.abs().sum() / len(target)

    return wrong


def _ece_of_gaps(finish):
    """ECE as in the reference, except for what is made of weights and gaps of the bins."""

    def wrong(logits, target, n_bins):
        confidence, correct = _judge(logits, target)
        bins = _sums(confidence, correct, _index(confidence, n_bins), n_bins)
        count, confidence, accuracy = _means(*bins)
        return finish(count / len(target), confidence - accuracy)

    return wrong


def _ece_of_scores(score_of):
    """ECE as in the reference, except for the score that is taken for the confidence."""

    def wrong(logits, target, n_bins):
        score = score_of(logits)
        correct = (logits.argmax(dim=1) == target).float()
        gap = torch.bincount(_index(score, n_bins), score - correct, n_bins)
        return gap.abs().sum() / len(target)

    return wrong


def _ece_of_true_class(logits, target, n_bins):
    confidence = logits.softmax(dim=1).gather(1, target[:, None]).squeeze(1)
    return _ece_of_scores(lambda _: confidence)(logits, target, n_bins)


def _ece_with_softmax_over_images(logits, target, n_bins):
    confidence, prediction = logits.softmax(dim=0).max(dim=1)
    gap = torch.bincount(_index(confidence, n_bins), confidence - (prediction == target).float())
    return gap.abs().sum() / len(target)


def _ece_of_images(logits, target, n_bins):
    confidence, correct = _judge(logits, target)
    return (confidence - correct).abs().mean()


def _ece_with_nan(logits, target, n_bins):
    confidence, correct = _judge(logits, target)
    count, sums, right = _sums(confidence, correct, _index(confidence, n_bins), n_bins)
    return (count / len(target) * (sums / count - right / count).abs()).sum()


def _two_classes(*groups: tuple[float, int, int]) -> tuple[Tensor, Tensor]:
    """Logits and labels of groups (confidence, images, right ones) of a two-class network."""
    logits = [[math.log(p / (1 - p)), 0.0] for p, n, _ in groups for _ in range(n)]
    target = [0 if i < right else 1 for _, n, right in groups for i in range(n)]
    return torch.tensor(logits), torch.tensor(target)


def _network(n: int, n_classes: int, sharpness: float, seed: int) -> tuple[Tensor, Tensor]:
    """Random logits; labels drawn from their softmax, made `sharpness` times too sure after."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, n_classes, generator=generator)
    target = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    return sharpness * logits, target


# Confidence 1/2 three times (all wrong), 0.7 six times (all right), 1 once (wrong): the sums of the
# gaps, 1.5, -1.8 and 1, make every way to misplace an edge visible.
_EDGE_LOGITS = torch.tensor(
    3 * [[0.0, 0.0, -200.0]] + 6 * [[math.log(7 / 3), 0.0, -200.0]] + [[200.0, 0.0, 0.0]]
)
_EDGE_TARGET = torch.tensor(3 * [2] + 6 * [0] + [1])
_IN_TURN = _two_classes((0.55, 3, 0), (0.65, 2, 2), (0.75, 4, 0), (0.85, 1, 1), (0.95, 2, 0))
_NETWORK = _network(300, 10, sharpness=2.0, seed=3)


def _shift_changes_nothing(answer) -> Finding | None:
    logits, target = _NETWORK
    plain, shifted = number(answer(logits, target, 15)), number(answer(logits + 3, target, 15))
    if abs(plain - shifted) <= 1e-4:
        return None
    return Finding(
        f"{show(plain)} before, {show(shifted)} after",
        "Adding a constant to the logits changes no probability, so it changes no ECE (compared "
        "to within 0.0001).",
    )


ece = Exercise(
    lesson="01",
    name="ece",
    title="Expected calibration error",
    difficulty=3,
    importance=5,
    minutes=15,
    reference=my_ece,
    cases=(
        value_case(
            "one full bin",
            "4 images of a two-class network, each with confidence 0.9; three are right; 5 bins",
            (*_two_classes((0.9, 4, 3)), 5),
            0.15,
            "With all images in one bin, ECE is the distance between confidence and accuracy.",
        ),
        value_case(
            "two unequal bins",
            "6 images with confidence 0.9, three of them right, and 2 with confidence 0.7, both "
            "right; 5 bins",
            (*_two_classes((0.9, 6, 3), (0.7, 2, 2)), 5),
            0.375,
            "Every bin adds its distance, too sure or not sure enough, weighted by its share of "
            "the images.",
        ),
        value_case(
            "on the edges",
            "three images with confidence 1/2, all wrong; six with 0.7, all right; one with "
            "confidence 1, wrong; 2 bins",
            (_EDGE_LOGITS, _EDGE_TARGET, 2),
            0.23,
            "Bins are (a, b]: 1/2 is in the first, 1 in the last, and no image is lost.",
        ),
        value_case(
            "neighbours of opposite sign",
            "3, 2, 4, 1 and 2 images with confidence 0.55, 0.65, 0.75, 0.85 and 0.95; in turn all "
            "wrong and all right; 10 bins",
            (*_IN_TURN, 10),
            (3 * 0.55 + 2 * 0.35 + 4 * 0.75 + 1 * 0.15 + 2 * 0.95) / 12,
            "Each bin stands alone: one that is too sure never pays for its neighbour.",
        ),
        Case(
            "shifted logits",
            "300 images in 10 classes, 15 bins; then the same with 3 added to every logit",
            _shift_changes_nothing,
        ),
        value_case(
            "300 images",
            "300 images in 10 classes from a network twice too sure; 15 bins",
            (*_NETWORK, 15),
            my_ece,
            "The same definition holds for any number of classes and bins.",
        ),
        value_case(
            "few images",
            "60 images in 4 classes; 15 bins, some too sure and some not sure enough",
            (*_network(60, 4, sharpness=1.3, seed=5), 15),
            my_ece,
            "The number of bins is the one that is given.",
        ),
    ),
    wrong=(
        WrongSolution(
            "unweighted bins",
            _ece_of_gaps(lambda weight, gap: gap[weight > 0].abs().mean()),
            "Your bins all weigh the same. A bin that holds one image then says as much as one "
            "that holds a thousand.",
        ),
        WrongSolution(
            "mean over all bins, empty ones too",
            _ece_of_gaps(lambda weight, gap: gap.abs().mean()),
            "You average over all bins, the empty ones included: more bins would make any network "
            "look better. A bin counts by its share of the images.",
        ),
        WrongSolution(
            "unweighted sum",
            _ece_of_gaps(lambda weight, gap: gap.abs().sum()),
            "You add the bins' distances without weights: with many bins the result can exceed 1.",
        ),
        WrongSolution(
            "no absolute value",
            _ece_of_gaps(lambda weight, gap: (weight * gap).sum()),
            "Your gaps keep their signs, so a bin that is too sure pays for one that is not sure "
            "enough. What is left is mean confidence minus accuracy, the same for any bins.",
        ),
        WrongSolution(
            "no absolute value, accuracy first",
            _ece_of_gaps(lambda weight, gap: -(weight * gap).sum()),
            "Your gaps, accuracy minus confidence, keep their signs: bins cancel, and the result "
            "can be negative. A distance is not.",
        ),
        WrongSolution(
            "absolute value of the whole sum",
            _ece_of_gaps(lambda weight, gap: (weight * gap).sum().abs()),
            "You take the absolute value once, after adding up. By then the bins have cancelled "
            "each other: it belongs to each bin.",
        ),
        WrongSolution(
            "absolute value of each image",
            _ece_of_images,
            "You take the absolute gap of each image, before any bin is formed. A single image "
            "is right or wrong, so even a perfectly calibrated network is charged. Your number is "
            "the upper bound of Lemma B.1, not ECE.",
        ),
        WrongSolution(
            "largest gap",
            _ece_of_gaps(lambda weight, gap: gap.abs().max()),
            "You return the largest gap of any bin. That is the maximum calibration error, MCE: "
            "ECE is what is expected of an image, not the worst bin.",
        ),
        WrongSolution(
            "squared gaps",
            _ece_of_gaps(lambda weight, gap: (weight * gap**2).sum()),
            "You square the gaps. Small gaps then nearly vanish: this is the calibration part of "
            "the Brier score, not ECE.",
        ),
        WrongSolution(
            "root of squared gaps",
            _ece_of_gaps(lambda weight, gap: (weight * gap**2).sum().sqrt()),
            "You take the root of the mean squared gap. It weighs large gaps more than ECE does, "
            "and is never below it.",
        ),
        WrongSolution(
            "softmax twice",
            lambda logits, target, n_bins: my_ece(logits.softmax(dim=1), target, n_bins),
            "You apply softmax twice. The second one takes probabilities for logits, and since "
            "they all lie between 0 and 1 it makes every image look unsure.",
        ),
        WrongSolution(
            "no softmax",
            _ece_of_scores(lambda logits: logits.amax(dim=1)),
            "You take logits for probabilities. A logit may be 12 or −3: confidence is the "
            "largest probability.",
        ),
        WrongSolution(
            "sigmoid",
            _ece_of_scores(lambda logits: logits.amax(dim=1).sigmoid()),
            "You apply a sigmoid to the largest logit. That is softmax only for two classes, one "
            "of them with logit 0. In general the other logits matter as well.",
        ),
        WrongSolution(
            "softmax over the images",
            _ece_with_softmax_over_images,
            "Your softmax runs over the images (dim 0): the probabilities of one class over all "
            "images add up to 1, and those of an image do not. One image is one row.",
        ),
        WrongSolution(
            "in per cent",
            lambda logits, target, n_bins: 100 * my_ece(logits, target, n_bins),
            "Your number is in per cent, 100 times too large: ECE is a probability, and 0.05 means "
            "five points.",
        ),
        WrongSolution(
            "confidence of the true class",
            _ece_of_true_class,
            "You take the probability of the true class. Confidence belongs to the predicted "
            "class: the network does not know the label.",
        ),
        WrongSolution(
            "bins [a, b)",
            _ece_where(_left_closed),
            "Your bins contain their left edge, [a, b): a confidence of exactly 1/2 goes to the "
            "upper of two bins. Here bins are (a, b].",
        ),
        WrongSolution(
            "1.0 dropped",
            _ece_where(_one_dropped),
            "An image with a confidence of exactly 1 is in none of your bins. It is the one that "
            "hurts most when it is wrong.",
        ),
        WrongSolution(
            "1.0 in a phantom bin",
            _ece_where(_phantom),
            "A confidence of exactly 1 lands behind the last bin, alone. There its gap cannot meet "
            "those of the other confident images.",
        ),
        WrongSolution(
            "empty bins give NaN",
            _ece_with_nan,
            "An empty bin gives 0/0, and its NaN survives a weight of 0: 0 times NaN is NaN. Empty "
            "bins must stay out of the division.",
        ),
    ),
    hints=(
        "From logits to two vectors, one entry per image: the confidence (largest probability) "
        "and whether the prediction is right. The bins of the last exercise do the rest.",
        "A bin adds its share of the images times the distance between its mean confidence and "
        "its accuracy. What would happen without the absolute value?",
        "The share times the means: count / N · abs(sum of confidences / count − number right / "
        "count). The count cancels, so empty bins need no care at all.",
    ),
    probes=(
        (*_two_classes((0.9, 6, 3), (0.7, 2, 2)), 5),
        (*_two_classes((0.7, 6, 6), (0.9, 2, 1)), 4),
        (_EDGE_LOGITS, _EDGE_TARGET, 2),
        (*_network(80, 4, sharpness=2.0, seed=4), 10),
    ),
)


# --- 3. ECE 0, and useless -----------------------------------------------------------------------


def my_useless_logits(target, n_classes):
    frequency = torch.bincount(target, minlength=n_classes) / len(target)
    # A class that never occurs would get log 0: a tiny frequency keeps its logit finite.
    prior = frequency.clamp(min=1e-9).log()
    return prior.repeat(len(target), 1)


def _frequency(target: Tensor, n_classes: int) -> Tensor:
    return torch.bincount(target, minlength=n_classes) / len(target)


def _same_for_all(row_of):
    """Logits that are one row, made from the labels, for every image."""

    def wrong(target, n_classes):
        return row_of(_frequency(target, n_classes)).repeat(len(target), 1)

    return wrong


def _labels(*counts: int) -> Tensor:
    return torch.tensor([label for label, n in enumerate(counts) for _ in range(n)])


def _useless_check(target: Tensor, n_classes: int):
    """The properties asked for, in the order in which they are easiest to repair."""

    def check(answer) -> Finding | None:
        returned = answer(target, n_classes)
        logits = array(returned)
        if logits.shape != (len(target), n_classes):
            wanted = f"Logits have shape (N, K), here {(len(target), n_classes)}."
            return Finding(show(returned), wanted)
        if not torch.isfinite(logits).all():
            return Finding(show(logits), "Logits are finite, also for a class that never occurs.")
        if not torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-6):
            return Finding(show(logits), "Every image gets the same logits: useless means blind.")
        confidence, correct = _judge(logits, target)
        gap = confidence.mean().item() - correct.mean().item()
        if not abs(gap) <= 1e-4:
            return Finding(
                f"logits {show(logits[0])} in each row: confidence "
                f"{show(confidence.mean())}, accuracy {show(correct.mean())}",
                "ECE is 0 (to within 0.0001): the network says how often it is right.",
            )
        return None

    return check


useless = Exercise(
    lesson="01",
    name="useless",
    title="Perfectly calibrated, perfectly useless",
    difficulty=3,
    importance=4,
    minutes=10,
    reference=my_useless_logits,
    cases=(
        Case(
            "unequal classes",
            "20 labels: 4 of class 0, 10 of class 1, 6 of class 2",
            _useless_check(_labels(4, 10, 6), 3),
        ),
        Case(
            "ten classes",
            "100 labels of 10 classes; class 7 is the most frequent, with 28",
            _useless_check(_labels(5, 9, 10, 6, 8, 12, 4, 28, 7, 11), 10),
        ),
        Case(
            "a class that never occurs",
            "10 labels: 7 of class 0, 3 of class 2, none of class 1",
            _useless_check(_labels(7, 0, 3), 3),
        ),
        Case(
            "five classes, and labels of two",
            "10 labels: 4 of class 0 and 6 of class 1; 5 classes",
            _useless_check(_labels(4, 6), 5),
        ),
    ),
    wrong=(
        WrongSolution(
            "uniform logits",
            _same_for_all(torch.zeros_like),
            "All your logits are equal, so the confidence is 1/K. That is calibrated only if the "
            "classes are equally frequent. Here they are not.",
        ),
        WrongSolution(
            "one-hot logits",
            _same_for_all(lambda f: F.one_hot(f.argmax(), len(f)).float()),
            "You picked the right class, with a logit of 1 and all others 0. How sure is softmax "
            "of that? The confidence must be the accuracy, not whatever comes out.",
        ),
        WrongSolution(
            "frequencies as logits",
            _same_for_all(lambda f: f),
            "You give the frequencies themselves as logits. They are what should come out of "
            "softmax: which function does softmax undo?",
        ),
        WrongSolution(
            "counts as logits",
            lambda target, n_classes: _same_for_all(lambda f: f * len(target))(target, n_classes),
            "You give counts as logits. Softmax exponentiates them, and a lead of ten images "
            "becomes near certainty.",
        ),
        WrongSolution(
            "classes behind the last label missing",
            lambda target, n_classes: my_useless_logits(target, int(target.max()) + 1),
            "Your rows end with the largest label that occurs: `bincount` counts no further. A "
            "network has one logit per class, whatever the labels are.",
        ),
        WrongSolution(
            "logarithm to base 10",
            _same_for_all(lambda f: f.clamp(min=1e-9).log10()),
            "Your logarithm has base 10. Softmax raises e to its logits, so it undoes the natural "
            "logarithm only.",
        ),
        WrongSolution(
            "logarithm to base 2",
            _same_for_all(lambda f: f.clamp(min=1e-9).log2()),
            "Your logarithm has base 2. Softmax raises e to its logits, so it undoes the natural "
            "logarithm only.",
        ),
        WrongSolution(
            "the labels themselves",
            lambda target, n_classes: F.one_hot(target, n_classes).float(),
            "Your logits follow the label of each image. This network is not useless, it cheats: "
            "it may know how frequent the classes are, not which image is which.",
        ),
        WrongSolution(
            "one row",
            lambda target, n_classes: my_useless_logits(target, n_classes)[0],
            "These are the logits of one image. There is one row per image, all alike.",
        ),
        WrongSolution(
            "minus infinity",
            _same_for_all(torch.log),
            "A class that never occurs has frequency 0, and its logarithm is −∞. A network's "
            "logits are finite: nearly 0 is near enough.",
        ),
        WrongSolution(
            "sign of the logarithm",
            _same_for_all(lambda f: -f.clamp(min=1e-9).log()),
            "You have the sign of the logarithm reversed: the rarest class gets the largest logit.",
        ),
    ),
    hints=(
        "If the network answers the same to every image, how often is it right, at best? Its "
        "confidence must be exactly that.",
        "Softmax of your logits should be the class frequencies. Which logits give "
        "exp(z_k) proportional to f_k?",
        "Count the labels of each class, divide by N, take the logarithm, keep it finite, and "
        "repeat the row N times.",
    ),
    probes=(
        (_labels(4, 10, 6), 3),
        (_labels(5, 9, 10, 6, 8, 12, 4, 28, 7, 11), 10),
        (_labels(7, 0, 3), 3),
        (_labels(4, 6), 5),
    ),
    canonical=lambda logits: logits.softmax(dim=-1),  # logits are known up to a constant
)


# --- 4. Temperature scaling ----------------------------------------------------------------------


def my_temperature(logits, target):
    true_logit = logits.gather(1, target[:, None]).squeeze(1)
    cold, hot = 0.001, 1000.0
    for _ in range(60):
        temperature = (cold * hot) ** 0.5
        # The NLL is convex in 1/T. Its slope there: mean logit under softmax(z/T), minus z_y.
        expected_logit = ((logits / temperature).softmax(dim=1) * logits).sum(dim=1)
        if (expected_logit - true_logit).mean() > 0:
            cold = temperature  # still too sure: warmer
        else:
            hot = temperature
    return temperature


_GRID = torch.logspace(-2, 2, 2001)  # neighbours differ by 0.5 %


def _grid_search(score, grid: Tensor = _GRID):
    """The temperature of the grid with the least score(logits / T, target), one score per T."""

    def wrong(logits, target):
        scores = score(logits / grid[:, None, None], target)
        return grid[scores.argmin()].item()

    return wrong


def _nll(logits: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood of logits (..., N, K): shape (...)."""
    index = target.expand(logits.shape[:-1])[..., None]
    return -logits.log_softmax(dim=-1).gather(-1, index).squeeze(-1).mean(dim=-1)


def _brier(logits: Tensor, target: Tensor) -> Tensor:
    gap = logits.softmax(dim=-1) - F.one_hot(target, logits.shape[-1])
    return gap.square().sum(dim=-1).mean(dim=-1)


def _binned_ece(logits: Tensor, target: Tensor, n_bins: int = 15) -> Tensor:
    confidence, prediction = logits.softmax(dim=-1).max(dim=-1)
    gap = confidence - (prediction == target).float()
    total = gap.new_zeros(len(logits), n_bins).scatter_add(1, _index(confidence, n_bins), gap)
    return total.abs().sum(dim=1)


def _over_confidence(logits: Tensor, target: Tensor) -> Tensor:
    confidence, prediction = logits.softmax(dim=-1).max(dim=-1)
    return (confidence.mean(dim=-1) - (prediction == target).float().mean(dim=-1)).abs()


def _groups(*groups: tuple[float, int, int]) -> tuple[Tensor, Tensor]:
    """Logits (gap, 0, 0) and labels of groups (gap, images, right ones)."""
    logits = [[gap, 0.0, 0.0] for gap, n, _ in groups for _ in range(n)]
    target = [0 if i < right else 1 + i % 2 for _, n, right in groups for i in range(n)]
    return torch.tensor(logits), torch.tensor(target)


def _temperature_case(name: str, given: str, data: tuple[Tensor, Tensor]) -> Case:
    logits, target = data

    def check(answer) -> Finding | None:
        temperature = number(answer(logits, target))
        if not (math.isfinite(temperature) and temperature > 0):
            return Finding(show(temperature), "A temperature is a finite number above 0.")
        best = my_temperature(logits, target)
        excess = (_nll(logits / temperature, target) - _nll(logits / best, target)).item()
        if excess <= 1e-4:
            return None
        better = "higher" if best > temperature else "lower"
        return Finding(
            show(temperature),
            f"The NLL is least at this temperature. But a {better} temperature has a smaller NLL, "
            f"by {excess:.2g} (allowed: 0.0001).",
        )

    return Case(name, given, check)


def _bounded_search(bound: int) -> WrongSolution:
    return WrongSolution(
        f"search stops at {bound}",
        lambda logits, target: min(my_temperature(logits, target), float(bound)),
        f"Your search stops at T = {bound}. A network trained for long can have logits ten times "
        "too large: search in log T, or let the bounds follow the data.",
    )


def _on_its_way(found: list[Tensor]) -> str | None:
    """An optimiser of log T that starts at 0 and stops too early lies between 0 and the best."""
    best = [math.log(my_temperature(*data)) for data in (_TOO_SURE, _MIXED, _FAR_TOO_SURE)]
    way = [f.item() / b for f, b in zip(found, best, strict=False)]
    if not all(0 < share < 1.05 for share in way) or min(way) > 0.99:
        return None
    return (
        "Your temperature lies between 1 and the best one: your optimiser has not arrived. Give it "
        "more steps or a larger learning rate, or let it stop only when the slope is nearly 0."
    )


_TOO_SURE = _groups((6.0, 60, 48), (2.0, 40, 24))
_MIXED = _groups((3.0, 50, 35), (8.0, 30, 27), (1.0, 20, 9))
_FAR_TOO_SURE = _groups((30.0, 50, 40), (12.0, 50, 30))
_TOO_MODEST = _groups((1.0, 60, 52), (2.0, 40, 39))

temperature = Exercise(
    lesson="01",
    name="temperature",
    title="Fit a temperature",
    difficulty=3,
    importance=4,
    minutes=15,
    reference=my_temperature,
    cases=(
        _temperature_case(
            "too sure",
            "100 images in 3 classes: 60 with logits (6, 0, 0), of which 48 are right, and 40 "
            "with (2, 0, 0), of which 24 are right",
            _TOO_SURE,
        ),
        _temperature_case(
            "too modest",
            "100 images in 3 classes: 60 with logits (1, 0, 0), of which 52 are right, and 40 "
            "with (2, 0, 0), of which 39 are right",
            _TOO_MODEST,
        ),
        _temperature_case(
            "far too sure",
            "100 images in 3 classes: 50 with logits (30, 0, 0), of which 40 are right, and 50 "
            "with (12, 0, 0), of which 30 are right",
            _FAR_TOO_SURE,
        ),
        _temperature_case(
            "300 images",
            "300 images in 10 classes from a network twice too sure",
            _NETWORK,
        ),
    ),
    wrong=(
        WrongSolution(
            "the inverse",
            lambda logits, target: 1 / my_temperature(logits, target),
            "You found 1/T: the logits are divided by T, so T > 1 cools down a network that is "
            "too sure.",
        ),
        WrongSolution(
            "least ECE",
            _grid_search(_binned_ece),
            "You minimise ECE. It jumps whenever an image changes bins and depends on their "
            "number; the temperature is defined by the least NLL, which is smooth and has one "
            "minimum.",
        ),
        WrongSolution(
            "confidence = accuracy",
            _grid_search(_over_confidence),
            "You match the mean confidence to the accuracy. That is ECE with a single bin: gaps at "
            "different confidences cancel. Minimise the NLL.",
        ),
        WrongSolution(
            "least Brier score",
            _grid_search(_brier),
            "You minimise the squared error of the probabilities, the Brier score. It forgives "
            "confident mistakes more than the NLL does.",
        ),
        WrongSolution(
            "probabilities divided by T",
            _grid_search(
                lambda scaled, target: _nll(
                    (scaled * _GRID[:, None, None]).softmax(dim=-1) / _GRID[:, None, None], target
                )
            ),
            "You divide the probabilities by T and apply softmax to them again. T divides the "
            "logits, before the only softmax.",
        ),
        WrongSolution(
            "no fit",
            lambda logits, target: 1.0,
            "You return T = 1 for every network. Does your optimiser step at all? Dividing by T "
            "never changes which class is the largest, so accuracy cannot guide it: NLL can.",
        ),
        WrongSolution(
            "never below 1",
            lambda logits, target: max(my_temperature(logits, target), 1.0),
            "Your temperature never falls below 1. A network can be too modest as well, and then "
            "its logits must grow.",
        ),
        _bounded_search(5),
        _bounded_search(10),
        WrongSolution(
            "whole numbers",
            _grid_search(_nll, torch.arange(1.0, 21.0)),
            "You try whole numbers only. The minimum lies between them, and for a modest network "
            "below 1.",
        ),
        WrongSolution(
            "worst NLL",
            _grid_search(
                lambda scaled, target: -_nll(scaled, target), torch.linspace(0.05, 5, 100)
            ),
            "You maximise the NLL: its sign is reversed. The best temperature makes the labels "
            "most likely, and the negative log-likelihood least.",
        ),
    ),
    hints=(
        "One number is sought, and `F.cross_entropy(logits / T, target)` tells how good each T is.",
        "A fine grid over T will do. Let it be a geometric one, `torch.logspace(-2, 2, 4001)`: "
        "temperatures are compared by their ratio. Or let an optimiser find log T, which may be "
        "any number.",
        "As a function of 1/T the NLL is convex: its slope changes sign once. Find where, by "
        "halving an interval, and no grid is needed.",
    ),
    probes=(_TOO_SURE, _MIXED, _FAR_TOO_SURE, _TOO_MODEST),
    tolerance=0.01,
    canonical=torch.log,
    explain=_on_its_way,
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_accuracy = Prediction(
    "01", "predicted_accuracy", "Share of 5,000 new images it gets right", unit="%", within=5
)
predicted_confidence = Prediction(
    "01", "predicted_confidence", "Its mean confidence on them", unit="%", within=5
)
predicted_ruin = Prediction(
    "01",
    "predicted_ruin",
    "Ruined by a bin with few images",
    ("only the ECE", "only the MCE", "both", "neither"),
)
predicted_noise = Prediction(
    "01",
    "predicted_noise",
    "ECE of the calibrated probabilities, from 1,000 images in 15 bins",
    factor=2,
)
predicted_temperature = Prediction(
    "01", "predicted_temperature", "T fitted on validation images", ("below 1", "above 1")
)
predicted_training_temperature = Prediction(
    "01", "predicted_training_temperature", "T fitted on training images", ("below 1", "above 1")
)

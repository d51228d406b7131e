"""Exercises of lesson 08: squared error's confidence, noisy labels, a temperature after a shift."""

import math

import torch
from torch import Tensor

from ..posthoc import TemperatureScaling
from .framework import Exercise, WrongSolution, value_case
from .predictions import Prediction

# --- 1. What mean squared error drives to --------------------------------------------------------


def my_mse_repair(n_classes, accuracy):
    confidence = math.e / (math.e + n_classes - 1)
    ece = abs(confidence - accuracy)
    temperature = 1 / math.log(accuracy * (n_classes - 1) / (1 - accuracy))
    return confidence, ece, temperature


def _confidence(n_classes: float, temperature: float = 1.0) -> float:
    """Softmax of one 1 among zeros."""
    return math.exp(1 / temperature) / (math.exp(1 / temperature) + n_classes - 1)


def _with_confidence(confidence):
    """The three values from another confidence."""

    def wrong(n_classes, accuracy):
        _, _, temperature = my_mse_repair(n_classes, accuracy)
        return confidence(n_classes), abs(confidence(n_classes) - accuracy), temperature

    return wrong


def _with_ece(ece):
    def wrong(n_classes, accuracy):
        confidence, _, temperature = my_mse_repair(n_classes, accuracy)
        return confidence, ece(confidence, accuracy), temperature

    return wrong


def _with_temperature(temperature):
    def wrong(n_classes, accuracy):
        confidence, ece, _ = my_mse_repair(n_classes, accuracy)
        return confidence, ece, temperature(n_classes, accuracy, confidence)

    return wrong


def _by_bisection(n_classes: int, accuracy: float) -> tuple[float, float, float]:
    """By definition: the softmax of a one-hot row, and the temperature found by halving."""
    low, high = 1e-3, 1e3
    for _ in range(80):
        middle = math.sqrt(low * high)
        row = torch.zeros(n_classes, dtype=torch.float64)
        row[0] = 1 / middle
        low, high = (middle, high) if row.softmax(0)[0] > accuracy else (low, middle)
    row = torch.zeros(n_classes, dtype=torch.float64)
    row[0] = 1
    confidence = float(row.softmax(0)[0])
    return confidence, max(confidence, accuracy) - min(confidence, accuracy), low


_REPAIR_SHOULD = (
    "Every image has the same confidence, so one bin holds them all; the temperature makes it the "
    "accuracy."
)

mse_repair = Exercise(
    lesson="08",
    name="mse_repair",
    title="What mean squared error drives to",
    difficulty=2,
    importance=4,
    minutes=12,
    reference=my_mse_repair,
    cases=(
        value_case(
            "ten classes",
            "K = 10, and 90 % of the images are right",
            (10, 0.9),
            (0.231969, 0.668031, 1 / math.log(81)),
            _REPAIR_SHOULD,
        ),
        value_case(
            "two classes",
            "K = 2, and 60 % are right: here the confidence is the larger of the two",
            (2, 0.6),
            (0.731059, 0.131059, 1 / math.log(1.5)),
            _REPAIR_SHOULD,
        ),
        value_case(
            "a hundred classes",
            "K = 100, and 80 % are right",
            (100, 0.8),
            (0.026724, 0.773276, 1 / math.log(396)),
            _REPAIR_SHOULD,
        ),
        value_case(
            "three classes",
            "K = 3, and 55 % are right",
            (3, 0.55),
            _by_bisection,
            _REPAIR_SHOULD,
        ),
    ),
    wrong=(
        WrongSolution(
            "logits taken for probabilities",
            _with_confidence(lambda k: 1.0),
            "Your confidence is 1: you take the one-hot *logits* for probabilities. The network's "
            "outputs still go through the softmax.",
        ),
        WrongSolution(
            "one class too many",
            _with_confidence(lambda k: math.e / (math.e + k)),
            "Your denominator counts one class too many: beside e there are K − 1 terms e⁰ = 1.",
        ),
        WrongSolution(
            "sigmoid",
            _with_confidence(lambda k: math.e / (math.e + 1)),
            "Your confidence is that of two classes, whatever K. Each of the K − 1 others adds 1 "
            "to the denominator.",
        ),
        WrongSolution(
            "sigmoid's other half",
            _with_confidence(lambda k: 1 / (math.e + k - 1)),
            "Your confidence is the probability of one of the *other* classes.",
        ),
        WrongSolution(
            "ECE with a sign",
            _with_ece(lambda c, a: a - c),
            "Your ECE is accuracy less confidence, with its sign. A calibration error is an "
            "absolute value: with two classes the network may well be over-confident.",
        ),
        WrongSolution(
            "ECE as if all were right",
            _with_ece(lambda c, a: 1 - c),
            "Your ECE is 1 − confidence: as if every image were right. A share of them is.",
        ),
        WrongSolution(
            "one over the temperature",
            _with_temperature(lambda k, a, c: math.log(a * (k - 1) / (1 - a))),
            "You return the factor for the logits. They are *divided* by a temperature: it is one "
            "over that factor.",
        ),
        WrongSolution(
            "temperature of two classes",
            _with_temperature(lambda k, a, c: 1 / math.log(a / (1 - a))),
            "Your temperature is right for two classes. With K of them e^{1/T} stands against "
            "K − 1 ones.",
        ),
        WrongSolution(
            "temperature as a ratio",
            _with_temperature(lambda k, a, c: c / a),
            "You divide confidence by accuracy. A temperature divides *logits*, and the softmax "
            "between them and the confidence is no straight line.",
        ),
        WrongSolution(
            "order reversed",
            lambda n_classes, accuracy: my_mse_repair(n_classes, accuracy)[::-1],
            "Your three values are in another order: confidence, ECE, temperature.",
        ),
    ),
    hints=(
        "Write down the softmax of (1, 0, …, 0): one e, and how many ones below?",
        "All images share that confidence, so they share a bin: its accuracy is the share that is "
        "right.",
        "At temperature T the confidence is e^{1/T}/(e^{1/T} + K − 1). Set it equal to the "
        "accuracy and solve for T.",
    ),
    probes=((10, 0.9), (2, 0.6), (100, 0.8), (3, 0.55), (5, 0.3)),
)


# --- 2. The truth behind noisy labels ------------------------------------------------------------


def my_clean_over_confidence(confidence, agreement, rate, n_classes):
    agreed = agreement.float().mean()
    by_luck = rate / (n_classes - 1)
    accuracy = (agreed - by_luck) / (1 - rate - by_luck)
    return confidence.mean() - accuracy


def _with_accuracy(accuracy):
    """Over-confidence with another accuracy, from the share of agreement, the rate and K."""
    return lambda confidence, agreement, rate, n_classes: (
        confidence.mean() - accuracy(agreement.float().mean(), rate, n_classes)
    )


def _noisy_confidence(confidence, agreement, rate, n_classes):
    by_luck = rate / (n_classes - 1)
    through = confidence.mean() * (1 - rate) + (1 - confidence.mean()) * by_luck
    return through - agreement.float().mean()


def _agreement(n: int, agreeing: int) -> Tensor:
    return torch.arange(n) < agreeing


def _spread(n: int, low: float, high: float) -> Tensor:
    return torch.linspace(low, high, n)


_TEN = (torch.full((25,), 0.8), _agreement(25, 16), 0.36, 10)
_TWO = (_spread(25, 0.6, 1.0), _agreement(25, 14), 0.2, 2)
_FIVE = (_spread(50, 0.3, 0.9), _agreement(50, 20), 0.4, 5)
_NONE = (torch.tensor([0.9, 0.8, 0.7, 0.6]), _agreement(4, 2), 0.0, 10)
_CLEAN_SHOULD = "It is the mean confidence less the share that is right by the *true* labels."

clean_over_confidence = Exercise(
    lesson="08",
    name="clean_over_confidence",
    title="The truth behind noisy labels",
    difficulty=3,
    importance=5,
    minutes=15,
    reference=my_clean_over_confidence,
    cases=(
        value_case(
            "no noise",
            "four images with confidence 0.9, 0.8, 0.7, 0.6; two agree with their label; rate 0",
            _NONE,
            0.25,
            "Without noise it is the mean confidence less the accuracy.",
        ),
        value_case(
            "a network that is always right",
            "25 images, all with confidence 0.8, ten classes, 36 % of the labels wrong; 16 agree, "
            "as many as labels are right",
            _TEN,
            -0.2,
            "Such a network agrees with every right label, and with no wrong one.",
        ),
        value_case(
            "two classes",
            "25 images with confidence 0.6 to 1, mean 0.8; 20 % of the labels wrong; 14 agree",
            _TWO,
            0.2,
            _CLEAN_SHOULD,
        ),
        value_case(
            "five classes",
            "50 images with confidence 0.3 to 0.9, mean 0.6; the network is right on 30. Of those "
            "60 % keep their label and agree; of the other 20 the noise hits the answer on a "
            "tenth: 20 agree",
            _FIVE,
            0.0,
            _CLEAN_SHOULD,
        ),
    ),
    wrong=(
        WrongSolution(
            "noise forgotten",
            _with_accuracy(lambda agreed, rate, k: agreed),
            "You take agreement with noisy labels for accuracy. A network that is always right "
            "agrees with the right labels only.",
        ),
        WrongSolution(
            "rate added",
            _with_accuracy(lambda agreed, rate, k: agreed + rate),
            "You add the rate to the agreement, as if every wrong label stood on an image that the "
            "network has right. It also falls on its mistakes.",
        ),
        WrongSolution(
            "luck forgotten",
            _with_accuracy(lambda agreed, rate, k: agreed / (1 - rate)),
            "You let a wrong label never agree with a wrong answer. Of the K − 1 classes that the "
            "noise may choose, one is the network's answer.",
        ),
        WrongSolution(
            "luck of K classes",
            _with_accuracy(lambda agreed, rate, k: (agreed - rate / k) / (1 - rate - rate / k)),
            "You let the noise choose among all K classes. A wrong label is one of the K − 1 "
            "*others*.",
        ),
        WrongSolution(
            "luck in the numerator alone",
            _with_accuracy(lambda agreed, rate, k: (agreed - rate / (k - 1)) / (1 - rate)),
            "You subtract the luck from the agreement but not from the slope: agreement grows from "
            "r/(K−1), where no answer is right, to 1 − r, where all are.",
        ),
        WrongSolution(
            "through the noise",
            _noisy_confidence,
            "You send the confidence through the noise and compare there. That shrinks the "
            "difference; asked for is the over-confidence about the true labels.",
        ),
        WrongSolution(
            "sign reversed",
            lambda *arguments: -my_clean_over_confidence(*arguments),
            "Your sign is reversed: over-confidence is confidence less accuracy.",
        ),
        WrongSolution(
            "absolute value",
            lambda *arguments: abs(my_clean_over_confidence(*arguments)),
            "You drop the sign. Under-confidence is negative, and noise in the labels teaches just "
            "that.",
        ),
        WrongSolution(
            "accuracy alone",
            lambda confidence, *rest: (
                confidence.mean() - my_clean_over_confidence(confidence, *rest)
            ),
            "You return the accuracy by the true labels. Asked for is the confidence less that.",
        ),
    ),
    hints=(
        "Let a be the accuracy by the true labels. Where the network is right, when does the noisy "
        "label agree with it? And where it is wrong?",
        "Right: if the label was left alone, 1 − r. Wrong: if the noise happened to pick the "
        "network's answer among the K − 1 others, r/(K − 1).",
        "So agreement = a (1 − r) + (1 − a) r/(K − 1). Solve for a.",
    ),
    probes=(_TEN, _TWO, _FIVE, _NONE, (_spread(8, 0.5, 0.9), _agreement(8, 3), 0.1, 4)),
)


# --- 3. What a temperature fitted before the shift leaves ----------------------------------------


def my_shift_gap(fit, before, before_target, after, after_target):
    fitted = fit(before, before_target)
    confidence = (after / fitted).softmax(dim=1).amax(dim=1).mean()
    accuracy = (after.argmax(dim=1) == after_target).float().mean()
    return fitted, confidence - accuracy, fit(after, after_target)


def _left(logits: Tensor, target: Tensor) -> Tensor:
    accuracy = (logits.argmax(dim=1) == target).to(logits).mean()
    return logits.softmax(dim=1).amax(dim=1).mean() - accuracy


def _gap_of(left):
    """The three values with another one in the middle, from both temperatures and all data."""

    def wrong(fit, before, before_target, after, after_target):
        fitted, needed = fit(before, before_target), fit(after, after_target)
        return fitted, left(fitted, needed, before, before_target, after, after_target), needed

    return wrong


def _needed_of(scaled):
    def wrong(fit, before, before_target, after, after_target):
        fitted, left, _ = my_shift_gap(fit, before, before_target, after, after_target)
        return fitted, left, fit(scaled(after, fitted), after_target)

    return wrong


def _fit(logits: Tensor, target: Tensor) -> float:
    """The temperature of least validation loss."""
    return TemperatureScaling().fit(logits, target).temperature


def _stand_in(logits: Tensor, target: Tensor) -> float:
    """What can be checked by hand: the number of images, and the sum of the labels."""
    return float(len(logits) + target.sum())


def _by_definition(fit, before, before_target, after, after_target):
    """Image by image, in float64."""
    fitted, total = fit(before, before_target), 0.0
    for row, label in zip(after.double().tolist(), after_target.tolist(), strict=True):
        weights = [math.exp((z - max(row)) / fitted) for z in row]
        total += 1 / sum(weights) - (row.index(max(row)) == label)
    return fitted, total / len(after), fit(after, after_target)


def _made_up(n: int, n_classes: int, right: float, height: float, seed: int):
    """Logits of n images of which about a share is right, the label's or a rival's the largest."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(n_classes, (n,), generator=generator)
    hit = torch.rand(n, generator=generator) < right
    away = torch.randint(1, n_classes, (n,), generator=generator)
    answer = torch.where(hit, target, (target + away) % n_classes)
    logits = torch.randn(n, n_classes, generator=generator)
    return logits.scatter_add(1, answer[:, None], height + logits.abs().amax(1, True)), target


_BY_HAND = (
    _stand_in,
    torch.zeros(2, 2),
    torch.tensor([0, 0]),
    2 * torch.tensor([[3.0, 1.0], [1.0, 3.0], [1.0, 3.0], [3.0, 1.0]]).log(),
    torch.tensor([0, 0, 1, 1]),
)
_SHIFTED = (_fit, *_made_up(200, 4, 0.85, 3.0, 0), *_made_up(120, 4, 0.4, 2.0, 1))
_HARMLESS = (_fit, *_made_up(150, 3, 0.8, 2.0, 2), *_made_up(150, 3, 0.9, 1.0, 3))
_OTHER = (_stand_in, *_made_up(3, 5, 0.8, 1.0, 4), *_made_up(4, 5, 0.5, 1.0, 5))

shift_gap = Exercise(
    lesson="08",
    name="shift_gap",
    title="What a temperature fitted before the shift leaves",
    difficulty=3,
    importance=5,
    minutes=15,
    reference=my_shift_gap,
    cases=(
        value_case(
            "by hand",
            "`fit` is a stand-in that gives 2 for the two images before, and 6 for the four after; "
            "after the shift, at T = 2, each is sure to 3/4, and two are right",
            _BY_HAND,
            (2.0, 0.25, 6.0),
            "The temperature fitted before divides the logits after the shift; what is left is "
            "mean confidence less accuracy.",
        ),
        value_case(
            "a shift that hurts",
            "200 images before, most of them right; 120 after, most of them wrong; `fit` minimises "
            "the loss",
            _SHIFTED,
            _by_definition,
            "Each value is what its name says, image by image.",
        ),
        value_case(
            "a shift that helps",
            "150 images before, 150 after, of which more are right than before",
            _HARMLESS,
            _by_definition,
            "A temperature may also be too high afterwards: what is left keeps its sign.",
        ),
    ),
    wrong=(
        WrongSolution(
            "fitted on the shifted images",
            _gap_of(lambda fitted, needed, b, bt, a, at: _left(a / needed, at)),
            "You divide by the temperature of the shifted images. Nobody has their labels when the "
            "shift arrives: the one fitted before is all there is.",
        ),
        WrongSolution(
            "no temperature",
            _gap_of(lambda fitted, needed, b, bt, a, at: _left(a, at)),
            "You measure the raw logits. Divide them by the fitted temperature first.",
        ),
        WrongSolution(
            "multiplied",
            _gap_of(lambda fitted, needed, b, bt, a, at: _left(a * fitted, at)),
            "You multiply by the temperature: above 1, that makes the network surer still.",
        ),
        WrongSolution(
            "measured before the shift",
            _gap_of(lambda fitted, needed, b, bt, a, at: _left(b / fitted, bt)),
            "You measure on the images before the shift, where the temperature was made to fit.",
        ),
        WrongSolution(
            "accuracy from before",
            _gap_of(
                lambda fitted, needed, b, bt, a, at: (
                    _left(a / fitted, at)
                    + (a.argmax(1) == at).to(a).mean()
                    - (b.argmax(1) == bt).to(b).mean()
                )
            ),
            "You compare the confidence after the shift with the accuracy before it.",
        ),
        WrongSolution(
            "probabilities divided",
            _gap_of(
                lambda fitted, needed, b, bt, a, at: (
                    a.softmax(1).amax(1).mean() / fitted - (a.argmax(1) == at).to(a).mean()
                )
            ),
            "You divide the probabilities. A temperature divides logits, before the softmax.",
        ),
        WrongSolution(
            "absolute value",
            _gap_of(lambda fitted, needed, b, bt, a, at: _left(a / fitted, at).abs()),
            "You drop the sign: a network may be left under-confident as well.",
        ),
        WrongSolution(
            "sign reversed",
            _gap_of(lambda fitted, needed, b, bt, a, at: -_left(a / fitted, at)),
            "Your sign is reversed: over-confidence is confidence less accuracy.",
        ),
        WrongSolution(
            "what is still missing",
            _needed_of(lambda after, fitted: after / fitted),
            "Your last value is fitted on logits that were divided already. Asked for is the "
            "temperature that the network's own logits need.",
        ),
        WrongSolution(
            "temperatures exchanged",
            lambda *arguments: my_shift_gap(*arguments)[::-1],
            "Your values are in the other order: the temperature fitted before comes first.",
        ),
    ),
    hints=(
        "Fit on the images before the shift, with their labels. Then take that number to the "
        "images after it.",
        "Confidence is the largest softmax probability of `after / fitted`; accuracy does not "
        "depend on the temperature.",
        "The last value is the temperature you would have fitted had you had the labels of the "
        "shifted images: `fit(after, after_target)`.",
    ),
    probes=(_BY_HAND, _SHIFTED, _HARMLESS, _OTHER),
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_mse_sharpness = Prediction(
    "08",
    "predicted_mse_sharpness",
    "Sharpness under squared error, from step 100 on",
    ("it fades", "it stays at a level", "it grows to the end"),
)
predicted_mse_ece = Prediction(
    "08", "predicted_mse_ece", "Training ECE under squared error, at the end", within=0.15
)
predicted_truth_at_best = Prediction(
    "08",
    "predicted_truth_at_best",
    "Share of the mislabelled answered with the true class, at best",
    unit="%",
    within=15,
)
predicted_truth_at_the_end = Prediction(
    "08", "predicted_truth_at_the_end", "The same, at the end", unit="%", within=5
)
predicted_doubt = Prediction(
    "08", "predicted_doubt", "How many times doubt grows from 0° to 20°", factor=1.3
)
predicted_side = Prediction(
    "08",
    "predicted_side",
    "Where in its band the ECE lies at 20°",
    ("near |u − err|", "near the middle", "near u + err"),
)
predicted_smoothing = Prediction(
    "08",
    "predicted_smoothing",
    "Label smoothing against a temperature, the strongest shift of each kind",
    ("lower ECE under most", "lower under two of four", "higher under most"),
)
predicted_five = Prediction(
    "08",
    "predicted_five",
    "Share of Q that five images of 5,000 hold",
    unit="%",
    within=15,
)
predicted_ece_moves = Prediction(
    "08",
    "predicted_ece_moves",
    "Without them the ECE moves",
    ("by less than 0.003", "by 0.003 to 0.03", "by more"),
)
predicted_lost_tempered = Prediction(
    "08",
    "predicted_lost_tempered",
    "Right answers that the CNN with its temperature loses",
    unit="%",
    within=15,
)
predicted_lost_flat = Prediction(
    "08",
    "predicted_lost_flat",
    "Right answers that the one trained with smoothness loses",
    unit="%",
    within=15,
)

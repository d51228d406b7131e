"""Exercise of lesson 00: one number that says over- or under-confident."""

import torch

from .framework import Exercise, WrongSolution, value_case
from .predictions import Prediction


def my_over_confidence(confidence, correct):
    return confidence.mean() - correct.float().mean()


def _sample(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    confidence = 0.3 + 0.7 * torch.rand(n, generator=generator)
    return confidence, torch.rand(n, generator=generator) < 0.6


_YES_YES_YES_NO = torch.tensor([True, True, True, False])

over_confidence = Exercise(
    lesson="00",
    name="over_confidence",
    title="How over-confident is a network?",
    difficulty=1,
    importance=4,
    minutes=5,
    reference=my_over_confidence,
    cases=(
        value_case(
            "too sure",
            "four images, each with confidence 0.95; three are right",
            (torch.full((4,), 0.95), _YES_YES_YES_NO),
            0.2,
            "The result is how far the confidence lies above the share of right images.",
        ),
        value_case(
            "not sure enough",
            "four images, each with confidence 0.55; three are right",
            (torch.full((4,), 0.55), _YES_YES_YES_NO),
            -0.2,
            "An under-confident network gets a negative number.",
        ),
        value_case(
            "different confidences",
            "confidences 0.9, 0.8, 0.7, 0.4; the first three are right",
            (torch.tensor([0.9, 0.8, 0.7, 0.4]), _YES_YES_YES_NO),
            -0.05,
            "Every image counts the same, right or wrong, sure or not.",
        ),
        value_case(
            "500 images",
            "500 random confidences between 0.3 and 1, about 60 % of the images right",
            _sample(500, seed=1),
            my_over_confidence,
            "The same definition holds for any number of images.",
        ),
    ),
    wrong=(
        WrongSolution(
            "sign reversed",
            lambda confidence, correct: correct.float().mean() - confidence.mean(),
            "The sign is reversed. A network that is surer than it is right is over-confident, and "
            "its number is positive.",
        ),
        WrongSolution(
            "absolute value",
            lambda confidence, correct: (confidence.mean() - correct.float().mean()).abs(),
            "You took an absolute value. It hides the direction: too sure and not sure enough "
            "would look the same.",
        ),
        WrongSolution(
            "gap of each image",
            lambda confidence, correct: (confidence - correct.float()).abs().mean(),
            "You took the gap of each image before the mean. A single image is right or wrong, "
            "so even an honest 0.7 has a gap of 0.3 or 0.7. Confidence can only be compared with "
            "how often a whole group is right.",
        ),
        WrongSolution(
            "sum instead of mean",
            lambda confidence, correct: (confidence - correct.float()).sum(),
            "You added up over the images where a mean is needed: the number would grow with "
            "the size of the test set.",
        ),
        WrongSolution(
            "in per cent",
            lambda confidence, correct: 100 * (confidence.mean() - correct.float().mean()),
            "Your number is in per cent, 100 times too large. Confidence and accuracy are "
            "probabilities, and so is their difference: five points are 0.05.",
        ),
        WrongSolution(
            "error rate left out",
            lambda confidence, correct: 1 - confidence.mean(),
            "You measured doubt, 1 − confidence, and never looked at `correct`. A confident "
            "network that is right as often as it says is not over-confident.",
        ),
        WrongSolution(
            "only the mistakes",
            lambda confidence, correct: confidence[~correct].mean(),
            "You looked at the wrong images only. An honest network is wrong at times with high "
            "confidence: compare with all images.",
        ),
    ),
    hints=(
        "Two numbers are compared: how sure the network is on average, and how often it is right.",
        "`correct` holds True and False. Torch takes means of numbers only: turn it into floats.",
        "One mean minus another. Which comes first, if over-confident is to be positive?",
    ),
    probes=(
        (torch.full((4,), 0.95), _YES_YES_YES_NO),
        (torch.full((4,), 0.55), _YES_YES_YES_NO),
        _sample(50, seed=2),
    ),
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_sharpness = Prediction(
    "00",
    "predicted_sharpness",
    "The sharpness, from start to end",
    ("it rises", "it falls", "it rises, then falls", "it falls, then rises"),
)
predicted_bars = Prediction(
    "00",
    "predicted_bars",
    "Where the test images' reliability diagram ends",
    ("below the line: too sure", "on the line", "above the line: too modest"),
)

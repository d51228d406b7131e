"""What the audit makes of numbers, to the word: hints that help, none where they would mislead."""

import re

import numpy as np
import pytest

from calibcourse.audit.scores import MASKED, as_logits

LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 0.0]])
TARGET = np.array([0, 1, 2, 0])
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
SAY = "say which by --scores logits, --scores probabilities or --scores log-probabilities"
NO_DISTRIBUTION = "sigmoids of one class against the rest are no distribution over classes"
TWO_WRONG = P.copy()
TWO_WRONG[[1, 3]] *= 0.5

# values, labels, kind of scores, the whole message
REFUSED = {
    "an unknown kind": (LOGITS, TARGET, "odds",
        "scores must be one of log-probabilities, logits, probabilities; got 'odds'"),
    "text": (LOGITS.astype(str), TARGET, None,
        "scores must be numbers of shape (N, K) or (N,), got <U32, (4, 3)"),
    "one-hot labels": (LOGITS, np.eye(3)[TARGET], None,
        "labels must have shape (4,) like the scores, got (4, 3): "
        "one-hot labels? give their argmax"),
    "too few labels": (LOGITS, TARGET[:3], None,
        "labels must have shape (4,) like the scores, got (3,)"),
    "labels that are text": (LOGITS, TARGET.astype(str), None,
        "labels must be whole numbers, got <U21"),
    "fractions": (LOGITS, TARGET + 0.5, None,
        "labels must be whole numbers, got fractions, NaN or infinite values"),
    "labels from 1": (LOGITS, np.array([1, 2, 3, 1]), None,
        "labels must lie in 0..2, got 1 to 3: do they count from 1? subtract 1"),
    "labels of more classes": (LOGITS, np.array([0, 1, 3, 0]), None,
        "labels must lie in 0..2, got 0 to 3"),
    "probabilities unsaid": (P, TARGET, None,
        f"all scores lie in [0, 1] and may be probabilities: {SAY}"),
    "percentages": (100 * P, TARGET, "probabilities",
        f"probabilities must lie in [0, 1], got {100 * P.min():g} to {100 * P.max():g}: "
        "percentages? divide by 100"),
    "a whole percentage": (np.array([[100.0, 0.0]]), np.array([0]), "probabilities",
        "probabilities must lie in [0, 1], got 0 to 100: percentages? divide by 100"),
    "just above 100": (np.array([[101.0, 0.0]]), np.array([0]), "probabilities",
        "probabilities must lie in [0, 1], got 0 to 101"),
    "negative": (P - 0.5, TARGET, "probabilities",
        f"probabilities must lie in [0, 1], got {(P - 0.5).min():g} to {(P - 0.5).max():g}"),
    "just above 1": (np.array([[1.01, 0.0]]), np.array([0]), "probabilities",
        "probabilities must lie in [0, 1], got 0 to 1.01: percentages? divide by 100"),
    "no distributions": (TWO_WRONG, TARGET, "probabilities",
        "probabilities must sum to 1 in every row, got 0.5 in sample 1 (2 of 4 rows): "
        + NO_DISTRIBUTION),
    "no logarithms of distributions": (np.log(TWO_WRONG), TARGET, "log-probabilities",
        "the exponentials must sum to 1 in every row, got 0.5 in sample 1 (2 of 4 rows): "
        + NO_DISTRIBUTION),
    "logits as logarithms": (LOGITS, TARGET, "log-probabilities",
        "log-probabilities must be at most 0, got 3"),
    "barely above 0": (np.array([[0.01, -9.0]]), np.array([0]), "log-probabilities",
        "log-probabilities must be at most 0, got 0.01"),
    "one column of logarithms": (np.log(P[:, 0]), TARGET > 0, "log-probabilities",
        "log-probabilities must have a column for each class, got one column"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_was_wrong_and_what_to_do(name):
    values, target, kind, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        as_logits(values, target, kind)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int8", "float64"),
        ("uint8", "float64"),
        ("int64", "float64"),
    ],
)
def test_precision_is_kept_where_there_is_any(given, expected):
    values = np.array([[3, 1, 2]] * 4).astype(given)
    logits, _ = as_logits(values, TARGET)
    assert str(logits.dtype) == f"torch.{expected}" and logits.tolist() == [[3, 1, 2]] * 4


@pytest.mark.parametrize("n_masks", [1, 2, 3])
def test_a_constant_is_a_mask_where_more_than_one_in_a_hundred_samples_has_it(n_masks):
    """200 samples: two large logits may be two large logits, three alike are a mask."""
    values = np.tile(LOGITS, (50, 1))
    values[np.arange(n_masks) * 4, 2] = -2e4
    logits, _ = as_logits(values, np.tile(TARGET, 50))
    lowest = float(logits.min())
    assert lowest == (MASKED if n_masks == 3 else -2e4)
    assert int((logits == lowest).sum()) == n_masks


def test_a_constant_that_is_not_low_is_no_mask():
    values = np.tile(LOGITS, (50, 1))
    values[:, 2] = -9999.0
    target = np.where(np.tile(TARGET, 50) == 2, 1, np.tile(TARGET, 50))
    assert float(as_logits(values, target)[0].min()) == -9999.0

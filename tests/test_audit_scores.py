"""What the audit makes of numbers, to the word: hints that help, none where they would mislead."""

import re
import warnings

import numpy as np
import pytest

from calibcourse.audit.scores import MASKED, as_logits

LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 0.0]])
TARGET = np.array([0, 1, 2, 0])
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
SAY = "say which by --scores logits, --scores probabilities or --scores log-probabilities"
NO_DISTRIBUTION = "sigmoids of one class against the rest are no distribution over classes"
WRONG = P.copy()
WRONG[[1, 2, 3]] *= [[0.5], [0.949], [1.051]]

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
    "logits from 0 to 1": (np.array([[0.0, 1.0]]), np.array([0]), None,
        f"all scores lie in [0, 1] and may be probabilities: {SAY}"),
    "one column from 0 to 1": (np.array([0.0, 1.0]), np.array([0, 1]), None,
        f"all scores lie in [0, 1] and may be probabilities: {SAY}"),
    "one column from 0 to 100": (np.array([0.0, 100.0]), np.array([0, 1]), None,
        f"all scores lie in [0, 100] and may be percentages: {SAY} after dividing by 100"),
    "rounded probabilities, two rows of three": (
        np.array([[0.0, 1.04], [0.7, 0.26], [0.5, 0.6]]), np.array([0, 1, 0]), None,
        f"most rows are non-negative and sum to 1 as probabilities do; sample 2 does not: {SAY}"),
    "rounded probabilities, each row": (np.array([[0.0, 1.04], [0.7, 0.26]]), np.array([0, 1]),
        None, f"most rows are non-negative and sum to 1 as probabilities do: {SAY}"),
    "rounded percentages": (np.array([[0.0, 105.0], [70.0, 25.0]]), np.array([0, 1]), None,
        "most rows are non-negative and sum to 100 as percentages do: "
        f"{SAY} after dividing by 100"),
    "NaN": (np.array([[1.0, 2.0], [np.nan, 3.0], [np.nan, 1.0]]), np.array([0, 0, 0]), None,
        "scores must be finite, or -inf where a class is masked; sample 1 holds NaN, +inf or "
        "nothing else"),
    "no class but masked ones": (np.array([[1.0, 2.0], [-np.inf, -np.inf]]), np.array([0, 0]), None,
        "scores must be finite, or -inf where a class is masked; sample 1 holds NaN, +inf or "
        "nothing else"),
    "a masked label": (
        np.array([[-np.inf, 2.0, 0.0], [2.0, -np.inf, 0.0], [0.0, 3.0, -np.inf]]),
        np.array([1, 1, 2]), None,
        "labels must be no masked class, got 2, the first in sample 1"),
    "three axes": (LOGITS[None], TARGET, None,
        "scores must be numbers of shape (N, K) or (N,), got float64, (1, 4, 3)"),
    "no classes": (LOGITS[:, :0], TARGET, None,
        "scores must be numbers of shape (N, K) or (N,), got float64, (4, 0)"),
    "labels that are NaN": (LOGITS, np.array([0, np.nan, 1, 1]), None,
        "labels must be whole numbers, got fractions, NaN or infinite values"),
    "infinite labels": (LOGITS, np.array([0, np.inf, 1, 1]), None,
        "labels must be whole numbers, got fractions, NaN or infinite values"),
    "a label below 0": (LOGITS, np.array([0, -1, 2, 0]), None,
        "labels must lie in 0..2, got -1 to 2"),
    "labels from 1, none of the last class": (LOGITS, np.array([1, 3, 1, 1]), None,
        "labels must lie in 0..2, got 1 to 3: do they count from 1? subtract 1"),
    "a row of labels": (LOGITS, TARGET[None], None,
        "labels must have shape (4,) like the scores, got (1, 4)"),
    "labels in two columns": (LOGITS, np.stack([TARGET, TARGET], 1), None,
        "labels must have shape (4,) like the scores, got (4, 2)"),
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
    "no distributions": (WRONG, TARGET, "probabilities",
        "probabilities must sum to 1 in every row, got 0.5 in sample 1 (3 of 4 rows): "
        + NO_DISTRIBUTION),
    "no logarithms of distributions": (np.log(WRONG), TARGET, "log-probabilities",
        "the exponentials must sum to 1 in every row, got 0.5 in sample 1 (3 of 4 rows): "
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


@pytest.mark.parametrize(("n_masks", "read"), [(1, -2e4), (2, MASKED)])
def test_of_few_samples_two_are_needed_for_a_mask(n_masks, read):
    values = LOGITS.copy()
    values[:n_masks, 2] = -2e4
    assert float(as_logits(values, TARGET)[0].min()) == read


def test_rows_lie_one_after_another_in_memory():
    """Whatever their order in the file: what follows reads blocks of samples."""
    assert as_logits(np.asfortranarray(LOGITS), TARGET)[0].is_contiguous()


def test_a_constant_that_is_not_low_is_no_mask():
    values = np.tile(LOGITS, (50, 1))
    values[:, 2] = -9999.0
    target = np.where(np.tile(TARGET, 50) == 2, 1, np.tile(TARGET, 50))
    assert float(as_logits(values, target)[0].min()) == -9999.0


def test_scores_that_are_told_are_not_asked_about():
    for values in (P, 100 * P, np.array([0.0, 1.0, 1.0, 0.0])):
        logits, _ = as_logits(values, TARGET > 0, "logits")
        np.testing.assert_array_equal(logits[:, 1] - logits[:, 0], np.diff(_columns(values))[:, 0])


def _columns(values):
    return values if values.ndim == 2 else np.stack([0 * values, values], 1)


@pytest.mark.parametrize(
    "values",
    [
        [[0.0, 1.06], [0.5, 0.44]],  # no row sums to 1 within the rounding
        [[0.5, 0.5], [2.0, 0.5]],  # half of the rows, no more
        [[-0.01, 1.01], [1.01, -0.01], [-1.0, 2.0]],  # a negative score in each row
        [[0.0, 106.0], [50.0, 44.0]],  # nor to 100
        [[-0.01], [1.01]],  # one column has no sum to speak of
        [[0.0], [100.5]],
    ],
)
def test_logits_that_could_not_be_probabilities_are_read(values):
    values = np.array(values)
    logits, _ = as_logits(values, np.zeros(len(values), int))
    assert logits[:, -1].tolist() == values[:, -1].tolist()


def test_rounding_is_forgiven_up_to_one_in_twenty():
    rounded = P * [[1.049], [0.951], [1.0], [1.0]]
    for values, kind in ((rounded, "probabilities"), (np.log(rounded), "log-probabilities")):
        logits, _ = as_logits(values, TARGET, kind)
        np.testing.assert_allclose(logits, np.log(rounded), rtol=1e-15)  # one rounding of a log
    barely = np.array([[1.0009, 0.0], [0.5, 0.5]])
    assert as_logits(barely, TARGET[:2], "probabilities")[0][0].tolist() == [
        np.log(1.0009), np.log(0.25)
    ]  # fmt: skip
    barely = np.array([[0.0009, -9.0]])
    assert as_logits(barely, TARGET[:1], "log-probabilities")[0].tolist() == barely.tolist()


def test_a_single_column_is_that_of_class_1():
    p = np.array([0.25, 0.0, 1.0])
    logits, _ = as_logits(p, np.array([0, 0, 1]), "probabilities")
    half = np.log(0.125)  # of the smallest positive one
    expected = [[np.log(0.75), np.log(0.25)], [0.0, half], [half, 0.0]]
    assert logits.tolist() == expected
    logits, labels = as_logits(np.array([[2.0], [-3.0]]), np.array([[True], [False]]))
    assert logits.tolist() == [[0.0, 2.0], [0.0, -3.0]] and labels.tolist() == [1, 0]


def test_masks_of_the_smallest_float32_are_masks():
    """Two of them in a row add up beyond float32, which is no reason to warn."""
    lowest = np.finfo(np.float32).min
    values = np.array([[1.0, lowest, lowest], [0.0, 2.0, lowest]], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits, _ = as_logits(values, np.array([0, 1]))
    assert logits.tolist() == [[1.0, MASKED, MASKED], [0.0, 2.0, MASKED]]


def test_a_mask_of_minus_infinity_is_one_wherever_it_is_met():
    values = np.tile(LOGITS, (50, 1))
    values[0, 2] = -np.inf  # once in 200 samples
    logits, _ = as_logits(values, np.tile(TARGET, 50))
    values[0, 2] = MASKED
    assert logits.tolist() == values.tolist()


def test_a_constant_of_minus_ten_thousand_is_a_mask():
    values = np.column_stack([LOGITS, np.full(4, -1e4)])
    assert as_logits(values, TARGET)[0][:, 3].tolist() == [MASKED] * 4

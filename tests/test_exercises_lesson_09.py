"""Answers to lesson 09 as learners write them, in other words than the references."""

import pytest
import torch

from calibcourse.exercises import lesson_09
from calibcourse.exercises.framework import Outcome


def verdict_by_percentiles(in_noise, difference, resampled):
    """The bootstrap's percentiles, instead of a normal interval: as good an answer."""
    gaps = resampled[:, 0] - resampled[:, 1]
    low, high = gaps.quantile(torch.tensor([0.025, 0.975], dtype=gaps.dtype))
    if all(in_noise) or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def test_percentiles_are_right_too():
    feedback = lesson_09.verdict.evaluate(verdict_by_percentiles)
    assert feedback.outcome is Outcome.CORRECT, feedback


def verdict_of_two_intervals(in_noise, difference, resampled):
    first, second = resampled.mean(0)
    reach_first, reach_second = 1.96 * resampled.std(0)
    if first - reach_first > second + reach_second:
        return 1
    return -1 if first + reach_first < second - reach_second else 0


def verdict_if_none_is_in_noise(in_noise, difference, resampled):
    half = 1.96 * (resampled[:, 0] - resampled[:, 1]).std()
    if in_noise[0] or in_noise[1] or abs(difference) <= half:
        return 0
    return 1 if difference > 0 else -1


def hidden_by_label(logits, target):
    confidence, said = logits.softmax(1).max(1)
    best = (-1.0, 0, 0.0)
    for k in target.unique().tolist():
        c, right = confidence[target == k], (said == k)[target == k].float()
        off = (c - right).sum()
        best = max(best, (float(off.abs() / (c * (1 - c)).sum().sqrt()), k, float(off / len(c))))
    return best[1:]


def split_without_sisters(trained_on, group):
    new = torch.logical_not(trained_on)
    return new & (group % 2 == 0), new & (group % 2 == 1)


@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    [
        (lesson_09.verdict, verdict_of_two_intervals, "two intervals that overlap, noise ignored"),
        (lesson_09.verdict, verdict_if_none_is_in_noise, "one in the noise is enough"),
        (lesson_09.hidden_class, hidden_by_label, "by the label"),
        (lesson_09.split, split_without_sisters, "sisters of training photos kept"),
    ],
)
def test_mistakes_in_other_words_get_the_same_diagnosis(exercise, answer, name):
    expected = next(wrong.diagnosis for wrong in exercise.wrong if wrong.name == name)
    feedback = exercise.evaluate(answer)
    assert feedback.diagnosis == expected, feedback


def test_bools_are_not_told_of_fractions():
    assert "fractions" not in repr(lesson_09.split.evaluate(split_without_sisters))


def test_two_kinds_of_wrong_conclusions_are_named_one_after_the_other():
    def answer():
        return [0, 0, 3, 0, 1, 4, 1, 2, 3, 4]  # a tie is equality; other photos need but more

    first = lesson_09.missing.evaluate(answer)
    assert "sentence 2" in repr(first) and "“not seen” for “not there”" in first.diagnosis
    second = lesson_09.missing.evaluate(lambda: [0, 1, 3, 0, 1, 4, 1, 2, 3, 4])
    assert "sentence 5" in repr(second) and "photos of another kind" in second.diagnosis

"""Every exercise of every lesson: the reference passes and each known mistake gets its diagnosis.

The lesson modules are found in the package, so a new lesson is covered as soon as it exists.
"""

import ast
import inspect
import math
import textwrap

import calibration as uncertainty_calibration
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from calibcourse.exercises import all_exercises, lesson_00, lesson_01, lesson_02
from calibcourse.exercises.framework import Exercise, Outcome

EXERCISES = all_exercises()
every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.key)
every_mistake = pytest.mark.parametrize(
    ("exercise", "wrong"),
    [(exercise, wrong) for exercise in EXERCISES for wrong in exercise.wrong],
    ids=lambda value: value.key if isinstance(value, Exercise) else value.name.replace(" ", "-"),
)


def _stub_like(function):
    """What a learner's copy holds before any work: the same arguments, and dots."""
    names = ", ".join(inspect.signature(function).parameters)
    namespace: dict = {}
    exec(f"def stub({names}):\n    ...  # your code here", namespace)
    return namespace["stub"]


@every_exercise
def test_reference_is_correct(exercise):
    feedback = exercise.evaluate(exercise.reference)
    assert feedback.outcome is Outcome.CORRECT, feedback


@every_exercise
def test_stub_is_not_attempted(exercise):
    assert exercise.evaluate(_stub_like(exercise.reference)).outcome is Outcome.NOT_ATTEMPTED


@every_mistake
def test_each_mistake_gets_its_own_diagnosis(exercise, wrong):
    feedback = exercise.evaluate(wrong.function)
    assert feedback.outcome is Outcome.INCORRECT, feedback
    assert feedback.diagnosis == wrong.diagnosis, feedback


@every_exercise
def test_mistakes_are_at_least_three_and_told_apart(exercise):
    assert len(exercise.wrong) >= 3
    assert len({wrong.name for wrong in exercise.wrong}) == len(exercise.wrong)
    assert len({wrong.diagnosis for wrong in exercise.wrong}) == len(exercise.wrong)


@every_exercise
def test_raising_answer_is_shown_with_its_line_and_no_path(exercise):
    mistake = ArithmeticError("my mistake in /home/ada/course/work.py")

    def answer(*arguments):
        raise mistake

    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.RAISED
    assert "ArithmeticError: my mistake in work.py" in repr(feedback)
    assert "of answer: raise mistake" in repr(feedback)
    assert "/home" not in repr(feedback) + feedback.card._repr_html_()


@every_exercise
def test_hints_lead_without_telling(exercise):
    assert len(exercise.hints) >= 2
    assert len(set(exercise.hints)) == len(exercise.hints)
    statements = _statements(exercise.reference)
    assert statements
    told = [exercise.hints, [wrong.diagnosis for wrong in exercise.wrong]]
    for text in [text for texts in told for text in texts]:
        # Whole statements of the solution, compared without white space.
        assert not [line for line in statements if line in "".join(text.split())]


def _statements(function) -> list[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    inner = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Return)]
    values = ["".join(ast.unparse(node.value).split()) for node in inner if node.value]
    return [value for value in values if len(value) > 15]  # `count` alone is no solution


@pytest.mark.slow
@every_exercise
def test_output_is_the_same_twice(exercise):
    for answer in (exercise.reference, exercise.wrong[0].function, exercise.wrong[-1].function):
        first, second = exercise.evaluate(answer), exercise.evaluate(answer)
        assert repr(first) == repr(second)
        assert first.card._repr_html_() == second.card._repr_html_()


@every_exercise
def test_declaration_is_complete(exercise):
    lesson = inspect.getmodule(exercise.reference)
    assert lesson.__name__.endswith(f"lesson_{exercise.lesson}")
    assert getattr(lesson, exercise.name) is exercise  # so that `ex.<name>.hint()` in messages runs
    assert 1 <= exercise.difficulty <= 5 and 1 <= exercise.importance <= 5
    assert 1 <= exercise.minutes <= 60
    assert len(exercise.cases) >= 3
    source = textwrap.dedent(inspect.getsource(exercise.reference))
    assert len(source.splitlines()) <= 15  # a solution is read on one screen


def test_keys_are_unique():
    assert len({exercise.key for exercise in EXERCISES}) == len(EXERCISES)


# --- Answers as learners write them --------------------------------------------------------------
# They share no code with the references, so they also keep the checks honest.


def bins_by_loop(confidence, correct, n_bins):
    count, mean, accuracy = torch.zeros(n_bins), torch.zeros(n_bins), torch.zeros(n_bins)
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if b == 0:
            inside |= confidence == 0
        count[b] = inside.sum()
        if inside.any():
            mean[b], accuracy[b] = confidence[inside].mean(), correct[inside].float().mean()
    return count, mean, accuracy


def bins_by_rounding_up(confidence, correct, n_bins):
    index = (torch.ceil(confidence * n_bins).long() - 1).clamp(0, n_bins - 1)
    one_hot = F.one_hot(index, n_bins).float()
    count = one_hot.sum(0)
    return torch.stack([count, *(torch.stack([confidence, correct]) @ one_hot / count.clamp(1))])


def bins_by_numpy(confidence, correct, n_bins):
    confidence, correct = confidence.numpy(), correct.numpy()
    index = np.digitize(confidence, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    lists = [[], [], []]
    for b in range(n_bins):
        chosen = index == b
        lists[0].append(int(chosen.sum()))
        lists[1].append(confidence[chosen].mean() if chosen.any() else 0.0)
        lists[2].append(correct[chosen].mean() if chosen.any() else 0.0)
    return lists


def ece_by_loop(logits, target, n_bins=15):
    p = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    total = 0.0
    for b in range(n_bins):
        inside = (p.max(1) > b / n_bins) & (p.max(1) <= (b + 1) / n_bins)
        if inside.any():
            right = p.argmax(1)[inside] == target.numpy()[inside]
            total += inside.mean() * abs(p.max(1)[inside].mean() - right.mean())
    return total


def useless_by_hand(target, n_classes):
    share = [max((target == k).float().mean().item(), 1e-12) for k in range(n_classes)]
    return np.array([[math.log(f) + 5 for f in share]] * len(target))


def useless_expanded(target, n_classes):
    share = torch.bincount(target, minlength=n_classes) / len(target)
    return share.clamp(min=1e-12).log().expand(len(target), n_classes)


def temperature_by_grid(logits, target):
    grid = torch.logspace(-2, 2, 1001)
    return grid[torch.stack([F.cross_entropy(logits / t, target) for t in grid]).argmin()]


def temperature_by_optimiser(logits, target):
    log_temperature = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_temperature.exp(), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_temperature.exp()


def temperature_by_scipy(logits, target):
    def nll(log_temperature):
        return F.cross_entropy(logits.double() / math.exp(log_temperature), target).item()

    return math.exp(minimize_scalar(nll, bounds=(-5, 5), method="bounded").x)


def margin_of_log_probabilities(logits, target):
    log_p = logits.double().log_softmax(1)  # differences of logits and of log p are the same
    is_true = F.one_hot(target, logits.shape[1]).bool()
    return log_p[is_true] - log_p.masked_fill(is_true, -1e9).amax(1)


def band_by_rivals(margin, n_classes):
    """One row of logits with a single rival, one with all rivals level: 1 - p_y of each."""
    sides = []
    for rivals in (1, n_classes - 1):
        logits = torch.cat([margin[:, None], torch.zeros(len(margin), rivals)], 1)
        sides.append(1 - logits.double().softmax(1)[:, 0])
    return torch.stack(sides)


def log_q_by_pairs(margin):
    return np.logaddexp.reduce(-margin.double().numpy()) - np.log(len(margin))


def pgd_step_range_first(point, gradient, clean, step_size, epsilon):
    # The clean image is in both, so in each pixel the order of the two intervals does not matter.
    moved = (point - step_size * gradient.sign()).clamp(0, 1)
    return clean + (moved - clean).clamp(-epsilon, epsilon)


def pgd_step_by_bounds(point, gradient, clean, step_size, epsilon):
    moved = point.numpy() - step_size * np.sign(gradient.numpy())
    lowest, highest = clean.numpy() - epsilon, clean.numpy() + epsilon
    return np.clip(moved, np.maximum(lowest, 0), np.minimum(highest, 1))


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (lesson_00.over_confidence, lambda c, y: np.mean(c.numpy()) - np.mean(y.numpy())),
        (lesson_00.over_confidence, lambda c, y: sum(c) / len(c) - y.sum() / len(y)),
        (lesson_01.bins, bins_by_loop),
        (lesson_01.bins, bins_by_rounding_up),
        (lesson_01.bins, bins_by_numpy),
        (lesson_01.ece, ece_by_loop),
        (lesson_01.useless, useless_by_hand),
        (lesson_01.useless, useless_expanded),
        (lesson_01.temperature, temperature_by_grid),
        (lesson_01.temperature, temperature_by_optimiser),
        (lesson_01.temperature, temperature_by_scipy),
        (lesson_02.margin, margin_of_log_probabilities),
        (lesson_02.band, band_by_rivals),
        (lesson_02.log_q, log_q_by_pairs),
        (lesson_02.pgd_step, pgd_step_range_first),
        (lesson_02.pgd_step, pgd_step_by_bounds),
    ],
)
def test_right_answers_of_other_kinds_are_correct(exercise, answer):
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.CORRECT, feedback


def _mistake(exercise, name):
    return next(wrong.diagnosis for wrong in exercise.wrong if wrong.name == name)


def ece_signed_by_loop(logits, target, n_bins):
    confidence, prediction = logits.softmax(1).max(1)
    right = (prediction == target).double()
    total = 0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if inside.any():
            total += (confidence[inside].mean() - right[inside].mean()) * inside.double().mean()
    return total


def bins_open_at_zero(confidence, correct, n_bins):
    inside = [(confidence > b / n_bins) & (confidence <= (b + 1) / n_bins) for b in range(n_bins)]
    return (
        [i.sum() for i in inside],
        [confidence[i].mean() if i.any() else 0 for i in inside],
        [correct[i].float().mean() if i.any() else 0 for i in inside],
    )


def temperature_of_least_ece(logits, target):
    grid = np.geomspace(0.05, 30, 350)  # neighbours differ by 1.8 %
    return grid[np.argmin([ece_by_loop(logits / t, target, 15) for t in grid])]


@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    [
        (lesson_00.over_confidence, lambda c, y: float(y.float().mean() - c.mean()), None),
        (lesson_01.bins, bins_open_at_zero, "0 dropped"),
        (lesson_01.ece, ece_signed_by_loop, "no absolute value"),
        (
            lesson_01.ece,
            lambda z, y, m: float(lesson_01.my_ece(F.softmax(z.double(), 1).float(), y, m)),
            "softmax twice",
        ),
        (lesson_01.useless, lambda y, k: torch.full((len(y), k), 3.0), "uniform logits"),
        (lesson_01.temperature, temperature_of_least_ece, "least ECE"),
        (lesson_01.temperature, lambda z, y: 1 / temperature_by_scipy(z, y), "the inverse"),
        (
            lesson_02.margin,
            lambda z, y: [float(row[k] - max(row)) for row, k in zip(z, y, strict=True)],
            "true class among the rivals",
        ),
        (
            lesson_02.band,
            lambda m, k: (torch.sigmoid(-m), torch.sigmoid(math.log(k) - m)),
            "K instead of K − 1",
        ),
        (lesson_02.log_q, lambda m: np.log(np.mean(np.exp(-m.numpy()))), "exp first"),
        (
            lesson_02.pgd_step,
            lambda x, g, c, step, e: torch.clamp(x - step * g.sign(), c - e, c + e),
            "[0, 1] forgotten",
        ),
    ],
)
def test_mistakes_in_other_words_get_the_same_diagnosis(exercise, answer, name):
    expected = _mistake(exercise, name or "sign reversed")
    assert exercise.evaluate(answer).diagnosis == expected


def test_shift_is_what_gives_a_sigmoid_away():
    wrong = next(wrong for wrong in lesson_01.ece.wrong if wrong.name == "sigmoid")
    feedback = repr(lesson_01.ece.evaluate(wrong.function))
    assert "shifted logits" in feedback and "Adding a constant" in feedback


def test_useless_logits_may_not_differ_between_images():
    def answer(target, n_classes):
        logits = lesson_01.my_useless_logits(target, n_classes)
        rarest = logits[0].argmin()
        logits[::2, rarest] -= 1e-2  # confidence and accuracy hardly notice
        return logits

    assert "Every image gets the same logits" in repr(lesson_01.useless.evaluate(answer))


def test_reference_of_ece_agrees_with_an_independent_library():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(400, 7, generator=generator)
    target = torch.randint(7, (400,), generator=generator)
    for n_bins in (1, 10, 15):
        theirs = uncertainty_calibration.get_ece(
            logits.softmax(1).numpy(), target.numpy(), num_bins=n_bins
        )
        # Two sums of 400 float32 terms of size 1: rounding stays below 400 × 6e-8.
        assert abs(lesson_01.my_ece(logits, target, n_bins) - theirs) < 2.4e-5


def test_reference_of_temperature_agrees_with_scipy():
    generator = torch.Generator().manual_seed(0)
    for scale in (0.2, 1.0, 20.0):
        logits = scale * torch.randn(200, 5, generator=generator)
        target = torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)
        ours, theirs = (f(logits, target) for f in (lesson_01.my_temperature, temperature_by_scipy))
        # scipy's bounded search stops at 1e-5 in log T; the slope in float32 is worth 1e-4.
        assert math.log(ours / theirs) == pytest.approx(0, abs=1e-3)

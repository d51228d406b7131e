"""Answers to lesson 07 as learners write them, in other words than the references."""

import copy

import pytest
import torch
import torch.nn.functional as F

import calibcourse as cc
from calibcourse.attacks import pgd
from calibcourse.exercises import lesson_07
from calibcourse.exercises._effects import EFFECTS
from calibcourse.exercises.framework import Outcome
from calibcourse.losses import CalMO


def _attacked(model, inputs, target, epsilon, step_size, steps, start=None, **options):
    point = inputs.clone() if start is None else start
    for _ in range(steps):
        point.requires_grad_(True)
        loss = F.cross_entropy(model(point), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point, **options)
        offset = point + step_size * gradient.sign() - inputs
        point = (inputs + offset.clamp(-epsilon, epsilon)).clamp(0, 1)
        point = point if options else point.detach()
    return point


def robust_by_probabilities(model, inputs, target, *walk):
    p, q = (model(x).softmax(1) for x in (inputs, _attacked(model, inputs, target, *walk)))
    return (p * (p.log() - q.log())).sum(1).mean()


def robust_by_the_package(model, inputs, target, epsilon, step_size, steps):
    point = pgd(model, inputs, target, epsilon, steps=steps, step_size=step_size)
    p = model(inputs).softmax(1)
    return F.kl_div(model(point).log_softmax(1), p, reduction="batchmean")


def robust_of_calmo(model, inputs, target, epsilon, step_size, steps):
    loss = CalMO(1.0, 0.0, epsilon, steps, step_size)
    return loss(model, inputs, target).total - F.cross_entropy(model(inputs), target)


def robust_through_the_attack(model, inputs, target, *walk):
    """Keeps the attack's graph: harmless, since the derivative of a sign is 0."""
    point = _attacked(model, inputs, target, *walk, create_graph=True)
    p, q = model(inputs).log_softmax(1), model(point).log_softmax(1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def robust_from_a_random_start(model, inputs, target, epsilon, *walk):
    start = (inputs + epsilon * (2 * torch.rand_like(inputs) - 1)).clamp(0, 1)
    point = _attacked(model, inputs, target, epsilon, *walk, start=start)
    p, q = model(inputs).softmax(1), model(point).softmax(1)
    return (p * (p.log() - q.log())).sum(1).mean()


def smooth_by_ones(model, inputs, target):
    inputs.requires_grad_(True)
    margin = cc.true_margin(model(inputs), target)
    (gradient,) = torch.autograd.grad(margin, inputs, torch.ones_like(margin), create_graph=True)
    return (gradient**2).sum(dim=(1, 2, 3)).mean()


def smooth_of_calmo(model, inputs, target):
    return CalMO(0.0, 1.0)(model, inputs, target).total - F.cross_entropy(model(inputs), target)


def report_in_numpy(weights, train_ece, validation_loss, validation_ece, test_ece):
    place = int(validation_loss.numpy().mean(1).argmin())
    return [float(weights[place]), test_ece.numpy()[place].mean()]


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (lesson_07.robust_term, robust_by_probabilities),
        (lesson_07.robust_term, robust_by_the_package),
        (lesson_07.robust_term, robust_of_calmo),
        (lesson_07.robust_term, robust_through_the_attack),
        (lesson_07.smooth_term, smooth_by_ones),
        (lesson_07.smooth_term, smooth_of_calmo),
        (lesson_07.validated_choice, report_in_numpy),
    ],
)
def test_right_answers_of_other_kinds_are_correct(exercise, answer):
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.CORRECT, feedback


def smooth_by_the_package(model, inputs, target):
    return cc.input_margin_gradient(model, inputs, target).flatten(1).square().sum(1).mean()


def smooth_by_backward(model, inputs, target):
    inputs.requires_grad_(True)
    cc.true_margin(model(inputs), target).sum().backward()
    return inputs.grad.square().flatten(1).sum(1).mean()


def robust_by_mean(model, inputs, target, *walk):
    point = _attacked(model, inputs, target, *walk)
    return F.kl_div(model(point).log_softmax(1), model(inputs).softmax(1), reduction="mean")


def robust_reversed(model, inputs, target, *walk):
    point = _attacked(model, inputs, target, *walk)
    return F.kl_div(model(inputs).log_softmax(1), model(point).softmax(1), reduction="batchmean")


def robust_towards_a_constant(model, inputs, target, *walk):
    point = _attacked(model, inputs, target, *walk)
    with torch.no_grad():
        p = model(inputs).softmax(1)
    return F.kl_div(model(point).log_softmax(1), p, reduction="batchmean")


@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    [
        (lesson_07.smooth_term, smooth_by_the_package, "no second gradient"),
        (lesson_07.robust_term, robust_by_mean, "mean over classes too"),
        (lesson_07.robust_term, robust_reversed, "KL the other way round"),
        (lesson_07.robust_term, robust_towards_a_constant, "clean side detached"),
    ],
)
def test_mistakes_in_other_words_get_the_same_diagnosis(exercise, answer, name):
    expected = next(wrong.diagnosis for wrong in exercise.wrong if wrong.name == name)
    assert exercise.evaluate(answer).diagnosis == expected


def robust_by_backward(model, inputs, target, epsilon, step_size, steps):
    point = inputs.clone()
    for _ in range(steps):
        point = point.detach().requires_grad_()
        F.cross_entropy(model(point), target).backward()
        offset = point + step_size * point.grad.sign() - inputs
        point = (inputs + offset.clamp(-epsilon, epsilon)).clamp(0, 1)
    p, q = model(inputs).log_softmax(1), model(point.detach()).log_softmax(1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def robust_by_backward_and_zero_grad(model, *arguments):
    term = robust_by_backward(model, *arguments)
    model.zero_grad()
    return term


def robust_in_evaluation_mode(model, *arguments):
    model.eval()
    return robust_by_probabilities(model, *arguments)


def robust_in_double(model, inputs, *arguments):
    return robust_by_probabilities(model.double(), inputs.double(), *arguments)


def robust_of_frozen_parameters(model, *arguments):
    model.requires_grad_(False)
    return robust_by_probabilities(model, *arguments)


@pytest.mark.parametrize(
    ("exercise", "answer", "effect"),
    [
        (lesson_07.robust_term, robust_by_backward, "gradients"),
        (lesson_07.robust_term, robust_by_backward_and_zero_grad, "erased gradients"),
        (lesson_07.robust_term, robust_in_evaluation_mode, "mode"),
        (lesson_07.robust_term, robust_in_double, "dtype"),
        (lesson_07.robust_term, robust_of_frozen_parameters, "frozen"),
        (lesson_07.smooth_term, smooth_by_backward, "gradients"),
    ],
)
def test_what_an_answer_leaves_behind_is_named_and_gone_for_the_next(exercise, answer, effect):
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.INCORRECT and feedback.diagnosis == EFFECTS[effect]
    assert "The caller's `model` is as it was before the call." in repr(feedback)
    assert exercise.evaluate(exercise.reference).outcome is Outcome.CORRECT


def robust_by_backward_in_a_copy(model, *arguments):
    """Leaves nothing behind; only the attack may take place in the copy."""
    model, twin = model, copy.deepcopy(model)
    inputs, target, epsilon, step_size, steps = arguments
    point = inputs.clone()
    for _ in range(steps):
        point = point.detach().requires_grad_()
        F.cross_entropy(twin(point), target).backward()
        moved = point + step_size * point.grad.sign()
        point = moved.clamp(inputs - epsilon, inputs + epsilon).clamp(0, 1)
    return F.kl_div(
        model(point.detach()).log_softmax(1), model(inputs).softmax(1), reduction="batchmean"
    )


def test_an_attack_by_backward_in_a_copy_is_right():
    assert lesson_07.robust_term.evaluate(robust_by_backward_in_a_copy).outcome is Outcome.CORRECT


def test_a_random_start_is_seen_as_one():
    feedback = lesson_07.robust_term.evaluate(robust_from_a_random_start)
    assert feedback.outcome is Outcome.INCORRECT and "random numbers" in feedback.diagnosis

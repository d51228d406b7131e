"""Lesson 03 as learners write it: right answers by other means, and mistakes in other words."""

import numpy as np
import pytest
import scipy.special
import torch

from calibcourse.exercises import lesson_03 as ex
from calibcourse.exercises.framework import Outcome


def matrices(logits):
    p = logits.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def logit_hessian_in_double(logits, v):
    return torch.einsum("nkl,nl->nk", matrices(logits.double()), v.double()).float()


def logit_hessian_by_pairs(logits, v):
    p = scipy.special.softmax(logits.numpy(), axis=1)
    v = v.numpy()
    return np.stack([p[:, k] * (p * (v[:, [k]] - v)).sum(1) for k in range(p.shape[1])], axis=1)


def logit_hessian_by_matrices(logits, v):
    return (matrices(logits) @ v[:, :, None]).squeeze(2)


def logit_hessian_by_autograd(logits, v):
    return torch.func.jvp(lambda z: z.softmax(1), (logits,), (v,))[1]


def gauss_newton_by_jacobian(logits_of, theta, v):
    jacobian = torch.autograd.functional.jacobian(logits_of, theta)
    terms = [j.T @ h @ j for j, h in zip(jacobian, matrices(logits_of(theta)), strict=True)]
    return torch.stack(terms).mean(0) @ v


def gauss_newton_by_frozen_gradient(logits_of, theta, v):
    """G v is how the gradient changes when p moves with the logits and J stands still."""
    p_change = torch.func.jvp(lambda t: logits_of(t).softmax(1), (theta,), (v,))[1]
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad((logits_of(theta) * p_change).sum(1).mean(), theta)[0]


def power_with_quotient_in_the_loop(matvec, v, n_iterations):
    for _ in range(n_iterations):
        product = matvec(v)
        estimate = (v @ product) / (v @ v)
        v = product / product.abs().max()
    return estimate.item()


def stable_rate_sorted(eigenvalues):
    return 2 / sorted(eigenvalues.tolist())[-1]


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (ex.logit_hessian, logit_hessian_by_pairs),
        (ex.gauss_newton, gauss_newton_by_jacobian),
        (ex.gauss_newton, gauss_newton_by_frozen_gradient),
        (ex.power_iteration, power_with_quotient_in_the_loop),
        (ex.stable_rate, stable_rate_sorted),
    ],
)
def test_right_answers_of_other_kinds_are_correct(exercise, answer):
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.CORRECT, feedback


def gauss_newton_pulled_by_sum(logits_of, theta, v):
    return gauss_newton_by_frozen_gradient(logits_of, theta, v) * len(logits_of(theta))


def power_with_normalised_product(matvec, v, n_iterations):
    v = v / v.norm()
    for _ in range(n_iterations):
        product = matvec(v)
        v = product / product.norm()
    return v @ product  # the length of the product: v has already changed


@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    [
        # The plain formula, however it is written.
        (ex.logit_hessian, logit_hessian_in_double, "cancellation in 64 bits"),
        (ex.logit_hessian, logit_hessian_by_matrices, "cancellation"),
        (ex.logit_hessian, logit_hessian_by_autograd, "cancellation"),
        (
            ex.logit_hessian,
            lambda z, v: z.softmax(1) * (v - (z.softmax(1) * v).sum(1, keepdim=True)),
            "cancellation",
        ),
        (ex.gauss_newton, gauss_newton_pulled_by_sum, "sum instead of mean"),
        (ex.power_iteration, power_with_normalised_product, "length of the last product"),
        (ex.stable_rate, lambda e: 1 / max(e.tolist()), "1/λ of the steepest"),
    ],
)
def test_mistakes_in_other_words_get_the_same_diagnosis(exercise, answer, name):
    expected = next(wrong.diagnosis for wrong in exercise.wrong if wrong.name == name)
    feedback = exercise.evaluate(answer)
    assert feedback.diagnosis == expected, feedback


def test_only_the_sure_network_tells_the_plain_formula():
    feedback = repr(ex.logit_hessian.evaluate(logit_hessian_by_matrices))
    assert "Check 5 of 5" in feedback and "relative errors" in feedback

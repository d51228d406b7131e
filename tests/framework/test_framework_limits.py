"""A call without end is stopped, and what it does to its arguments is seen."""

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from framework_cases import VALUES, asleep, endless, my_scores

from calibcourse.exercises import _answer
from calibcourse.exercises._answer import Answer, Mutated, Slow
from calibcourse.exercises._deadline import TooLong, deadline
from calibcourse.exercises._effects import copied
from calibcourse.exercises.framework import (
    Outcome,
)


@pytest.mark.parametrize("answer", [endless, asleep])
def test_a_call_without_end_is_stopped_and_located(exercise, answer, monkeypatch, impatience):
    monkeypatch.setattr(_answer, "CALL_SECONDS", 0.05)
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.RAISED
    text = " ".join(repr(feedback).split())
    assert "! your code ran too long" in text and f"of {answer.__name__}:" in text
    assert "loop that never ends" in text and "ex.scores.hint()" in text


def test_calls_of_one_check_share_a_limit(monkeypatch, impatience):
    monkeypatch.setattr(_answer, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(_answer, "CHECK_SECONDS", 0.08)
    answer, limits = Answer(endless), []
    for _ in range(3):
        with pytest.raises(Slow) as caught:
            answer(VALUES, 2.0)
        limits.append(caught.value.seconds)
    assert limits[0] == 0.05 and limits[1] <= 0.03 and limits[2] == 0.01


def test_in_another_thread_a_call_is_stopped_too(exercise, monkeypatch, impatience):
    """As on Windows, which has no such timer."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(exercise.evaluate, my_scores).result().outcome is Outcome.CORRECT
        monkeypatch.setattr(_answer, "CALL_SECONDS", 0.05)
        assert "your code ran too long" in repr(pool.submit(exercise.evaluate, endless).result())


def test_a_timer_of_somebody_else_goes_on(impatience):
    with deadline(50.0):
        pass
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 50 < left <= 600  # the fixture's ten minutes
    with pytest.raises(TooLong), deadline(0.01):
        while True:
            pass


def _model_with_gradients():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


EFFECTS_ON_MODELS = {
    "values": lambda model: model[0].weight.data.zero_(),
    "gradients": lambda model: model[0](torch.ones(1, 2)).sum().backward() or 1,
    "erased gradients": lambda model: model.zero_grad() or 1,
    "mode": lambda model: model.eval()(torch.ones(1, 2)),
    "dtype": lambda model: model.double()(torch.ones(1, 2).double()),
    "frozen": lambda model: model.requires_grad_(False)(torch.ones(1, 2)),
}


@pytest.mark.parametrize(("effect", "answer"), EFFECTS_ON_MODELS.items(), ids=EFFECTS_ON_MODELS)
def test_what_an_answer_does_to_a_model_is_seen_and_undone(effect, answer):
    model = _model_with_gradients()
    guarded = Answer(answer, ("model",))
    for _ in range(2):  # nothing is left over for the next call
        with pytest.raises(Mutated) as caught:
            guarded(model)
        assert (caught.value.argument, caught.value.effect) == ("model", effect)
    assert copied(model)[0].weight.grad.tolist() == [[1, 1], [1, 1]]
    assert Answer(lambda model: model(torch.ones(1, 2)))(model).dtype == torch.float32


def test_gradients_where_none_were_are_seen():
    with pytest.raises(Mutated) as caught:
        Answer(EFFECTS_ON_MODELS["gradients"])(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert caught.value.effect == "gradients"


def test_modules_are_copied_and_a_changed_mode_is_noticed():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    batch = torch.zeros(1, 2)
    with pytest.raises(Mutated) as caught:
        Answer(lambda model, x: model.eval()(x), ("model", "x"))(model, batch)
    assert caught.value.argument == "model" and model.training
    with pytest.raises(Mutated):
        Answer(lambda model, x: model[0].weight.data.zero_())(model, batch)
    assert Answer(lambda model, x: model[0](x))(model, batch).shape == (1, 2)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_an_argument_with_nan_is_not_taken_for_a_changed_one(kind):
    values = kind([1.0, float("nan"), 3.0])
    assert Answer(lambda x: x[0] + x[2])(values) == 4

    def fill(x):
        x[1] = 0.0  # replaces the NaN in place
        return x

    with pytest.raises(Mutated):
        Answer(fill)(values)

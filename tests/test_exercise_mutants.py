"""Wrong answers are refused: every mutant of every reference, unless it is right after all."""

import pytest
import torch
from equivalent_mutants import EQUIVALENT
from mutants import mutants

from calibcourse.exercises import _examine, all_exercises

EXERCISES = all_exercises()


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.key)
def test_every_mutant_is_refused_unless_it_is_right(exercise, monkeypatch):
    monkeypatch.setattr(_examine, "diagnose", lambda exercise, answer: None)  # verdicts alone
    accepted = set()  # a refused one is also none that the next cells would go on with
    made = list(mutants(exercise.reference, exercise.probes))
    assert len(made) > 10
    for text, mutant in made:
        if exercise.mine(mutant) is mutant:
            accepted.add(text)
    assert accepted == EQUIVALENT.get(exercise.key, {}).keys()


def test_every_listed_mutant_belongs_to_an_exercise():
    assert EQUIVALENT.keys() <= {exercise.key for exercise in EXERCISES}


def sample(x, y, n):
    smallest = x.min(dim=0).values
    if n > 1:
        smallest = smallest + y.sum(dim=1, keepdim=True) / 2
    return smallest, x @ y


def test_mutants_are_the_slips_that_they_are_said_to_be():
    made = dict(mutants(sample, ((torch.zeros(2), torch.ones(2), 3),)))
    for slip in (
        "smallest = x.max(dim=0).values",  # extreme
        "smallest = x.min(dim=1).values",  # dim
        "smallest = x.min().values",  # argument left out
        "smallest = x[:, 0].values",  # first for an extreme
        "if n >= 1:",  # comparison
        "if n > 0:",  # constant
        "smallest = smallest - y.sum(dim=1, keepdim=True) / 2",  # operator
        "smallest = smallest",  # dropped term
        "smallest = smallest + y.sum(dim=1, keepdim=False) / 2",
        "smallest = smallest + y.mean(dim=1, keepdim=True) / 2",  # reduction
        "return (x @ y, smallest)",  # swapped
        "return (smallest, smallest)",
        "return (smallest, y @ x)",
        "n is ignored: that of example 0 counts",
    ):
        assert slip in made, slip
    x, y = torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert made["return (x @ y, smallest)"](x, y, 1)[1].tolist() == [0, 0]
    assert made["n is ignored: that of example 0 counts"](x, y, 1)[0].tolist() == [
        [1.5] * 2,
        [3.5] * 2,
    ]
    assert made["if n >= 1:"](x, y, 1)[0].shape == (2, 2) and sample(x, y, 1)[0].shape == (2,)

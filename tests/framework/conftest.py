"""The exercise that the framework is tried on; its progress is nobody's."""

import pytest
from framework_cases import OTHER, VALUES, my_scores

from calibcourse.exercises.framework import (
    Exercise,
    WrongSolution,
    value_case,
)


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(path))
    return path


@pytest.fixture
def exercise():
    names = ("total", "scaled")
    return Exercise(
        lesson="99",
        name="scores",
        title="Scaled scores",
        difficulty=2,
        importance=3,
        minutes=1,
        reference=my_scores,
        cases=(
            value_case(
                "small",
                "three values, scale 2",
                (VALUES, 2.0),
                (14.0, [2.0, 4.0, 8.0]),
                "Both are scaled.",
                names=names,
            ),
            value_case(
                "fractions",
                "two fractions, scale 3",
                (OTHER, 3.0),
                my_scores,
                "Both are scaled.",
                names=names,
            ),
        ),
        wrong=(
            WrongSolution("total unscaled", lambda v, s: (v.sum(), v * s), "Total not scaled."),
            WrongSolution("values unscaled", lambda v, s: (v.sum() * s, v), "Values not scaled."),
            WrongSolution("NaN", lambda v, s: (v.sum() * s, v * float("nan")), "NaN came in."),
        ),
        hints=("First hint.", "Second hint."),
        probes=((VALUES, 2.0), (OTHER, 3.0)),
    )

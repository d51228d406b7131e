"""The package on a second device, a pretend one: the same numbers, there, and no needless waits."""

import functools
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from device_cases import CASES, DRAWN, ON_THE_CPU, differences, parts, plot_case, world
from pretend_device import pretend_device
from torch import Tensor, nn

import calibcourse as cc
from calibcourse import plots
from calibcourse.exercises import all_exercises, lesson_00
from calibcourse.exercises.framework import Outcome

ROOT = Path(__file__).parents[1]
# The same arithmetic in the same order: the last bits may move where a fused kernel is left out.
ROUNDING = 1e-6


def on_both(case, name: str) -> list[str]:
    """What differs between the device and the CPU; the device's world must stay as it was."""
    with torch.random.fork_rng(devices=[]):
        expected = case(world("cpu"))
    with pretend_device(), torch.random.fork_rng(devices=[]):
        there = world("cuda")
        before = [value.clone() for value in tensors_of(there)]
        place = "cpu" if name in ON_THE_CPU else "cuda"
        faults = differences(expected, case(there), place, ROUNDING)
        if not all(map(torch.equal, before, tensors_of(there))):
            faults.append("the inputs have changed")
    return faults


def tensors_of(w) -> list[Tensor]:
    values = [value for value in vars(w).values() if isinstance(value, Tensor)]
    return [*values, *w.model.state_dict().values(), *w.cnn.state_dict().values()]


@pytest.mark.parametrize("name", sorted(set(cc.__all__)))
def test_a_public_function_gives_the_same_there(name):
    assert not on_both(CASES[name], name)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_a_figure_shows_the_same_there(name):
    assert not on_both(plot_case(name), name)


def test_every_public_name_has_a_case():
    assert set(CASES) == set(cc.__all__)
    assert set(DRAWN) <= set(plots.__all__)


def moved(value: object, device: str) -> object:
    """An argument of an exercise, or what comes back, on another device; functions work there."""
    if isinstance(value, nn.Module):
        return value.to(device)  # in place, as a learner does it
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (list, tuple):
        return type(value)(moved(part, device) for part in value)
    if callable(value):
        return lambda *args: moved(value(*(moved(arg, "cpu") for arg in args)), device)
    return value


# Its function is differentiated by torch.func, under which the pretend device cannot move tensors.
MOVES_INSIDE = ("03/gauss_newton",)


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda exercise: exercise.key)
def test_an_exercise_accepts_its_reference_there(exercise):
    if exercise.key in MOVES_INSIDE:
        pytest.skip("a limit of the pretend device")

    @functools.wraps(exercise.reference)
    def answer(*args):
        return exercise.reference(*(moved(arg, "cuda") for arg in args))

    with pretend_device():
        feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.CORRECT, feedback


def test_an_answer_that_mixes_devices_is_told_so():
    with pretend_device():
        feedback = lesson_00.over_confidence.evaluate(
            lambda confidence, correct: (confidence - torch.ones(4, device="cuda")).mean()
        )
    assert feedback.outcome is Outcome.RAISED
    assert "device=x.device" in repr(feedback)


MEASURED = (*ON_THE_CPU, "confidence_and_correct", "class_over_confidence")
SINGLE = 1e-4  # a product of matrices in float32 where the CPU has float64; curvature in float32


@pytest.mark.parametrize("name", sorted(cc.__all__) + [f"plots.{name}" for name in sorted(DRAWN)])
def test_it_works_without_float64(name):
    """As on Apple's MPS: the same numbers; what is measured in float64 comes back on the CPU."""
    case = CASES[name] if name in CASES else plot_case(name.removeprefix("plots."))
    with torch.random.fork_rng(devices=[]):
        expected = case(world("cpu"))
    with pretend_device("mps", float64=False), torch.random.fork_rng(devices=[]):
        found = case(world("mps"))
        for path, part in parts(found):
            if isinstance(part, Tensor) and part.dtype == torch.float32 and name not in MEASURED:
                assert part.device.type == "mps", path
        assert not differences(expected, found, None, SINGLE)


def test_float64_itself_is_refused_there_by_name():
    with pretend_device("mps", float64=False):
        w = world("mps")
        with pytest.raises(TypeError, match="float64"):
            w.model.double()
    assert cc.default_device().type == "cpu"


@pytest.mark.slow
def test_a_lesson_runs_there(monkeypatch):
    source = next((ROOT / "solutions").glob("00_*.py")).read_text(encoding="utf-8")
    monkeypatch.setenv("CALIBCOURSE_PROFILE", "quick")
    monkeypatch.setattr(plots, "show", lambda *args, **options: plt.close("all"))
    with pretend_device():
        exec(compile(source, "lesson 00", "exec"), {"__name__": "__main__"})  # a false claim raises


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon", "sam", "bulk_sgd"])
@pytest.mark.parametrize("used", [False, True])
def test_an_optimizer_made_on_the_cpu_follows_the_model(name, used):
    def train(device: str) -> dict:
        w = world("cpu")
        options = {"inputs": w.data.train.inputs} if name == "bulk_sgd" else {}
        options |= {"momentum": 0.9} if name in ("sgd", "sam") else {}
        optimizer = cc.make_optimizer(name, w.model, 0.01, **options)
        common = {"batch_size": 16, "progress": False}
        if used:
            cc.fit(w.model, w.data, None, optimizer, steps=2, **common)
        cc.fit(w.model, w.data, None, optimizer, steps=2, device=device, **common)
        return {n: value.cpu() for n, value in w.model.state_dict().items()}

    expected = train("cpu")
    with pretend_device():
        assert not differences(expected, train("cuda"), "cpu", 1e-5)  # two runs of four steps


@pytest.mark.parametrize("make", [cc.mlp, cc.small_cnn, cc.resnet20])
def test_making_a_model_draws_nothing_of_the_callers(make):
    with pretend_device():
        torch.manual_seed(5)
        expected = torch.rand(3), torch.rand(3, device="cuda")
        torch.manual_seed(5)
        make(seed=1)
        assert torch.equal(torch.rand(3), expected[0])
        assert torch.equal(torch.rand(3, device="cuda"), expected[1])


@pytest.mark.parametrize("name", ["sgd", "adamw", "bulk_sgd"])
def test_an_interrupted_run_goes_on_there(name, tmp_path):
    with pretend_device():
        straight, interrupted = world("cuda"), world("cuda")
        common = {"lr": 0.01, "batch_size": 16, "progress": False, "probe_steps": [2, 4]}
        cc.fit(straight.model, straight.data, None, name, steps=4, **common)

        def stop(model, data, seen=[]):  # noqa: B006  # it counts its own calls
            seen.append(1)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return {}

        path = tmp_path / "run.pt"
        with pytest.raises(KeyboardInterrupt):
            cc.fit(
                interrupted.model, interrupted.data, None, name, steps=4, checkpoint=path,
                probes=[stop], **common,
            )  # fmt: skip
        again = world("cuda")
        cc.fit(
            again.model, again.data, None, name, steps=4, checkpoint=path, probes=[lambda m, d: {}],
            **common,
        )  # fmt: skip
        for ours, theirs in zip(again.model.parameters(), straight.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)

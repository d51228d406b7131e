"""Plans: which runs a figure or table needs, on which data set, for how long."""

from dataclasses import asdict

import pytest

from calibcourse.reproduce import COMPARISONS, TRAJECTORIES, load_recorded, plan
from calibcourse.reproduce.plans import PROFILES

# Recorded sweep -> the plan that made it.
RECORDED = {
    "edge_of_stability": "edge_of_stability",
    "fashion_mnist_small": "all",
    "methods": "methods",
    "grid": "grid",
    "shift": "shift",
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_sweep_is_the_one_planned_today(name):
    """The keys are file names: were they others, a folder of finished runs would be run again."""
    recorded, planned = load_recorded(name), plan(RECORDED[name])
    assert [run.config for run in recorded.runs] == planned
    assert [run.config.key for run in recorded.runs] == [config.key for config in planned]


def test_keys_are_what_they_always_were():
    """Read off the files that earlier versions wrote; `asdict` alone decides the digits."""
    keys = {config.key for name in ("all", "methods", "grid") for config in plan(name, seeds=[0])}
    assert keys >= {
        "fashion_mnist_small-gd-lr0.05-seed0-6165f1f6",
        "fashion_mnist_small-gd-lr0.1-seed0-425d4525",
        "fashion_mnist_small-small_cnn-sgd-ce-seed0-9b964be0",
        "fashion_mnist_small-small_cnn-sgd-flat-seed0-398e2c49",
        "fashion_mnist_small-small_cnn-sgd-calmo00001-seed0-063bd315",
    }


@pytest.mark.parametrize("name", [*TRAJECTORIES, *COMPARISONS])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_plan_of_every_named_data_set_holds_its_budget(name, profile):
    kind = "trajectories" if name in TRAJECTORIES else "comparisons"
    for dataset, size in getattr(PROFILES[profile], kind).items():
        configs = plan(name, profile, dataset, seeds=[0])
        assert len({config.key for config in configs}) == len(configs)
        for config in configs:
            assert config.dataset == dataset and config.train_samples == size.train_samples
            assert config.held_out_samples == size.held_out_samples
            budget = size.budgets[config.optimizer]
            assert config.steps == budget.steps[config.lr] and config.options in budget.options
        shown = {**TRAJECTORIES, **COMPARISONS}[name].optimizers
        for optimizer in shown:
            rates = {config.lr for config in configs if config.optimizer == optimizer}
            assert rates == set(size.budgets[optimizer].steps)


def test_a_data_set_has_its_own_rates_and_each_rate_its_own_length():
    steps = {
        (config.optimizer, config.lr): config.steps
        for config in plan("table1", dataset="cifar10_small", seeds=[0])
    }
    for optimizer, expected in {
        "gd": [2 / 30, 2 / 15], "sgd": [2 / 70, 2 / 30, 2 / 15], "sam": [2 / 70, 2 / 30, 2 / 15]
    }.items():  # fmt: skip
        rates = sorted(lr for name, lr in steps if name == optimizer)
        assert rates == expected
        lengths = [steps[optimizer, lr] for lr in rates]
        assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == len(rates)
    sizes = {(c.train_samples, c.held_out_samples) for c in plan("all", dataset="cifar10_small")}
    assert sizes == {(2000, 1600)}


def test_a_data_set_without_a_budget_has_that_of_the_profiles_own():
    for name in ("table1", "table2"):
        own, other = plan(name, seeds=[0]), plan(name, dataset="kmnist", seeds=[0])
        assert {config.dataset for config in other} == {"kmnist"}
        for a, b in zip(own, other, strict=True):
            assert asdict(a) | {"dataset": "kmnist"} == asdict(b)


@pytest.mark.parametrize("name", ["table1", "table2", "shift"])
def test_a_plan_for_another_device_differs_in_nothing_else(name):
    here, there = plan(name, seeds=[0]), plan(name, seeds=[0], device="cuda")
    assert [asdict(a) | {"device": "cuda"} for a in here] == [asdict(b) for b in there]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(name="figure9"), "^name must be one of all, .*table1, .*; got 'figure9'"),
        (dict(name="table3"), "^name must be one of .*table2, tableA1, .*; got 'table3'"),
        (dict(name="table2", profile="slow"), "^profile must be one of full, quick"),
        (dict(name="table2", dataset="mnits"), "^dataset must be one of .*mnist"),
        (dict(name="table2", seeds=[-1]), "^seed"),
    ],
)
def test_bad_plans_are_named_and_list_the_choices(arguments, words):
    with pytest.raises(ValueError, match=words):
        plan(**arguments)


@pytest.mark.parametrize("name", ["table1", "methods", "grid"])
@pytest.mark.parametrize("seeds", [[], [1, 1], [0, 1, 0]])
def test_seeds_are_different_numbers_whatever_is_planned(name, seeds):
    with pytest.raises(ValueError, match="seeds must be different"):
        plan(name, seeds=seeds)

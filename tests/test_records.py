"""Records: what a run and a sweep keep, what they refuse, and that older files are still read."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from calibcourse.data import Dataset, Split
from calibcourse.history import History
from calibcourse.models import mlp
from calibcourse.reproduce import Run, Sweep, TrajectoryConfig, load_recorded, slack_table
from calibcourse.training import fit

CONFIG = TrajectoryConfig(
    dataset="fashion_mnist_small", optimizer="sgd", lr=0.1, steps=4, batch_size=10,
    train_samples=20, held_out_samples=20,
)  # fmt: skip
HISTORY = History([{"step": 0, "train_ece": 0.5}, {"step": 4, "train_ece": math.nan}])

# As written before the number of classes was kept, and with the fields in their older order.
OLD_RUN = """{
 "format": "calibcourse.run", "version": 1,
 "config": {"dataset": "cifar10_small", "optimizer": "sgd", "lr": 0.028571428571428571,
  "steps": 6000, "batch_size": 100, "train_samples": 2000, "held_out_samples": 1600, "seed": 0,
  "options": {}, "hidden": [200, 200], "even_probes": 61, "log_probes": 21, "threads": 1,
  "device": "cpu"},
 "provenance": {"date": "2026-11-25", "torch": "2.13.0+cpu", "seconds": 1.5, "resumed": false},
 "history": {"format": "calibcourse.history", "version": 1,
  "metadata": {"optimizer": "sgd", "lr": 0.0286, "data": {"name": "cifar10_small"}},
  "diverged_at": null, "rows": [{"step": 0, "train_ece": 0.25}, {"step": 1, "train_ece": null}]}
}"""


def of(dataset: str, **changes) -> Run:
    return Run(replace(CONFIG, dataset=dataset, **changes), HISTORY, {"seconds": 1.0})


def test_a_run_of_before_is_read_and_keeps_its_key(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(OLD_RUN)
    run = Run.load(path)
    assert run.n_classes == 10 and len(run.history) == 2
    # Its key, of the version that wrote it: another one, and the run would not be found again.
    assert run.config.key == "cifar10_small-sgd-lr0.0285714-seed0-e75b6b87"


@pytest.mark.parametrize(
    ("dataset", "n_classes"), [("cifar100", 100), ("cifar10_small", 10), ("kmnist", 10)]
)
def test_without_a_number_of_classes_the_data_set_tells_it(dataset, n_classes, tmp_path):
    run = of(dataset)
    assert run.n_classes == n_classes
    Sweep((run,)).save(tmp_path / "new.json")
    record = json.loads((tmp_path / "new.json").read_text())
    assert record["runs"][0].pop("n_classes") == n_classes
    (tmp_path / "old.json").write_text(json.dumps(record))
    for name in ("new", "old"):
        assert Sweep.load(tmp_path / f"{name}.json").runs[0].n_classes == n_classes


def test_the_number_of_classes_is_written_down_by_the_training_itself(tmp_path):
    data = Dataset("three", ("a", "b", "c"), *(split(n) for n in (12, 6, 6)))
    history = fit(mlp((1, 4, 4), (5,), 3), data, lr=0.1, steps=1, progress=False)
    assert history.metadata["n_classes"] == 3
    run = Run(CONFIG, history, {})
    run.save(tmp_path / "run.json")
    Sweep((run,)).save(tmp_path / "sweep.json")
    assert Run.load(tmp_path / "run.json").n_classes == 3
    assert Sweep.load(tmp_path / "sweep.json").runs[0].n_classes == 3


def split(n: int) -> Split:
    import torch

    generator = torch.Generator().manual_seed(n)
    return Split(torch.rand(n, 1, 4, 4, generator=generator), torch.arange(n) % 3)


def test_bounds_of_a_hundred_classes_are_those_of_a_hundred_classes():
    """(K - 1) Q and Q / K, from the very same columns on a data set of ten and of a hundred."""
    recorded = load_recorded("fashion_mnist_small").select(label="GD", lr=0.2, seed=0)
    (run,) = recorded.runs
    ten, hundred = (
        {
            (entry.phase, entry.split, entry.bound): entry.median
            for entry in slack_table(Sweep((replace(run, config=config),)))
        }
        for config in (run.config, replace(run.config, dataset="cifar100"))
    )
    for (phase, part, bound), value in ten.items():
        lost = {"paper_upper": math.log10(99 / 9), "paper_lower": 1.0}.get(bound, 0.0)
        # The same logarithms, added in another order.
        np.testing.assert_allclose(hundred[phase, part, bound], value + lost, atol=1e-12)


def test_a_sweep_is_of_one_data_set_with_one_run_of_a_kind():
    with pytest.raises(ValueError, match="one data set, got no run"):
        Sweep(())
    with pytest.raises(ValueError, match="one data set, got cifar100, mnist"):
        Sweep((of("mnist"), of("cifar100")))
    with pytest.raises(ValueError, match=r"got 2 of sgd, SGD, learning rate 0\.1, seed 0"):
        Sweep((of("mnist"), of("mnist", seed=1), of("mnist", steps=5)))
    bulk = [of("mnist", optimizer="bulk_sgd", options={"directions": k}) for k in (1, 3)]
    assert Sweep((of("mnist"), of("mnist", lr=0.2), of("mnist", seed=1), *bulk)).labels == [
        "SGD", "BulkSGD 1", "BulkSGD 3"
    ]  # fmt: skip


def test_a_saved_sweep_with_a_run_twice_is_refused_by_name(tmp_path):
    path = tmp_path / "s.json"
    Sweep((of("mnist"),)).save(path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"runs": record["runs"] * 2}))
    with pytest.raises(ValueError, match=r"s\.json.*got 2 of sgd"):
        Sweep.load(path)


@pytest.mark.parametrize("bad", [1, "10", 10.0, True, None])
def test_a_number_of_classes_is_a_whole_number_of_two_at_least(bad, tmp_path):
    path = tmp_path / "s.json"
    Sweep((of("mnist"),)).save(path)
    record = json.loads(path.read_text())
    record["runs"][0]["n_classes"] = bad
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"s\.json.*n_classes"):
        Sweep.load(path)

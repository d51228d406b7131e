"""Records of sweeps: written, read, summed up, and the shipped ones."""

import json
import os
from dataclasses import replace

import pytest
from reproduce_cases import (
    SIX,
    TINY,
)

from calibcourse.data import load_dataset
from calibcourse.reproduce import (
    Run,
    load_recorded,
    run_all,
)
from calibcourse.reproduce.one_run import train
from calibcourse.reproduce.runner import record_path


def test_unwritable_output_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*file"):
        run_all(SIX, tmp_path / "file", progress=False)


def test_record_of_another_version_or_content_is_refused(tmp_path):
    run = run_all([TINY], tmp_path, progress=False)[0]
    path = record_path(tmp_path, TINY)
    record = json.loads(path.read_text())
    assert Run.load(path) == run
    for change, words in [
        ({"version": 2}, r"version 1, got \('calibcourse\.run', 2\).*output folder"),
        ({"format": "x"}, "must be a calibcourse.run"),
        ({"config": {}}, "exactly the fields"),
        ({"config": {**record["config"], "lr": -1}}, "lr"),
        ({"config": {**record["config"], "options": 3}}, "options"),
        ({"history": {}}, "calibcourse.history"),
        ({"provenance": None}, "provenance"),
    ]:
        path.write_text(json.dumps({**record, **change}))
        with pytest.raises(ValueError, match=words):
            run_all([TINY], tmp_path, progress=False)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"must be a calibcourse\.run"):
        Run.load(path)


def test_provenance_names_versions_and_machine_but_no_place(tmp_path):
    provenance = run_all([TINY], tmp_path, progress=False)[0].provenance
    assert {"date", "torch", "numpy", "python", "processor", "seconds"} <= set(provenance)
    assert provenance["threads"] == TINY.threads
    text = json.dumps(provenance)
    assert os.uname().nodename not in text and str(tmp_path) not in text and "/" not in text


@pytest.mark.parametrize(
    ("name", "optimizer", "lr"),
    [
        pytest.param("edge_of_stability", "gd", 0.1, marks=pytest.mark.slow),
        pytest.param("fashion_mnist_small", "gd", 0.1, marks=pytest.mark.slow),
        ("fashion_mnist_small", "sgd", 0.1),
        pytest.param("cifar10_small", "sgd", 2 / 30, marks=pytest.mark.slow),
    ],
)
def test_the_start_of_a_recorded_run_can_be_run_again(name, optimizer, lr):
    """Up to the first evenly spaced probe. Float32 sums differ between processors in digit seven.

    With the sharpness below 2 / lr, a hundred steps hardly amplify that (another number of threads
    changes the losses by 1e-8), and Lanczos stops at a relative residual of 1e-3. Means over
    images are compared: a share of right answers would jump by an image.
    """
    (recorded,) = load_recorded(name).select(optimizer=optimizer, lr=lr, seed=0).runs
    steps = recorded.config.even_steps[1]
    try:
        load_dataset(recorded.config.dataset)
    except FileNotFoundError:
        pytest.skip(f"the images of {recorded.config.dataset} are not here")
    again = train(replace(recorded.config, steps=steps, even_probes=2, log_probes=5))
    then = {row["step"]: row for row in recorded.history.rows}
    common = [row for row in again.rows if row["step"] in then]
    assert len(common) >= 3 and common[-1]["step"] == steps
    for row in common:
        for column in ("train_loss", "train_confidence", "sharpness", "test_loss"):
            tolerance = 2e-3 if column == "sharpness" else 1e-4
            assert row[column] == pytest.approx(then[row["step"]][column], rel=tolerance)

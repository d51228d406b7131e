"""Sweeps: planned, run by any executor, killed and resumed, and the command line."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from reproduce_cases import (
    SIX,
    TINY,
    histories,
    parse,
)

from calibcourse.reproduce import (
    PROFILES,
    Run,
    Sweep,
    TrajectoryConfig,
    plan,
    run_all,
)
from calibcourse.reproduce import cli as reproduce_cli
from calibcourse.reproduce.one_run import train
from calibcourse.reproduce.runner import SweepError, executor_for, record_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return histories(run_all(SIX, tmp_path_factory.mktemp("undisturbed"), progress=False))


def test_plans_hold_the_sweep_that_the_paper_describes():
    runs = plan("table1")
    assert len(runs) == len({run.key for run in runs}) == 5 * 4 * 3
    for optimizer in ("gd", "sgd", "adamw", "muon", "sam"):
        chosen = [run for run in runs if run.optimizer == optimizer]
        assert len({run.lr for run in chosen}) == 4 and {run.seed for run in chosen} == {0, 1, 2}
        assert all((run.batch_size is None) == (optimizer == "gd") for run in chosen)
    bulk = [run for run in plan("figure3", seeds=[0]) if run.optimizer == "bulk_sgd"]
    assert {(run.options["directions"], run.lr) for run in bulk} == {
        (k, lr)
        for k in (1, 3, 5)
        for lr in PROFILES["quick"].trajectories["fashion_mnist_small"].budgets["bulk_sgd"].steps
    }


def test_figures_share_their_runs():
    table = {run.key for run in plan("table1")}
    assert {run.key for run in plan("figure1")} < table
    assert {run.key for run in plan("figure2")} == table
    assert {run.key for run in plan("all")} == table | {run.key for run in plan("figure3")}


def test_a_slice_of_training_is_what_a_sweep_records(undisturbed):
    assert train(TINY.__class__(**asdict(SIX[0]))).to_dict() == undisturbed[SIX[0].key]


def test_a_finished_run_is_not_run_again(tmp_path, monkeypatch, undisturbed):
    first = run_all(SIX[:2], tmp_path, progress=False)
    assert histories(first) == {c.key: undisturbed[c.key] for c in SIX[:2]}
    monkeypatch.setattr("calibcourse.reproduce.runner.train", None)  # calling it would raise
    assert run_all(SIX[:2], tmp_path, progress=False) == first
    assert not list((tmp_path / "checkpoints").iterdir())


def break_checkpoint(folder: Path, config: TrajectoryConfig) -> None:
    """What makes one run fail and no other."""
    path = folder / "checkpoints" / f"{config.key}.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")


def test_one_failing_run_costs_no_other(tmp_path):
    bad = replace(TINY, seed=1)
    break_checkpoint(tmp_path, bad)
    words = rf"1 of 3 runs failed.*\n  {bad.key}: ValueError: checkpoint .* is damaged"
    with pytest.raises(SweepError, match=words):
        run_all([SIX[0], bad, SIX[1]], tmp_path, progress=False)
    assert record_path(tmp_path, SIX[0]).exists() and record_path(tmp_path, SIX[1]).exists()


def test_any_executor_gives_the_same_records(tmp_path, undisturbed):
    with ThreadPoolExecutor(3) as executor:
        runs = run_all(SIX, tmp_path, executor, progress=False)
    assert histories(runs) == undisturbed


@pytest.mark.slow
def test_process_pool_gives_the_same_records(tmp_path, undisturbed):
    with executor_for(workers=2) as executor:
        runs = run_all(SIX, tmp_path, executor, progress=False)
    assert histories(runs) == undisturbed


def _sweep_in_child(folder: Path) -> None:
    run_all(SIX, folder, progress=False)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This process")  # forked on purpose: a spawned child needs
def test_kills_at_random_moments_change_nothing(kills, tmp_path, undisturbed, kill):  # seconds
    chance = random.Random(0)
    finished_before = 0
    for number in range(kills):
        folder = tmp_path / str(number // 7)  # start anew now and then: a sweep ends in time
        kill(_sweep_in_child, folder, after=[(chance.randint(1, 30), folder)])
        for path in folder.glob("runs/*.json"):
            assert Run.load(path).history.to_dict() == undisturbed[path.stem]
            finished_before += 1
    assert finished_before  # the kills fell within sweeps that were getting somewhere
    for folder in tmp_path.iterdir():
        assert histories(run_all(SIX, folder, progress=False)) == undisturbed
        files = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
        assert files == {"runs"}


@pytest.mark.slow
def test_workers_end_with_a_killed_sweep(tmp_path, impatience):
    program = (
        "import sys, time; from calibcourse.reproduce.runner import executor_for\n"
        "if __name__ == '__main__':\n"
        "    with executor_for(workers=2) as pool:\n"
        "        print(pool.submit(__import__('os').getpid).result(), flush=True)\n"
        "        time.sleep(600)\n"
    )
    script = tmp_path / "sweep.py"
    script.write_text(program)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it is there
    parent.kill()
    parent.wait()
    # Parent and workers write to one pipe: it ends when the last of them has ended.
    assert parent.stdout.read() == ""


def test_command_runs_reports_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce_cli, "plan", lambda *a: SIX[:2])
    options = parse("figure1", "--out", str(tmp_path), "--seeds", "0")
    assert reproduce_cli.run(options) == 0
    printed = capsys.readouterr().out
    assert "the paper's" in printed and "figure1.png" in printed
    assert Sweep.load(tmp_path / "figure1.json").command == (
        "reproduce figure1 --profile quick --seeds 0"
    )
    assert reproduce_cli.run(options) == 0


@pytest.mark.slow
def test_dask_cluster_survives_the_death_of_a_worker(tmp_path, undisturbed, impatience):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
        ) as cluster,
        executor_for(scheduler=cluster.scheduler_address) as executor,
    ):
        victim = next(iter(cluster.workers.values())).pid
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(run_all, SIX, tmp_path, executor, progress=False)
            while not (list(tmp_path.glob("runs/*.json")) or running.done()):
                time.sleep(0.05)  # until it is under way
            os.kill(victim, signal.SIGKILL)
            runs = running.result()
    assert histories(runs) == undisturbed


@pytest.mark.slow
def test_dead_address_is_named():
    pytest.importorskip("distributed")
    with (
        pytest.raises(OSError, match=r"127\.0\.0\.1:9"),
        executor_for(scheduler="tcp://127.0.0.1:9"),
    ):
        pass

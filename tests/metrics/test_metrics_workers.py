"""`CalibrationError` between processes, and through a file."""

import io
import multiprocessing

import pytest
import torch

from calibcourse.metrics import CalibrationError


def batch(seed: int, n_samples: int):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n_samples, 4, generator=generator)
    return logits, torch.randint(4, (n_samples,), generator=generator)


def same(one: CalibrationError, other: CalibrationError) -> bool:
    return torch.equal(one._totals, other._totals)


def worker(rank: int, address: str, results) -> None:
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    metric = CalibrationError(10)
    if rank == 0:  # the other has seen nothing yet
        metric.update(*batch(0, 30))
    first = metric.all_reduce().compute()
    metric.update(*batch(1 + rank, 20))
    second = metric.all_reduce().compute()
    own = metric.compute().count
    try:
        CalibrationError(10 + rank).all_reduce()
        refused = ""
    except ValueError as error:
        refused = str(error)
    results.put((rank, first.count, second.count, second.expected_calibration_error, own, refused))
    torch.distributed.destroy_process_group()


def test_two_processes_reduce_to_what_one_would_have_seen(tmp_path):
    context = multiprocessing.get_context("spawn")
    results, address = context.Queue(), f"file://{tmp_path}/meet"
    workers = [context.Process(target=worker, args=(rank, address, results)) for rank in (0, 1)]
    for process in workers:
        process.start()
    found = sorted(results.get(timeout=240) for _ in workers)
    for process in workers:
        process.join()
    whole = CalibrationError(10)
    for seed, n_samples in ((0, 30), (1, 20), (2, 20)):
        whole.update(*batch(seed, n_samples))
    for rank, first, second, ece, own, refused in found:
        assert (first, second, own) == (30, 70, 50 if rank == 0 else 20)
        # Three float64 sums, added in another order.
        assert ece == pytest.approx(whole.compute().expected_calibration_error, rel=1e-14)
        assert refused == "n_bins must be the same on all workers, got 10 to 11"


def test_without_workers_the_remedy_is_named():
    with pytest.raises(RuntimeError, match="init_process_group"):
        CalibrationError().all_reduce()


def test_a_state_survives_a_file():
    metric = CalibrationError(7).update(*batch(0, 50))
    stream = io.BytesIO()
    torch.save(metric.state_dict(), stream)
    stream.seek(0)
    again = CalibrationError(7).load_state_dict(torch.load(stream, weights_only=True))
    assert same(again, metric)
    kept = metric.state_dict()
    again.update(*batch(1, 5))
    metric.update(*batch(1, 5))
    assert same(again, metric) and not torch.equal(kept["totals"], metric._totals)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: {}, "must hold 'totals'"),
        (lambda t: {"totals": t.tolist()}, "must hold 'totals'"),
        (lambda t: {"totals": t.float()}, "float64"),
        (lambda t: {"totals": t[:, :3]}, "shape"),
        (lambda t: {"totals": t + 0.5}, "damaged"),
        (lambda t: {"totals": -t}, "damaged"),
        (lambda t: {"totals": t * torch.nan}, "damaged"),
        (lambda t: {"totals": t + torch.tensor([[0.0], [1e6], [0.0]])}, "damaged"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage, message):
    metric = CalibrationError(5).update(*batch(0, 50))
    before = metric.state_dict()
    with pytest.raises(ValueError, match=message):
        metric.load_state_dict(damage(before["totals"]))
    assert torch.equal(metric._totals, before["totals"])

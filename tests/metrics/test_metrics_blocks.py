"""Metrics: blocks of logits and computed bins, of which no result may show a trace."""

import pytest
import torch
from metrics_cases import (
    SCALARS,
    sample,
)
from torch.utils._python_dispatch import TorchDispatchMode

from calibcourse import _blocks
from calibcourse.metrics import (
    accuracy,
    brier_score,
    confidence_and_correct,
    expected_calibration_error,
    kernel_calibration_error,
    negative_log_likelihood,
    reliability_curve,
)
from calibcourse.metrics.binned import MANY, bin_index, equal_width_edges
from calibcourse.metrics.scores import scores_of_all


@pytest.mark.parametrize("block_size", [1, 7, 64, 5000])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 300])
def test_blocks_leave_no_trace(monkeypatch, n_classes, block_size):
    logits, target = sample(83, n_classes)
    confidence, correct = confidence_and_correct(logits, target)
    expected = {name: function(logits, target) for name, function in SCALARS.items()}
    monkeypatch.setitem(_blocks.BLOCK_SIZE, "cpu", block_size)
    got = confidence_and_correct(logits, target)
    assert torch.equal(got[0], confidence) and torch.equal(got[1], correct)
    for name, function in SCALARS.items():
        # Only the float64 additions come in another order.
        torch.testing.assert_close(function(logits, target), expected[name], rtol=1e-12, atol=0)


def test_no_array_of_all_probabilities_is_written(monkeypatch):
    """The largest tensor any operation makes is a block, or one number per sample."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and not func.is_view:
                largest = max(largest, out.untyped_storage().nbytes() // out.element_size())
            return out

    logits, target = sample(2500, 40)
    monkeypatch.setitem(_blocks.BLOCK_SIZE, "cpu", 2000)
    for function in (expected_calibration_error, negative_log_likelihood, brier_score, accuracy):
        largest = 0
        with Watch():
            function(logits, target)
        assert 0 < largest <= 2000
    for function in (kernel_calibration_error, reliability_curve):
        largest = 0
        with Watch():
            function(logits, target)
        assert 0 < largest <= 2500


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("n_bins", [1, 2, 3, 15, 49, 1000])
def test_a_bin_is_computed_as_it_would_be_searched_for(n_bins, dtype):
    edges = equal_width_edges(n_bins).to(dtype)
    below, above = (torch.nextafter(edges, edges.new_tensor(to)).clamp(0, 1) for to in (-1.0, 2.0))
    confidence = torch.cat([edges, below, above, torch.linspace(0, 1, MANY).to(dtype)])
    expected = torch.searchsorted(edges[1:-1], confidence, out_int32=True)
    assert torch.equal(bin_index(confidence, edges), expected)
    assert torch.equal(bin_index(confidence[:, None], edges)[:, 0], expected)


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_the_layout_of_a_block_changes_the_rounding_of_a_sum_alone(n_classes, monkeypatch):
    """Samples as rows or as columns, in blocks of which the last is shorter, with ties."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(999, n_classes, generator=generator)
    logits[::5, 1] = logits[::5].amax(1)
    target = torch.randint(0, n_classes, (999,), generator=generator)
    found = {}
    for many_classes in (2, 1000):
        for block_size in (1 << 20, 3000):
            monkeypatch.setattr("calibcourse._blocks.MANY_CLASSES", many_classes)
            monkeypatch.setattr("calibcourse._blocks.BLOCK_SIZE", {"cpu": block_size})
            found[many_classes, block_size] = scores_of_all(logits, target)
        assert all(map(torch.equal, found[many_classes, 1 << 20], found[many_classes, 3000]))
    rows, columns = found[2, 3000], found[1000, 3000]
    assert torch.equal(rows[2], columns[2])
    # float32 sums of at most 100 terms in another order
    torch.testing.assert_close(rows[:2], columns[:2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_classes", [50, 1000, 40_000])
def test_many_classes_are_summed_alike_alone_and_in_company(n_classes):
    """Two threads would share the sum of a single sample of more than 32,768 classes."""
    threads = torch.get_num_threads()
    logits, target = sample(5, n_classes)
    try:
        torch.set_num_threads(2)
        whole, _ = confidence_and_correct(logits, target)
        alone = [confidence_and_correct(z[None], target[:1])[0] for z in logits]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(whole, torch.cat(alone))


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-3, 1.0])
def test_ties_among_very_many_classes_are_counted(spread):
    """As many as a language model has words: whole numbers that float32 sums must not lose."""
    generator = torch.Generator().manual_seed(0)
    logits = -spread * (1 + torch.rand(3, 150_000, generator=generator))
    logits[:, 70_000::10_000] = 0.0  # 8 ties, or all where there is no spread
    rest = (logits.double()).exp().sum(1) - 1
    target = torch.tensor([70_000, 80_000, 3])
    confidence, residual, correct = scores_of_all(logits, target)
    assert correct.tolist() == ([True, False, False] if spread else [False, False, False])
    # float32 logits and sums: a part of 1e-6
    torch.testing.assert_close(confidence.double(), 1 / (1 + rest), rtol=1e-6, atol=0)
    torch.testing.assert_close(residual[1:], -1 / (1 + rest[1:]), rtol=1e-6, atol=0)

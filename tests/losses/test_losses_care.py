"""What a loss leaves untouched, what it takes, and what it refuses."""

import copy
import math

import pytest
import torch
from losses_cases import (
    CALMO,
    CALMO_L2,
    EVERY_LOSS,
    EXACT,
    batch,
    batchnorm_cnn,
    passes,
    tanh_mlp,
)
from torch import Tensor, nn

from calibcourse.losses import CalMO, CrossEntropy, FocalLoss, MeanSquaredError
from calibcourse.models import small_cnn


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_running_statistics_are_those_of_one_clean_pass(loss):
    model, (inputs, target) = batchnorm_cnn().train(), batch()
    twin = copy.deepcopy(model)
    twin(inputs)
    loss(model, inputs, target).total.backward()
    for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_eval_mode_stays_and_is_used(loss):
    model, (inputs, target) = batchnorm_cnn().eval(), batch()
    before = copy.deepcopy(model.state_dict())
    terms = loss(model, inputs, target)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    # In eval mode samples do not see each other: the loss of a batch is the mean over its samples.
    alone = [loss(model, x[None], y[None]).total for x, y in zip(inputs, target, strict=True)]
    torch.testing.assert_close(terms.total, torch.stack(alone).mean(), **EXACT)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_arguments_and_random_state_stay_untouched(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    inputs.requires_grad_()
    kept, labels, random_state = inputs.detach().clone(), target.clone(), torch.get_rng_state()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    total = loss(model, inputs, target).total
    assert all((p.grad == 1).all() for p in model.parameters())
    assert torch.equal(inputs.detach(), kept) and torch.equal(target, labels)
    assert inputs.requires_grad and inputs.grad is None
    assert torch.equal(torch.get_rng_state(), random_state)
    assert loss(model, inputs, target).total.item() == total.item()  # to the last bit


def test_frozen_layers_stay_frozen():
    model, (inputs, target) = tanh_mlp(), batch()
    CALMO(model, inputs, target).total.backward()
    expected = model[3].weight.grad.clone()
    model.zero_grad()
    model[1].requires_grad_(False)
    CALMO(model, inputs, target).total.backward()
    assert model[1].weight.grad is None and not model[1].weight.requires_grad
    torch.testing.assert_close(model[3].weight.grad, expected, **EXACT)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_same_values_without_gradients(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    with torch.no_grad():
        quiet = loss(model, inputs, target)
        assert not torch.is_grad_enabled()
    assert not quiet.total.requires_grad
    terms = loss(model, inputs, target)
    for name in ("total", "cross_entropy", "robust", "smooth", "logits"):
        assert torch.equal(getattr(quiet, name), getattr(terms, name)), name


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_order_of_samples_and_shift_of_logits_do_not_matter(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    terms = loss(model, inputs, target)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        loss(model, inputs[order], target[order]).total, terms.total, **EXACT
    )
    if not isinstance(loss, MeanSquaredError):
        with torch.no_grad():
            model[3].bias += 5.0
        torch.testing.assert_close(loss(model, inputs, target).total, terms.total, **EXACT)


@pytest.mark.parametrize("n", [1, 3])
def test_ragged_last_batch(n):
    for model in (small_cnn(), batchnorm_cnn().float()):
        shape = (n, 1, 28, 28) if isinstance(model[0], type(small_cnn()[0])) else (n, 1, 2, 3)
        terms = CalMO()(model, torch.rand(shape), torch.zeros(n, dtype=torch.int64))
        terms.total.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_autocast(loss):
    model, inputs, target = small_cnn(), torch.rand(8, 1, 28, 28), torch.arange(8)
    full = loss(model, inputs, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, seen = passes(loss, model, inputs, target)
    mixed.total.backward()
    # Every loss is computed in float32 on logits that were rounded to bfloat16 (3 digits).
    assert mixed.total.dtype == mixed.logits.dtype == torch.float32
    assert all(point.dtype == torch.float32 for point in seen)
    for name in ("total", "cross_entropy", "smooth"):
        ours, expected = getattr(mixed, name).item(), getattr(full, name).item()
        assert ours == pytest.approx(expected, rel=0.03), name
    # The KL is a difference of logits, hence noisier; where there is none it is exactly 0.
    assert mixed.robust.item() == pytest.approx(full.robust.item(), rel=0.5)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes(loss, dtype):
    model, (inputs, target) = tanh_mlp(), batch()
    exact = loss(model, inputs, target).total.item()
    terms = loss(model.to(dtype), inputs.to(dtype), target)
    terms.total.backward()
    assert terms.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # bfloat16 has 8 bits: 0.4 % per operation, a few of them in a row.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    assert terms.total.item() == pytest.approx(exact, rel=tolerance)
    assert all(p.grad.dtype == dtype for p in model.parameters())


@pytest.mark.cuda
@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_cuda_gives_the_same_numbers(loss):
    model, (inputs, target) = batchnorm_cnn(), batch()
    here = loss(copy.deepcopy(model), inputs, target)
    there = loss(model.cuda(), inputs.cuda(), target.cuda())
    there.total.backward()
    for name in ("total", "cross_entropy", "robust", "smooth", "logits"):
        assert getattr(there, name).is_cuda
        torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name), **EXACT)


@pytest.mark.cuda
def test_cuda_autocast_in_float16():
    model, inputs, target = small_cnn().cuda(), torch.rand(8, 1, 28, 28), torch.arange(8)
    with torch.autocast("cuda", dtype=torch.float16):
        terms = CalMO()(model, inputs.cuda(), target.cuda())
    terms.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"robust_weight": -0.1}, ValueError, r"robust_weight must lie in \[0.0, inf\), got -0.1"),
        ({"smooth_weight": -1}, ValueError, "smooth_weight must lie in"),
        ({"smooth_weight": math.nan}, ValueError, "smooth_weight must lie in"),
        ({"epsilon": -1e-3}, ValueError, "epsilon must lie in"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 2.0}, TypeError, "steps must be an int"),
        ({"step_size": 0.0}, ValueError, r"step_size must lie in \(0.0, inf\), got 0.0"),
        ({"step_size": -0.1}, ValueError, "step_size must lie in"),
        ({"norm": "l1"}, ValueError, "norm must be one of l2, linf; got 'l1'"),
        ({"epsilon": "8/255"}, TypeError, "epsilon must be a real number"),
    ],
)
def test_bad_settings_of_calmo(options, error, message):
    with pytest.raises(error, match=message):
        CalMO(**options)


@pytest.mark.parametrize("make", [lambda: FocalLoss(-1.0), lambda: FocalLoss(math.inf)])
def test_bad_gamma(make):
    with pytest.raises(ValueError, match="gamma must lie in"):
        make()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_bad_label_smoothing(share):
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        CrossEntropy(share)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_inputs_outside_the_range_of_pixels(value):
    model, (inputs, target) = tanh_mlp(), batch()
    inputs[3, 0, 1, 2] = value
    for loss in (CALMO, CALMO_L2, CalMO(smooth_weight=0)):
        with pytest.raises(ValueError, match=r"inputs must lie inside .*\(0.0, 1.0\)"):
            loss(model, inputs, target)
    # Nothing is clipped where nothing is attacked.
    assert torch.isfinite(CalMO(robust_weight=0)(model, inputs, target).total)


class Poisoned(nn.Module):
    """Returns NaN in the pass of the given number."""

    def __init__(self, bad_pass: int):
        super().__init__()
        self.model, self.bad_pass, self.n_passes = tanh_mlp(), bad_pass, 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_passes += 1
        logits = self.model(x)
        return logits * math.nan if self.n_passes == self.bad_pass else logits


@pytest.mark.parametrize("bad_pass", [1, 2, 3, 4])
def test_logits_that_are_not_finite_in_any_pass(bad_pass):
    with pytest.raises(ValueError, match=r"model\(inputs\) must be finite, got 21 NaN"):
        CALMO(Poisoned(bad_pass), *batch())


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=repr)
def test_bad_batches(loss):
    model, (inputs, target) = tanh_mlp(), batch()
    cases = [
        (Poisoned(1), inputs, target, ValueError, r"model\(inputs\) must be finite"),
        (model, inputs, target[:3], ValueError, r"target must have shape \(7,\), got \(3,\)"),
        (model, inputs, target + 1, ValueError, r"target must lie in 0..2"),
        (model, inputs, target.double(), TypeError, "target must have dtype torch.int64"),
        (model, inputs * math.nan, target, ValueError, "inputs must be finite"),
        (model, inputs[:0], target[:0], ValueError, "inputs must have shape"),
        (model, inputs.long(), target, TypeError, "inputs must have a floating dtype"),
        (nn.Identity(), inputs, target, ValueError, r"model\(inputs\) must have shape \(N, K\)"),
    ]
    for network, x, y, error, message in cases:
        with pytest.raises(error, match=message):
            loss(network, x, y)


def test_what_a_learner_sees():
    terms = CALMO(tanh_mlp(), *batch())
    assert repr(terms).startswith("LossTerms(total=") and repr(terms).endswith("logits=(7, 3))")
    assert "tensor" not in repr(terms)
    assert repr(FocalLoss()) == "FocalLoss(gamma=2.0)"
    assert CalMO() == CalMO(0.5, 0.01, 8 / 255, 3, 2 / 255, "linf")


@pytest.mark.parametrize("clip", [(1.0, 0.0), (0.0,), "01", (0.0, math.inf)])
def test_bad_range_of_inputs(clip):
    with pytest.raises((TypeError, ValueError), match="clip must"):
        CalMO(clip=clip)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_inputs_normalised_outside_the_model_with_the_range_in_their_units(norm):
    mean, std = 0.3, 0.25
    settings = {"robust_weight": 1.0, "smooth_weight": 0.0, "norm": norm}

    class Normalised(nn.Module):
        def __init__(self, model: nn.Module):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model((x - mean) / std)

    model, (inputs, target) = tanh_mlp(), batch()
    inside = CalMO(epsilon=0.1, step_size=0.05, **settings)(Normalised(model), inputs, target)
    units = {"epsilon": 0.1 / std, "step_size": 0.05 / std, "clip": (-mean / std, (1 - mean) / std)}
    normalised = (inputs - mean) / std
    outside = CalMO(**units, **settings)(model, normalised.clamp(*units["clip"]), target)
    assert torch.allclose(outside.robust, inside.robust, rtol=1e-9)  # float64 rounding
    with pytest.raises(ValueError, match="inputs must lie inside"):
        CalMO(**settings)(model, normalised, target)
    free = CalMO(epsilon=0.1 / std, step_size=0.05 / std, clip=None, **settings)
    assert free(model, normalised, target).robust >= outside.robust  # a larger ball to search


class Distances(nn.Module):
    """A head of distances to prototypes; torch has their first derivative alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4).double()
        self.prototypes = nn.Parameter(torch.rand(3, 4, dtype=torch.float64))

    def forward(self, x):
        return -torch.cdist(self.layer(x.flatten(1)), self.prototypes)


class Squared(torch.autograd.Function):
    """A square whose author allowed one derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Once(nn.Linear):
    def forward(self, x):
        return super().forward(Squared.apply(x.flatten(1)))


def test_a_function_without_second_derivative_is_named_before_backward():
    with pytest.raises(ValueError, match=r"differentiate twice.*marked once_differentiable"):
        CalMO()(Once(6, 3).double(), *batch())


def test_an_operation_without_second_derivative_is_named_before_backward():
    inputs, target = batch()
    with pytest.raises(ValueError, match=r"operations that torch can differentiate twice.*cdist"):
        CalMO()(Distances(), inputs, target)
    CalMO(smooth_weight=0)(Distances(), inputs, target).total.backward()  # one is enough there
    with torch.no_grad():
        assert torch.isfinite(CalMO()(Distances(), inputs, target).total)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignore_index", [None, -100, 1])
@pytest.mark.parametrize("weight", [None, (1.0, 2.0, 0.5), torch.tensor([1.0, 2.0, 0.5])])
def test_weights_and_ignored_labels_are_torchs(weight, ignore_index, label_smoothing):
    model, (inputs, target) = tanh_mlp(), batch()
    if ignore_index is not None:
        target[::3] = ignore_index
    loss = CrossEntropy(label_smoothing, weight, ignore_index)
    terms = loss(model, inputs, target)
    tensor = None if weight is None else torch.as_tensor(weight, dtype=torch.float64)
    given = {} if ignore_index is None else {"ignore_index": ignore_index}
    peer = nn.CrossEntropyLoss(tensor, label_smoothing=label_smoothing, **given)
    assert torch.equal(terms.total, peer(model(inputs), target))
    kept = target != (-100 if ignore_index is None else ignore_index)
    plain = nn.functional.cross_entropy(model(inputs)[kept], target[kept])
    assert torch.allclose(terms.cross_entropy, plain, rtol=1e-12)
    assert len(terms.logits) == len(inputs)
    assert hash(loss) == hash(CrossEntropy(label_smoothing, weight, ignore_index))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weight": (1.0, 0.0, 1.0)}, r"weight must lie in \(0.0, inf\)"),
        ({"weight": (1.0, 1.0)}, "weight must have one number per class, 3"),
        ({"weight": ("1", "1", "1")}, "weight must be a real number"),
        ({"ignore_index": 1.0}, "ignore_index must be an int"),
        ({"ignore_index": -100}, r"target must lie in 0..2, got values from -7"),
        ({"ignore_index": -7}, "a label other than ignore_index, got -7 alone"),
    ],
)
def test_bad_weights_and_ignored_labels(options, message):
    model, (inputs, target) = tanh_mlp(), batch()
    if "ignore_index" in options:
        target[:] = -7
    with pytest.raises((TypeError, ValueError), match=message):
        CrossEntropy(**options)(model, inputs, target)

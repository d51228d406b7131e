"""GaussNewton and Hessian against dense float64 matrices, curvlinops, and their own symmetries."""

import copy
import warnings

import curvlinops
import pytest
import torch
from curvature_cases import (
    MODELS,
    N_CLASSES,
    dense_gauss_newton,
    dense_hessian,
    dense_jacobian,
    flat_function,
    make_case,
    relative_error,
    small_resnet,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from calibcourse.curvature import (
    GaussNewton,
    Hessian,
    MatrixOperator,
    jacobian_grams,
    operators,
)
from calibcourse.models import mlp

# Both sides are float64; a product accumulates a few hundred roundings of 1e-16.
DENSE_TOLERANCE = 1e-10
LOSSES = ("cross_entropy", "mse")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_gauss_newton_equals_the_dense_matrix(name: str, loss: str):
    model, inputs, _ = make_case(name)
    reference = dense_gauss_newton(model, inputs, loss)
    assert relative_error(GaussNewton(model, inputs, loss).to_dense(), reference) < DENSE_TOLERANCE


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_hessian_equals_the_dense_matrix(name: str, loss: str):
    model, inputs, target = make_case(name)
    reference = dense_hessian(model, inputs, target, loss)
    operator = Hessian(model, inputs, target, loss)
    assert relative_error(operator.to_dense(), reference) < DENSE_TOLERANCE


@pytest.mark.parametrize("name", ["mlp_tanh", "batch_norm"])
@pytest.mark.parametrize("loss", LOSSES)
def test_unequal_batches_give_the_mean_over_samples(name: str, loss: str):
    model, inputs, target = make_case(name)  # 7 samples: batches of 3, 3 and 1
    whole, parts = (Hessian(model, inputs, target, loss, batch_size=b) for b in (None, 3))
    assert relative_error(parts.gradient(), whole.gradient()) < DENSE_TOLERANCE
    vector = torch.randn(whole.shape[0], dtype=torch.float64)
    assert relative_error(parts.matvec(vector), whole.matvec(vector)) < DENSE_TOLERANCE
    whole, parts = (GaussNewton(model, inputs, loss, batch_size=b) for b in (None, 3))
    assert relative_error(parts.matvec(vector), whole.matvec(vector)) < DENSE_TOLERANCE


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_second_product_equals_the_first(batch_size: int | None):
    model, inputs, target = make_case("cnn")
    for operator in (
        GaussNewton(model, inputs, batch_size=batch_size),
        Hessian(model, inputs, target, batch_size=batch_size),
    ):
        first, second = torch.randn(2, operator.shape[0], dtype=torch.float64)
        expected = operator.matvec(first)
        operator.matvec(second)
        assert torch.equal(operator.matvec(first), expected)


@pytest.mark.parametrize("name", ["mlp_tanh", "cnn", "batch_norm"])
def test_both_equal_curvlinops(name: str):
    model, inputs, target = make_case(name)
    parameters = [p for p in model.parameters() if p.requires_grad]
    data = [(inputs[:3], target[:3]), (inputs[3:], target[3:])]  # unequal on purpose
    peers = curvlinops.GGNLinearOperator, curvlinops.HessianLinearOperator
    ours = GaussNewton(model, inputs), Hessian(model, inputs, target)
    for operator, peer in zip(ours, peers, strict=True):
        reference = peer(model, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)
        vector = torch.randn(operator.shape[0], dtype=torch.float64)
        assert relative_error(operator.matvec(vector), reference @ vector) < DENSE_TOLERANCE


def test_mse_is_two_over_k_mean_of_jacobian_products():
    model, inputs, _ = make_case("mlp_tanh")
    jacobian = dense_jacobian(model, inputs)
    reference = 2 / N_CLASSES * torch.einsum("nkd,nke->de", jacobian, jacobian) / len(inputs)
    assert relative_error(GaussNewton(model, inputs, "mse").to_dense(), reference) < DENSE_TOLERANCE


def test_resnet_with_batch_norm_equals_curvlinops():
    model, inputs = small_resnet()
    model, inputs = model.double(), inputs.double()
    target = torch.tensor([0, 2])
    reference = curvlinops.GGNLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(inputs, target)],
        check_deterministic=False,
    )
    vector = torch.randn(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    product = GaussNewton(model, inputs, batch_size=1).matvec(vector)
    assert relative_error(product, reference @ vector) < DENSE_TOLERANCE


# --- properties -----------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    hidden=st.lists(st.integers(1, 6), max_size=2),
    n_classes=st.integers(2, 5),
    scale=st.floats(0.1, 10),
    loss=st.sampled_from(LOSSES),
)
def test_gauss_newton_is_linear_symmetric_and_positive(seed, hidden, n_classes, scale, loss):
    generator = torch.Generator().manual_seed(seed)
    model = mlp((1, 2, 2), hidden, n_classes, seed=seed).double()
    with torch.no_grad():
        model[-1].weight.mul_(scale)
    inputs = torch.rand(3, 1, 2, 2, generator=generator, dtype=torch.float64)
    operator = GaussNewton(model, inputs, loss)
    u, v = torch.randn(2, operator.shape[0], generator=generator, dtype=torch.float64)
    gu, gv = operator.matvec(u), operator.matvec(v)
    size = float(gu.norm() * v.norm() + gv.norm() * u.norm())  # what rounding is relative to
    assert float((operator.matvec(2 * u - 3 * v) - (2 * gu - 3 * gv)).norm()) <= 1e-12 * size
    assert abs(float(u @ gv - v @ gu)) <= 1e-12 * size
    assert float(u @ gu) >= -1e-12 * size


def test_the_hessian_is_symmetric():
    model, inputs, target = make_case("tied_weights")
    dense = Hessian(model, inputs, target).to_dense()
    assert relative_error(dense, dense.T) < 1e-13  # float64 rounding


def test_order_of_samples_and_duplicates_change_nothing():
    model, inputs, target = make_case("mlp_tanh")
    order = torch.randperm(len(inputs))
    whole = Hessian(model, inputs, target).to_dense()
    shuffled = Hessian(model, inputs[order], target[order]).to_dense()
    doubled = Hessian(model, torch.cat([inputs, inputs]), torch.cat([target, target])).to_dense()
    assert relative_error(shuffled, whole) < DENSE_TOLERANCE
    assert relative_error(doubled, whole) < DENSE_TOLERANCE


def test_shifting_every_logit_changes_nothing():
    model, inputs, _ = make_case("mlp_tanh")
    before = GaussNewton(model, inputs).to_dense()
    with torch.no_grad():
        model[-1].bias += 5.0
    assert relative_error(GaussNewton(model, inputs).to_dense(), before) < DENSE_TOLERANCE


def test_permuting_the_classes_permutes_the_matrix():
    model, inputs, _ = make_case("linear")
    order = torch.tensor([2, 0, 3, 1])
    permuted = copy.deepcopy(model)
    with torch.no_grad():
        permuted[-1].weight.copy_(model[-1].weight[order])
        permuted[-1].bias.copy_(model[-1].bias[order])
    place = torch.cat([(6 * order[:, None] + torch.arange(6)).flatten(), 24 + order])
    reference = GaussNewton(model, inputs).to_dense()[place][:, place]
    assert relative_error(GaussNewton(permuted, inputs).to_dense(), reference) < DENSE_TOLERANCE


# --- float32 at large margins ---------------------------------------------------------------------


def careful_product(model: nn.Module, inputs: Tensor, vector: Tensor) -> Tensor:
    """G v in float64 from the pairwise form (H u)_j = p_j Σ_k p_k (u_j - u_k): nothing cancels."""
    theta, logits_of = flat_function(model)
    logits, pushed = torch.func.jvp(lambda t: logits_of(t, inputs), (theta,), (vector,))
    p = logits.softmax(1)
    pairs = p[:, None, :] * (pushed[:, :, None] - pushed[:, None, :])
    weighted = p * pairs.sum(2) / len(inputs)
    return torch.func.vjp(lambda t: logits_of(t, inputs), theta)[1](weighted)[0].detach()


def network_at_margin(margin: float, scaled_to: str) -> tuple[nn.Module, Tensor]:
    """A float32 MLP whose last layer is scaled until its predicted margins are as asked."""
    model = mlp((1, 14, 14), hidden=(64, 64))
    inputs = torch.rand(400, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    top = model(inputs).detach().topk(2, dim=1).values
    margins = top[:, 0] - top[:, 1]
    if scaled_to == "smallest":  # drop the undecided half: else the others' logits are in thousands
        inputs, margins = inputs[margins > margins.median()], margins[margins > margins.median()]
    unit = margins.min() if scaled_to == "smallest" else margins.median()
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.mul_(margin / unit)
    return model, inputs


@pytest.mark.parametrize("scaled_to", ["median", "smallest"])
@pytest.mark.parametrize("margin", [0, 5, 10, 15, 18, 25, 40])
def test_float32_products_are_right_at_any_margin(margin: float, scaled_to: str):
    model, inputs = network_at_margin(margin, scaled_to)
    operator = GaussNewton(model, inputs)
    vector = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(1))
    double = copy.deepcopy(model).double()
    for _ in range(2):  # a random vector, then nearly the top eigenvector
        reference = careful_product(double, inputs.double(), vector.double())
        # The acceptance bound; measured errors are below 1e-6 (float32 rounding of J and of v).
        assert relative_error(operator.matvec(vector), reference) < 1e-5
        vector = (reference / reference.norm()).float()


def test_the_reference_at_large_margins_is_itself_right():
    """Two samples of a linear model: G v by hand with p(1 - p) = e^-m to 17 digits at m = 40."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[40.0], [0.0]]))
    inputs = torch.ones(1, 1, dtype=torch.float64)
    vector = torch.tensor([0.0, 1.0], dtype=torch.float64)
    curvature = torch.tensor(-40.0, dtype=torch.float64).exp()
    expected = curvature * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert relative_error(careful_product(model, inputs, vector), expected) < 1e-14
    assert relative_error(GaussNewton(model, inputs).matvec(vector), expected) < 1e-14


def test_a_model_that_cannot_run_in_float64_is_announced():
    class Casting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float())

    model = Casting(2, 2)
    with torch.no_grad():
        model.weight.mul_(1000)
    with pytest.warns(RuntimeWarning, match="does not run in float64"):
        GaussNewton(model, torch.ones(1, 2)).matvec(torch.ones(6))


# --- what must not change, and what must be refused -----------------------------------------------


def test_nothing_of_the_callers_is_changed():
    model, inputs, target = make_case("batch_norm")
    model[4].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    inputs.requires_grad_()
    state = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    torch.manual_seed(5)
    random_state = torch.get_rng_state()
    with torch.no_grad():  # products work here all the same
        for operator in (GaussNewton(model, inputs), Hessian(model, inputs, target)):
            product = operator.matvec(torch.ones(operator.shape[0], dtype=torch.float64))
            assert not product.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(p.grad is None for p in list(model.parameters())[1:]) and inputs.grad is None
    assert not model[4].weight.requires_grad and model[0].weight.requires_grad


def test_the_zeros_of_torch_2_9_leave_no_graph(monkeypatch: pytest.MonkeyPatch):
    """Where nothing depends on a parameter, torch 2.9 fills in zeros that require a gradient."""
    grad = torch.autograd.grad

    def as_in_torch_2_9(*args, materialize_grads: bool = False, **options):
        found = grad(*args, materialize_grads=materialize_grads, **options)
        return [part.clone().requires_grad_() for part in found] if materialize_grads else found

    monkeypatch.setattr(torch.autograd, "grad", as_in_torch_2_9)
    model, inputs, target = make_case("mlp_tanh")
    for operator in (GaussNewton(model, inputs), Hessian(model, inputs, target)):
        assert not operator.to_dense().requires_grad
    assert not jacobian_grams(model, inputs).requires_grad


def test_a_model_that_has_moved_on_is_refused():
    model, inputs, target = make_case("mlp_tanh")
    operator = Hessian(model, inputs, target)
    with torch.no_grad():
        model[2].weight += 1
    with pytest.raises(RuntimeError, match="build a new one"):
        operator.matvec(torch.zeros(operator.shape[0], dtype=torch.float64))
    with pytest.raises(RuntimeError, match="build a new one"):
        operator.gradient()


class Constant(nn.Linear):
    """Logits that no parameter reaches."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 3)


class Wide(nn.Linear):
    """Outputs of rank 3."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, None]


class Mixing(nn.Linear):
    """One output row for the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(0, keepdim=True)


def test_named_errors():
    good, inputs, target = nn.Linear(2, 3), torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)
    broken, mixed = nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    mixed[1].double()
    frozen = nn.Linear(2, 3).requires_grad_(False)
    refusals = [
        (ValueError, "BatchNorm1d in train mode", nn.Sequential(good, nn.BatchNorm1d(3)), inputs),
        (ValueError, "Dropout in train mode", nn.Sequential(good, nn.Dropout()), inputs),
        (ValueError, "finite parameters.*'weight'", broken, inputs),
        (ValueError, "at least one parameter", frozen, inputs),
        (TypeError, "one dtype on one device", mixed, inputs),
        (ValueError, r"inputs must have shape \(N", good, torch.ones(0, 2)),
        (ValueError, "inputs must be finite", good, torch.full((1, 2), float("inf"))),
        (TypeError, "inputs must have the model's dtype", good, inputs.double()),
        (TypeError, "inputs must be a torch.Tensor", good, [[1.0, 2.0]]),
        (ValueError, r"model\(inputs\) must have shape \(N, K\)", Wide(2, 3), inputs),
        (ValueError, r"model\(inputs\) must have one row per sample", Mixing(2, 3), inputs),
        (ValueError, "must depend on a trainable", Constant(2, 3), inputs),
        (ValueError, "K >= 2", nn.Linear(2, 1), inputs),
    ]
    for error, message, model, data in refusals:
        with pytest.raises(error, match=message):
            GaussNewton(model, data)
        with pytest.raises(error, match=message):
            Hessian(model, data, target[: len(data)])
    with pytest.raises(ValueError, match="loss must be one of cross_entropy, mse"):
        GaussNewton(good, inputs, "hinge")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        GaussNewton(good, inputs, batch_size=0)
    with pytest.raises(ValueError, match=r"target must have shape \(4,\)"):
        Hessian(good, inputs, target[:3], batch_size=2)
    with pytest.raises(ValueError, match=r"target must lie in 0..2"):
        Hessian(good, inputs, target + 3, batch_size=2)
    operator = GaussNewton(good, inputs)
    for error, message, vector in [
        (ValueError, r"vector must have shape \(9,\)", torch.ones(8)),
        (ValueError, r"vector must have shape \(9,\)", torch.ones(9, 1)),
        (TypeError, "vector must have dtype torch.float32", torch.ones(9).double()),
        (TypeError, "vector must be a torch.Tensor", [1.0] * 9),
        (ValueError, "vector must be on cpu", torch.ones(9, device="meta")),
    ]:
        with pytest.raises(error, match=message):
            operator.matvec(vector)


def test_matrices_that_are_not_symmetric_are_refused():
    for matrix, error in [
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), ValueError),
        (torch.full((2, 2), float("nan")), ValueError),
        (torch.ones(2, 3), ValueError),
        (torch.ones(0, 0), ValueError),
        (torch.ones(2, 2, dtype=torch.int64), TypeError),
    ]:
        with pytest.raises(error, match="matrix must"):
            MatrixOperator(matrix)


def test_large_sets_take_several_batches_by_default(monkeypatch: pytest.MonkeyPatch):
    model, inputs, _ = make_case("mlp_tanh")
    assert GaussNewton(model, inputs).batch_size > 1000  # kilobytes per sample: one graph
    monkeypatch.setattr(operators, "GRAPH_BYTES", 500)  # bytes
    operator = GaussNewton(model, inputs)
    assert operator.batch_size < len(inputs)
    assert (
        relative_error(operator.to_dense(), GaussNewton(model, inputs, batch_size=7).to_dense())
        < 1e-10
    )


@pytest.mark.cuda("real")  # a pretend one cannot differentiate max_pool2d twice
def test_products_on_a_gpu_equal_those_on_the_cpu():
    model, inputs, target = make_case("cnn")
    vector = torch.randn(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    expected = Hessian(model, inputs, target).matvec(vector)
    moved = Hessian(model.cuda(), inputs.cuda(), target.cuda()).matvec(vector.cuda())
    assert relative_error(moved.cpu(), expected) < DENSE_TOLERANCE


def test_no_warning_in_ordinary_use():
    model, inputs = network_at_margin(40, "median")  # float64 logits are taken here
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussNewton(model, inputs).matvec(torch.ones(sum(p.numel() for p in model.parameters())))

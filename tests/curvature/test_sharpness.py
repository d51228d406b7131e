"""λ_max, batch sharpness and traces against dense matrices; the warm start along a run."""

import copy
import io
import math

import pytest
import torch
from curvature_cases import (
    MODELS,
    dense_gauss_newton,
    dense_hessian,
    flat_function,
    make_case,
    mean_loss,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calibcourse.curvature import (
    ConvergenceWarning,
    GaussNewton,
    Hessian,
    MatrixOperator,
    WarmSharpness,
    batch_sharpness,
    gauss_newton_sharpness,
    top_eigenpair,
    trace,
    traces,
)
from calibcourse.models import mlp

LOSSES = ("cross_entropy", "mse")


# --- λ_max ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["linear", "mlp_tanh", "cnn", "batch_norm", "tied_weights"])
def test_sharpness_equals_the_top_of_the_dense_matrix(name: str, loss: str):
    model, inputs, _ = make_case(name)
    exact = float(torch.linalg.eigvalsh(dense_gauss_newton(model, inputs, loss))[-1])
    pair = gauss_newton_sharpness(model, inputs, loss=loss)
    assert pair.converged and pair.residual <= 1e-3 * exact
    assert abs(pair.value - exact) <= 1e-3 * exact
    tight = gauss_newton_sharpness(model, inputs, loss=loss, tol=1e-9, batch_size=3)
    assert math.isclose(tight.value, exact, rel_tol=1e-9)


def test_the_top_of_the_hessian_is_its_largest_positive_eigenvalue():
    model, inputs, target = make_case("mlp_tanh")
    values = torch.linalg.eigvalsh(dense_hessian(model, inputs, target, "cross_entropy"))
    assert values[0] < 0  # indefinite
    pair = top_eigenpair(Hessian(model, inputs, target), tol=1e-8)
    assert math.isclose(pair.value, float(values[-1]), rel_tol=1e-8)


def test_sharpness_that_has_not_converged_is_announced():
    model, inputs, _ = make_case("cnn")
    with pytest.warns(ConvergenceWarning):
        pair = gauss_newton_sharpness(model, inputs, tol=1e-12, max_matvecs=3)
    assert not pair.converged
    with pytest.warns(ConvergenceWarning):
        assert not WarmSharpness(tol=1e-12, max_matvecs=3)(model, inputs).converged


# --- the warm start -------------------------------------------------------------------------------


def short_run():
    """A model, its inputs, and a step of gradient descent."""
    model = mlp((1, 7, 7), hidden=(20,), n_classes=5)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(60, 1, 7, 7, generator=generator)
    target = torch.randint(5, (60,), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), target).backward()
        optimizer.step()

    return model, inputs, step


def test_warm_values_equal_cold_ones_and_cost_fewer_products():
    model, inputs, step = short_run()
    sharpness = WarmSharpness()
    warm, cold = [], []
    for _ in range(8):
        warm.append(sharpness(model, inputs))
        cold.append(gauss_newton_sharpness(model, inputs, tol=1e-6))
        step()
    for pair, exact in zip(warm, cold, strict=True):
        assert math.isclose(pair.value, exact.value, rel_tol=1e-3)
    fresh = gauss_newton_sharpness(model, inputs)
    assert sorted(pair.matvecs for pair in warm[1:])[3] < fresh.matvecs


def test_a_resumed_run_is_identical_to_the_last_bit():
    model, inputs, step = short_run()
    whole = WarmSharpness(seed=3)
    for _ in range(3):
        whole(model, inputs)
        step()
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = WarmSharpness(seed=3)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        first, second = whole(model, inputs), resumed(model, inputs)
        assert first == second and torch.equal(first.vector, second.vector)
        step()


def test_state_dict_of_a_fresh_instrument_and_of_another_network():
    sharpness = WarmSharpness()
    sharpness.load_state_dict(WarmSharpness().state_dict())
    sharpness(nn.Linear(3, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"v0 must have shape \(10,\)"):
        sharpness(nn.Linear(4, 2), torch.ones(1, 4))


# --- batch sharpness ------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["mlp_tanh", "cnn", "batch_norm"])
def test_batch_sharpness_equals_its_definition(name: str, loss: str):
    model, inputs, target = make_case(name)
    batches = [(inputs[:4], target[:4]), (inputs[4:5], target[4:5]), (inputs[5:], target[5:])]
    theta, logits_of = flat_function(model)
    expected = []
    for x, y in batches:
        g = torch.func.grad(lambda t, x=x, y=y: mean_loss(logits_of(t, x), y, loss))(theta)
        expected.append(float(g @ dense_hessian(model, x, y, loss) @ g / (g @ g)))
    value = batch_sharpness(model, batches, loss)
    assert math.isclose(value, sum(expected) / 3, rel_tol=1e-10)  # float64 rounding
    assert math.isclose(value, batch_sharpness(model, iter(batches[::-1]), loss), rel_tol=1e-10)
    largest = max(
        float(torch.linalg.eigvalsh(dense_hessian(model, x, y, loss))[-1]) for x, y in batches
    )
    assert value <= largest * (1 + 1e-12)  # a Rayleigh quotient


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_curvature_along_the_gradient_is_its_product_with_the_hessians(loss, batch_size):
    model, inputs, target = make_case("mlp_tanh")
    hessian = Hessian(model, inputs, target, loss, batch_size)
    g = hessian.gradient()
    expected = float(g @ hessian.matvec(g) / (g @ g))
    # float64 rounding
    assert math.isclose(hessian.curvature_along_gradient(), expected, rel_tol=1e-12)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="parameters have changed"):
        hessian.curvature_along_gradient()


def test_batches_are_of_one_point():
    model, inputs, target = make_case("mlp_tanh")

    def batches():
        yield inputs[:4], target[:4]
        with torch.no_grad():
            next(model.parameters()).mul_(2)
        yield inputs[4:], target[4:]

    with pytest.raises(RuntimeError, match="parameters have changed"):
        batch_sharpness(model, batches())


def test_every_batch_is_checked():
    model, inputs, target = make_case("mlp_tanh")
    first = inputs[:4], target[:4]
    with pytest.raises(ValueError, match="target must"):
        batch_sharpness(model, [first, (inputs[4:], target[4:] + 9)])
    with pytest.raises(ValueError, match="inputs must be finite"):
        batch_sharpness(model, [first, (inputs[4:] * math.inf, target[4:])])


def test_batches_without_gradient_are_left_out():
    model = nn.Linear(2, 2)
    dead = torch.zeros(1, 2), torch.tensor([0])  # p = (1, 0) exactly: e^-2000 is 0
    with torch.no_grad():
        model.bias.copy_(torch.tensor([1000.0, -1000.0]))
    live = torch.ones(1, 2), torch.tensor([1])
    assert math.isnan(batch_sharpness(model, [dead]))
    assert batch_sharpness(model, [dead, live]) == batch_sharpness(model, [live])
    with pytest.raises(ValueError, match="at least one"):
        batch_sharpness(model, [])


def test_batch_sharpness_where_gradients_are_tiny():
    """A linear model at margin 60 in float32: g and H are near 1e-26, the squares are 0."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[60.0], [0.0]]))
    value = batch_sharpness(model, [(torch.ones(1, 1), torch.tensor([0]))])
    assert math.isclose(value, 2 * math.exp(-60), rel_tol=1e-5)  # H = e^-60 (1, -1)(1, -1)ᵀ


# --- the trace ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_the_trace_of_gauss_newton_is_exact(name: str, loss: str):
    model, inputs, _ = make_case(name)
    expected = float(dense_gauss_newton(model, inputs, loss).trace())
    result = trace(GaussNewton(model, inputs, loss, batch_size=3))
    assert result.exact and result.matvecs == 0 and result.standard_error == 0
    assert math.isclose(result.value, expected, rel_tol=1e-12)


def test_the_trace_of_gauss_newton_in_float32_at_margin_40():
    model = mlp((1, 7, 7), hidden=(30,))
    inputs = torch.rand(50, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        top = model(inputs).topk(2, dim=1).values
        for parameter in model[-1].parameters():
            parameter.mul_(40 / (top[:, 0] - top[:, 1]).median())
    double = copy.deepcopy(model).double()
    expected = trace(GaussNewton(double, inputs.double())).value
    assert math.isclose(trace(GaussNewton(model, inputs)).value, expected, rel_tol=1e-6)


def test_small_operators_are_traced_by_unit_vectors():
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = MatrixOperator(matrix + matrix.T)
    result = trace(operator)
    assert result.exact and result.matvecs == 12
    assert math.isclose(result.value, float(2 * matrix.trace()), rel_tol=1e-12)
    assert trace(operator, max_matvecs=9, exact=True) == result
    assert repr(result).endswith("exact, matvecs=12)")


def test_which_trace_is_affordable(monkeypatch: pytest.MonkeyPatch):
    model, inputs, target = make_case("mlp_tanh")  # K = 4, d > 60
    assert trace(GaussNewton(model, inputs)).exact
    assert not trace(GaussNewton(model, inputs), max_matvecs=3).exact  # K > 3
    assert not trace(Hessian(model, inputs, target)).exact
    monkeypatch.setattr(traces, "AFFORDABLE_BYTES", 10)
    assert not trace(GaussNewton(model, inputs)).exact


def decaying(size: int = 200) -> MatrixOperator:
    square = torch.randn(
        size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    vectors = torch.linalg.qr(square).Q
    values = 1 / torch.arange(1, size + 1, dtype=torch.float64) ** 2
    return MatrixOperator((vectors * values) @ vectors.T)


def test_hutch_is_unbiased_and_its_error_falls_with_the_budget():
    operator = decaying()
    exact = float(operator.matrix.trace())
    errors = {}
    for budget in (12, 48):
        estimates = [trace(operator, budget, exact=False, seed=s) for s in range(40)]
        assert all(e.matvecs == budget and not e.exact for e in estimates)
        deviations = torch.tensor([e.value - exact for e in estimates])
        errors[budget] = float(deviations.square().mean().sqrt())
        # The mean of 40 draws lies within 4 of its standard errors.
        assert abs(float(deviations.mean())) < 4 * errors[budget] / 40**0.5
        # The standard error reported is of the right size.
        reported = float(torch.tensor([e.standard_error for e in estimates]).mean())
        assert 0.5 < reported / errors[budget] < 2
    # Four times the budget: the error falls at least fourfold (1/m), where plain signs give two.
    assert errors[48] < errors[12] / 4


@settings(max_examples=20)
@given(rank=st.integers(0, 4), seed=st.integers(0, 100))
def test_hutch_is_exact_on_low_rank(rank: int, seed: int):
    factors = torch.randn(
        70, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    operator = MatrixOperator(factors @ factors.T)
    result = trace(operator, max_matvecs=15, seed=seed, exact=False)
    assert math.isclose(result.value, float(factors.square().sum()), rel_tol=1e-9, abs_tol=1e-300)


def test_hutch_in_float32_where_squares_vanish():
    operator = MatrixOperator((1e-24 * decaying().matrix).float())
    exact = float(operator.matrix.double().trace())
    assert math.isclose(trace(operator, 60, exact=False).value, exact, rel_tol=0.05)


def test_the_global_random_state_is_untouched_by_the_trace():
    state = torch.get_rng_state()
    first, again = (trace(decaying(), 12, exact=False, seed=1) for _ in range(2))
    assert first == again and torch.equal(torch.get_rng_state(), state)


def test_named_errors_of_the_trace():
    with pytest.raises(ValueError, match="max_matvecs must be at least 3"):
        trace(decaying(), 2)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        trace(decaying(), seed=-1)

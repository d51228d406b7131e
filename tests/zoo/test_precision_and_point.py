"""Half precision, autocast and inference mode; an operator whose point has moved."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_right import RIGHT

import calibcourse as cc
from calibcourse.curvature import (
    GaussNewton,
    Hessian,
    jacobian_grams,
    jacobian_norms,
    top_eigenpair,
    trace,
)

TARGET = torch.tensor([0, 1, 2, 0])


def double(name: str = "perceptron") -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return RIGHT[name].build().double(), RIGHT[name].inputs()


def everything(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Numbers of every kind that measure a model."""
    operator = GaussNewton(model, inputs)
    vector = torch.ones(operator.shape[0], dtype=operator.dtype)
    hessian = Hessian(model, inputs, TARGET)
    ladder = cc.curvature_ladder(model, inputs, TARGET)
    sandwich = cc.direct_sandwich(model, inputs, TARGET)
    found = {
        "product": operator.matvec(vector),
        "gradient": hessian.gradient(),
        "hessian": hessian.matvec(vector),
        "sharpness": top_eigenpair(operator).value,
        "exact trace": trace(operator, exact=True).value,
        "trace": trace(operator, max_matvecs=60, exact=False).value,
        "batch sharpness": cc.batch_sharpness(model, [(inputs, TARGET)]),
        "norms": jacobian_norms(model, inputs),
        "grams": jacobian_grams(model, inputs),
        "u1": ladder.u1,
        "ece": sandwich.ece,
        "margin gradient": cc.input_margin_gradient(model, inputs, TARGET),
        "robust margin": cc.robust_margin(model, inputs, TARGET, 0.01).margin,
    }
    return {name: torch.as_tensor(value).double().detach() for name, value in found.items()}


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["perceptron", "convolution", "transformer_encoder_layer"])
def test_autocast_and_inference_mode_change_nothing(name: str):
    model, inputs = double(name)
    model, inputs = model.float(), inputs.float()
    expected = everything(model, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = everything(model, inputs)
    with torch.inference_mode():
        inferred = everything(model, inputs.clone())
    for what, value in expected.items():
        assert torch.equal(rounded[what], value), what
        assert torch.equal(inferred[what], value), what


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["perceptron", "convolution"])
def test_half_precision_is_measured_to_its_digits(name: str, dtype: torch.dtype):
    model, inputs = double(name)
    model, inputs = model.to(dtype), inputs.to(dtype)
    exact = everything(copy.deepcopy(model).double(), inputs.double())
    for what, value in everything(model, inputs).items():
        # A few roundings of 2^-9 and 2^-12 each, partly averaged out.
        assert error(value, exact[what]) < {torch.bfloat16: 0.03, torch.float16: 0.004}[dtype], what


def test_losses_of_validation_in_inference_mode():
    model, inputs = double()
    expected = cc.CalMO()(model, inputs, TARGET)
    with torch.inference_mode():
        found = cc.CalMO()(model, inputs.clone(), TARGET)
    for what in ("total", "robust", "smooth"):
        assert torch.equal(getattr(found, what), getattr(expected, what).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_quantiles_of_margins_in_half_precision(dtype: torch.dtype):
    margin = torch.arange(5).to(dtype)
    row = cc.margin_quantities(
        torch.stack([margin, torch.zeros_like(margin)], 1), torch.zeros(5, dtype=torch.int64)
    )
    assert float(row["margin_q50"]) == 2.0


def test_quantiles_of_more_samples_than_torch_takes(monkeypatch: pytest.MonkeyPatch):
    logits = torch.randn(101, 2, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(101, dtype=torch.int64)
    expected = cc.margin_quantities(logits, target)
    monkeypatch.setattr("calibcourse.probes.MOST_OF_QUANTILE", 10)
    for name, value in cc.margin_quantities(logits, target).items():
        assert torch.allclose(value, expected[name], rtol=1e-6)  # float32


# --- an operator outlives its point ---------------------------------------------------------------


def set_data(model: nn.Module, inputs: Tensor) -> None:
    model[0].weight.data.mul_(1.5)


def replace_data(model: nn.Module, inputs: Tensor) -> None:
    model[0].weight.data = model[0].weight.data + 1


def no_grad_update(model: nn.Module, inputs: Tensor) -> None:
    with torch.no_grad():
        model[-1].bias += 1


def move_statistics(model: nn.Module, inputs: Tensor) -> None:
    model[1].running_mean.data.add_(1)


def train_mode(model: nn.Module, inputs: Tensor) -> None:
    model.train()


def overwrite_inputs(model: nn.Module, inputs: Tensor) -> None:
    inputs.zero_()


CHANGES: dict[Callable, str] = {
    set_data: "parameters",
    replace_data: "parameters",
    no_grad_update: "parameters",
    move_statistics: "buffers",
    train_mode: "train or eval mode",
    overwrite_inputs: "inputs or target",
}


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_point_that_has_moved_is_noticed(change: Callable, batch_size: int | None):
    model, inputs = double("batch_norm_in_eval_mode")
    operators = (
        GaussNewton(model, inputs, batch_size=batch_size),
        Hessian(model, inputs, TARGET, batch_size=batch_size),
    )
    vector = torch.ones(operators[0].shape[0], dtype=torch.float64)
    for operator in operators:
        operator.matvec(vector)
    change(model, inputs)
    for operator in operators:
        with pytest.raises(RuntimeError, match=rf"{CHANGES[change]}.*build a new one"):
            operator.matvec(vector)


def test_reading_and_measuring_move_nothing():
    model, inputs = double("batch_norm_in_eval_mode")
    operator = GaussNewton(model, inputs)
    vector = torch.ones(operator.shape[0], dtype=torch.float64)
    expected = operator.matvec(vector)
    everything(model, inputs)
    F.cross_entropy(model(inputs), TARGET).backward()
    model.zero_grad()
    model.state_dict()
    assert torch.equal(operator.matvec(vector), expected)


# --- memory ---------------------------------------------------------------------------------------


def test_norms_hold_one_block_of_matrices_at_a_time(monkeypatch: pytest.MonkeyPatch):
    from calibcourse.curvature import jacobian

    model, inputs = double()
    expected = jacobian_norms(model, inputs)
    seen: list[int] = []
    norms = jacobian._norms

    def watched(grams: Tensor) -> Tensor:
        seen.append(len(grams))
        return norms(grams)

    monkeypatch.setattr(jacobian, "_norms", watched)
    monkeypatch.setattr(jacobian, "GRAPH_BYTES", 8 * 9 * 2)  # two matrices of 3 x 3
    # Products of one sample's matrices and of four's round differently.
    assert torch.allclose(jacobian_norms(model, inputs, chunk_size=1), expected, rtol=1e-14)
    assert seen == [2, 2]

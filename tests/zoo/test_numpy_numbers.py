"""NumPy's integers and floats are taken where Python's are, and change no result."""

import math
from dataclasses import fields, is_dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import calibcourse as cc
from calibcourse import curvature as cv

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(40, 4, generator=GENERATOR)
TARGET = torch.randint(4, (40,), generator=GENERATOR)
INPUTS = torch.rand(12, 1, 8, 8, generator=GENERATOR)
LABELS = torch.randint(10, (12,), generator=GENERATOR)
CONFIDENCE = LOGITS.softmax(1).amax(1)
DATA = SimpleNamespace(name="toy", train=SimpleNamespace(inputs=INPUTS, target=LABELS))
OPERATOR = cv.MatrixOperator(torch.diag(torch.arange(1.0, 9.0)))


def small_mlp() -> nn.Module:
    return cc.mlp((1, 8, 8), (12,))


def model() -> nn.Module:
    return small_mlp().eval()


def bias(network: nn.Module, data) -> dict[str, float]:
    return {"bias": float(network[-1].bias.detach().norm())}


def trained(i, f, **options):
    network = small_mlp()
    history = cc.fit(
        network, DATA, **{"lr": f(0.25), **options}, steps=i(3), seed=i(1), progress=False
    )
    return network(INPUTS), history.metadata, history.rows


def stepped(name: str, i, f, **options):
    network = small_mlp()
    optimizer = cc.make_optimizer(name, network, f(0.25), **options)
    cc.fit(network, DATA, optimizer=optimizer, steps=2, progress=False)
    return network(INPUTS)


# i and f make an integer and a real number, of Python's types or of NumPy's.
CALLS = {
    "ece": lambda i, f: cc.expected_calibration_error(LOGITS, TARGET, i(10)),
    "mce": lambda i, f: cc.maximum_calibration_error(LOGITS, TARGET, i(10)),
    "curve": lambda i, f: cc.reliability_curve(LOGITS, TARGET, i(10)),
    "kce": lambda i, f: cc.kernel_calibration_error(LOGITS, TARGET, f(0.5)),
    "smooth ece": lambda i, f: cc.smooth_calibration_error(LOGITS, TARGET),
    "streamed": lambda i, f: streamed(cc.CalibrationError(i(10))),
    "classwise": lambda i, f: cc.classwise_calibration_error(LOGITS, TARGET, i(5)),
    "top label": lambda i, f: cc.top_label_calibration_error(LOGITS, TARGET, i(5)),
    "noise floor": lambda i, f: cc.noise_floor(CONFIDENCE, n_bins=i(5), seed=i(1)),
    "interval": lambda i, f: cc.bootstrap_interval(
        cc.accuracy, LOGITS, TARGET, level=f(0.5), n_resamples=i(20), seed=i(1)
    ),
    "robust margin": lambda i, f: cc.robust_margin(
        model(), INPUTS, LABELS, f(0.125), steps=i(3), step_size=f(0.0625), batch_size=i(5)
    ),
    "pgd": lambda i, f: cc.pgd(
        model(), INPUTS, LABELS, f(0.125), steps=i(2), step_size=f(0.0625), clip=(f(0.0), f(1.0))
    ),
    "linear robust margin": lambda i, f: cc.linear_robust_margin(
        torch.eye(4), None, LOGITS, TARGET, f(0.5)
    ),
    "G": lambda i, f: cc.GaussNewton(model(), INPUTS, batch_size=i(5)).matvec(torch.ones(910)),
    "top": lambda i, f: cc.top_eigenpair(OPERATOR, tol=f(0.125), max_matvecs=i(9), seed=i(1)),
    "value": lambda i, f: cc.top_eigenvalue(OPERATOR, f(0.125), max_matvecs=i(9), seed=i(1)),
    "tops": lambda i, f: cc.top_eigenpairs(OPERATOR, i(2), tol=f(0.125), max_matvecs=i(20)),
    "bottom": lambda i, f: cc.bottom_eigenpairs(OPERATOR, i(2), tol=f(0.125), max_basis=i(9)),
    "density": lambda i, f: cc.spectral_density(OPERATOR, i(2), i(3), i(1)),
    "trace": lambda i, f: cc.trace(OPERATOR, max_matvecs=i(6), exact=False, seed=i(1)),
    "sharpness": lambda i, f: cc.gauss_newton_sharpness(
        model(), INPUTS, tol=f(0.125), max_matvecs=i(20), batch_size=i(5), seed=i(1)
    ),
    "norms": lambda i, f: cc.jacobian_norms(model(), INPUTS, chunk_size=i(5)),
    "ece bounds": lambda i, f: cc.ece_bounds(LOGITS, TARGET, i(10)),
    "ladder": lambda i, f: cc.curvature_ladder(model(), INPUTS, LABELS),
    "label smoothing": lambda i, f: cc.CrossEntropy(f(0.25), (f(1.0), f(2.0)) * 5, i(3)),
    "focal": lambda i, f: cc.FocalLoss(f(2.0))(model(), INPUTS, LABELS),
    "calmo": lambda i, f: cc.CalMO(f(0.5), f(0.25), f(0.125), i(2), f(0.0625))(
        model(), INPUTS, LABELS
    ),
    "temperature": lambda i, f: cc.TemperatureScaling().fit(LOGITS, TARGET).transform(LOGITS),
    "mlp": lambda i, f: cc.mlp((1, 8, 8), (i(5),), i(3), seed=i(2))(INPUTS),
    "cnn": lambda i, f: cc.small_cnn((1, 8, 8), n_classes=i(3), seed=i(2))(INPUTS),
    "resnet": lambda i, f: cc.resnet20(n_classes=i(3), seed=i(2)).eval()(
        INPUTS.expand(-1, 3, 8, 8)
    ),
    "labels": lambda i, f: cc.noisy_labels(LABELS, f(0.5), i(10), seed=i(1)),
    "shifted": lambda i, f: cc.shifted(INPUTS, "noise", f(0.5), seed=i(1)),
    "steps": lambda i, f: (cc.even_steps(i(50), i(5)), cc.log_steps(i(50), i(5))),
    "fit": lambda i, f: trained(i, f, batch_size=i(5), probes=[bias], probe_steps=i(2)),
    "fit by calmo": lambda i, f: trained(i, f, loss=cc.CalMO(steps=i(2), epsilon=f(0.125))),
    "momentum": lambda i, f: stepped("sgd", i, f, momentum=f(0.5)),
    "sam": lambda i, f: stepped("sam", i, f, rho=f(0.125)),
    "muon": lambda i, f: stepped("muon", i, f, momentum=f(0.5)),
    "adamw": lambda i, f: stepped("adamw", i, f, eps=f(0.125)),
    "bulk": lambda i, f: stepped(
        "bulk_sgd", i, f, inputs=DATA.train.inputs, directions=i(1), refresh=i(2)
    ),
}


def streamed(error: cc.CalibrationError):
    error.update(LOGITS, TARGET)
    return error.compute()


def same(left, right) -> bool:
    if is_dataclass(left):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    if isinstance(left, Tensor):
        return torch.allclose(left, right, rtol=0, atol=0, equal_nan=True)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (left != left and right != right)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("integer, real", [(np.int64, np.float32), (np.int32, np.float64)])
def test_numpys_numbers_give_the_same(name, integer, real):
    call = CALLS[name]
    assert same(call(int, float), call(integer, real))


def test_set_seed():
    cc.set_seed(np.int64(3))
    first = torch.rand(2)
    cc.set_seed(3)
    assert torch.equal(torch.rand(2), first)


@pytest.mark.parametrize("value", [np.bool_(True), np.float64(3.0), np.array(3), torch.tensor(3)])
def test_what_is_no_integer_stays_refused(value):
    with pytest.raises(TypeError, match="n_bins must be an int"):
        cc.expected_calibration_error(LOGITS, TARGET, value)


@pytest.mark.parametrize("value", [np.bool_(True), np.complex64(1), np.array(0.5), "0.5"])
def test_what_is_no_number_stays_refused(value):
    with pytest.raises(TypeError, match="bandwidth must be a real number"):
        cc.kernel_calibration_error(LOGITS, TARGET, value)


@pytest.mark.parametrize("value", [np.float32(math.nan), np.float64(math.inf)])
def test_numpys_numbers_are_finite_too(value):
    with pytest.raises(ValueError, match="gamma must lie in"):
        cc.FocalLoss(value)

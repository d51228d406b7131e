"""One case for every public name: what it gives in a small world that lies on one device.

A case is a function of the world; what it returns is compared with what it returns in the same
world on the CPU, tensor by tensor and number by number.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

import calibcourse as cc
from calibcourse import plots
from calibcourse.curvature import MatrixOperator

N, K = 60, 5
World = SimpleNamespace


def world(device: str) -> World:
    """Two networks, images, logits, labels and a matrix; the same numbers on every device."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(N, 1, 8, 8, generator=generator)
    target = torch.arange(N) % K
    matrix = torch.randn(12, 12, generator=generator)
    parts = (cc.Split(inputs[a:b], target[a:b]) for a, b in ((0, 40), (40, 50), (50, 60)))
    here = {
        "logits": 3 * torch.randn(N, K, generator=generator),
        "target": target,
        "inputs": inputs,
        "matrix": matrix + matrix.T,
        "weight": torch.randn(K, 64, generator=generator),
        "bias": torch.randn(K, generator=generator),
        "model": cc.mlp((1, 8, 8), (6,), K, seed=0),
        "cnn": cc.small_cnn((1, 8, 8), (2, 2), K, seed=0),
        "data": cc.Dataset("toy", tuple("abcde"), *parts),
    }
    return World(device=device, **{name: value.to(device) for name, value in here.items()})


def trained(w: World, optimizer: str = "sgd", loss: object = None, **options: Any) -> tuple:
    """The history and the weights after three steps."""
    model = copy.deepcopy(w.model)
    options = {"lr": 0.05, "steps": 3, "batch_size": 16, "progress": False} | options
    history = cc.fit(model, w.data, loss, optimizer, **options)
    return history.rows, model.state_dict()


def loss_and_gradients(w: World, loss: Callable) -> tuple:
    """The terms of a loss and what its total's backward leaves."""
    model = copy.deepcopy(w.cnn)
    terms = loss(model, w.inputs, w.target)
    terms.total.backward()
    return terms, {name: parameter.grad for name, parameter in model.named_parameters()}


def eigenpair(found: Any) -> tuple:
    """Without the sign, which nothing decides."""
    return abs(found.value), found.vector.abs(), found.matvecs


def product(operator: Any) -> Tensor:
    """With a vector of ones."""
    return operator.matvec(torch.ones(operator.shape[0], device=operator.device))


def steps_of(w: World, name: str, **options: Any) -> dict:
    """The weights after two steps of an optimizer outside `fit`."""
    model = copy.deepcopy(w.model)
    optimizer = cc.make_optimizer(name, model, 0.05, **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = nn.functional.cross_entropy(model(w.inputs), w.target)
        total.backward()
        return total

    for _ in range(2):
        optimizer.step(closure)
    return model.state_dict()


def streamed(w: World) -> object:
    """Two parts, another stream merged, and what is computed of all."""
    stream = cc.CalibrationError()
    stream.update(w.logits[:20], w.target[:20]).update(w.logits[20:], w.target[20:])
    return stream.merge(cc.CalibrationError().update(w.logits, w.target)).compute()


def seeded(w: World) -> Tensor:
    """Drawn on the device after the same seed, twice."""
    cc.set_seed(3)
    first = torch.rand(2, device=w.device)
    cc.set_seed(3)
    assert torch.equal(first, torch.rand(2, device=w.device))
    return first


def _robust(w: World) -> Tensor:
    """Below the clean margins, as robust margins are."""
    return cc.true_margin(w.model(w.inputs).detach(), w.target) - 0.1


def of_logits(function: Callable) -> Callable[[World], object]:
    """A case of a function of logits and target."""
    return lambda w: function(w.logits, w.target)


OF_LOGITS = """
    accuracy brier_score bound_quantities calibration_quantities class_over_confidence
    classwise_calibration_error confidence_and_correct confidence_gap_bounds ece_bounds
    error_probability expected_calibration_error kernel_calibration_error margin_quantities
    maximum_calibration_error mean_confidence mean_misconfidence negative_log_likelihood
    reliability_curve smooth_calibration_error softmax_tail_bounds top_label_calibration_error
    true_margin true_misconfidence
""".split()  # noqa: SIM905
ECE = cc.expected_calibration_error
ON_THE_CPU = ("class_over_confidence", "noise_floor")  # as their docstrings say

CASES: dict[str, Callable[[World], object]] = {
    **{name: of_logits(getattr(cc, name)) for name in OF_LOGITS},
    "BestValidation": lambda w: cc.BestValidation()(w.model, w.data),
    "CalMO": lambda w: [loss_and_gradients(w, cc.CalMO(norm=norm)) for norm in ("linf", "l2")],
    "CalibrationError": streamed,
    "CrossEntropy": lambda w: loss_and_gradients(w, cc.CrossEntropy(0.1)),
    "Dataset": lambda w: (repr(w.data), w.data.to("cpu").to(w.device).test.target),
    "FocalLoss": lambda w: loss_and_gradients(w, cc.FocalLoss()),
    "GaussNewton": lambda w: [
        product(cc.GaussNewton(w.cnn, w.inputs, batch_size=size)) for size in (None, 16)
    ],
    "Hessian": lambda w: [
        product(cc.Hessian(w.cnn, w.inputs, w.target)),
        cc.Hessian(w.model, w.inputs, w.target).gradient(),
    ],
    "History": lambda w: cc.History([{"step": 0, "x": float(w.bias[0])}]).to_dict(),
    "LadderProbe": lambda w: cc.LadderProbe("test")(w.model, w.data),
    "LogitProbe": lambda w: cc.LogitProbe()(w.model, w.data),
    "LogitsOf": lambda w: cc.LogitsOf(w.model, lambda found: 2 * found)(w.inputs),
    "LossTerms": lambda w: loss_and_gradients(w, cc.CrossEntropy())[0],
    "MeanSquaredError": lambda w: loss_and_gradients(w, cc.MeanSquaredError()),
    "RobustMargin": lambda w: cc.robust_margin(w.cnn, w.inputs, w.target, 0.05, steps=2),
    "SharpnessProbe": lambda w: cc.SharpnessProbe(30)(w.model, w.data),
    "Split": lambda w: w.data.train.head(5).inputs,
    "TemperatureScaling": lambda w: (
        (fitted := cc.TemperatureScaling().fit(w.logits, w.target)).temperature,
        fitted.transform(w.logits),
    ),
    "batch_sharpness": lambda w: cc.batch_sharpness(
        w.model, zip(w.inputs.split(25), w.target.split(25), strict=True)
    ),
    "bootstrap_interval": lambda w: cc.bootstrap_interval(ECE, w.logits, w.target, n_resamples=10),
    "calibration_probe": lambda w: cc.calibration_probe(w.model, w.data),
    "compare_models": lambda w: cc.compare_models(
        ECE, w.logits, 2 * w.logits, w.target, n_resamples=10
    ),
    "curvature_ladder": lambda w: (
        (ladder := cc.curvature_ladder(w.model, w.inputs, w.target, _robust(w))).log,
        ladder.holds,
        eigenpair(ladder.eigenpair),
    ),
    "default_device": lambda w: (
        cc.default_device(float64=False).type == torch.device(w.device).type
    ),
    "direct_sandwich": lambda w: cc.direct_sandwich(w.model, w.inputs, w.target),
    "ece_of_confidence": lambda w: cc.ece_of_confidence(
        *cc.confidence_and_correct(w.logits, w.target)
    ),
    "even_steps": lambda w: cc.even_steps(10, 3),
    "fit": lambda w: [
        trained(w, probes=[cc.LogitProbe(), cc.SharpnessProbe(), cc.LadderProbe(samples=20)]),
        trained(w, "gd", batch_size=None),
        trained(w, "bulk_sgd"),
        trained(w, "sam", cc.CalMO()),
    ],
    "gauss_newton_sharpness": lambda w: eigenpair(cc.gauss_newton_sharpness(w.cnn, w.inputs)),
    "input_margin_gradient": lambda w: cc.input_margin_gradient(w.cnn, w.inputs, w.target),
    "jacobian_grams": lambda w: cc.jacobian_grams(w.cnn, w.inputs),
    "jacobian_norms": lambda w: cc.jacobian_norms(w.model, w.inputs),
    "linear_robust_margin": lambda w: cc.linear_robust_margin(
        w.weight, w.bias, w.inputs, w.target, 0.05
    ),
    "load_dataset": lambda w: cc.load_dataset("fashion_mnist_small").to(w.device).test.target,
    "log_margin_moment": lambda w: cc.log_margin_moment(w.logits[:, 0]),
    "log_steps": lambda w: cc.log_steps(10, 3),
    "logit_hessian_bounds": lambda w: cc.logit_hessian_bounds(w.logits),
    "make_optimizer": lambda w: [
        *(steps_of(w, name) for name in ("gd", "sgd", "adamw", "muon", "sam")),
        steps_of(w, "bulk_sgd", inputs=w.inputs),
    ],
    "margin_moment": lambda w: cc.margin_moment(w.logits[:, 0]),
    "margin_moment_share": lambda w: cc.margin_moment_share(w.logits[:, 0]),
    "margin_probe": lambda w: cc.margin_probe(w.model, w.data),
    "mlp": lambda w: w.model(w.inputs).detach(),
    "mse_ladder": lambda w: cc.mse_ladder(w.model, w.inputs).log,
    "noise_floor": lambda w: cc.noise_floor(w.logits.softmax(1).amax(1), n_draws=20),
    "noisy_labels": lambda w: cc.noisy_labels(w.target, 0.3, K),
    "paired_difference": lambda w: cc.paired_difference([1.0, 2.0], [0.5, 1.0], "seeds"),
    "pgd": lambda w: [cc.pgd(w.cnn, w.inputs, w.target, 0.1, norm) for norm in ("linf", "l2")],
    "predicted_margin": lambda w: cc.predicted_margin(w.logits),
    "resnet20": lambda w: cc.resnet20(1, K).to(w.device).eval()(w.inputs[:2]).detach(),
    "robust_margin": lambda w: [
        cc.robust_margin(w.cnn, w.inputs, w.target, 0.1, norm, steps=2, multi_targeted=many)
        for norm, many in (("linf", False), ("l2", False), ("linf", True))
    ],
    "set_seed": lambda w: seeded(w).isfinite().all(),
    "shifted": lambda w: [cc.shifted(w.inputs, kind, 0.1) for kind in ("noise", "contrast")],
    "small_cnn": lambda w: w.cnn(w.inputs).detach(),
    "top_eigenpair": lambda w: [
        eigenpair(cc.top_eigenpair(MatrixOperator(w.matrix), v0=v0))
        for v0 in (None, torch.ones(12, device=w.device))
    ],
    "bottom_eigenpairs": lambda w: [
        pair.value for pair in cc.bottom_eigenpairs(MatrixOperator(w.matrix), 2)
    ],
    "spectral_density": lambda w: (
        cc.spectral_density(MatrixOperator(w.matrix), 2, 3).nodes.flatten().tolist()
    ),
    "top_eigenpairs": lambda w: [
        pair.value for pair in cc.top_eigenpairs(MatrixOperator(w.matrix), 2)
    ],
    "top_eigenvalue": lambda w: eigenpair(cc.top_eigenvalue(MatrixOperator(w.matrix))),
    "trace": lambda w: [
        cc.trace(cc.GaussNewton(w.model, w.inputs)).value,
        cc.trace(cc.Hessian(w.model, w.inputs, w.target), exact=False),
    ],
}


def drawn(draw: Callable[[World], object]) -> Callable[[World], object]:
    """A case of a figure: the lines and points that it shows."""

    def case(w: World) -> object:
        plt.close("all")
        with torch.no_grad():
            draw(w)
        axes = [ax for number in plt.get_fignums() for ax in plt.figure(number).axes]
        shown = [
            [np.asarray(line.get_xydata(), float) for line in ax.lines]
            + [np.asarray(points.get_offsets(), float) for points in ax.collections]
            + [np.asarray(shape.get_extents().get_points()) for shape in ax.patches]
            for ax in axes
            if ax.name == "rectilinear"
        ]
        plt.close("all")
        return shown

    return case


def _curve(w: World) -> Any:
    return cc.reliability_curve(w.logits, w.target)


def _margin(w: World) -> Tensor:
    return cc.true_margin(w.logits, w.target)


def _column(w: World, number: int) -> Tensor:
    return w.logits[:10, number].abs() + 0.1


# Figures that take tensors or models; what takes a history, arrays or numbers knows no device.
DRAWN: dict[str, Callable[[World], object]] = {
    "against_margin": lambda w: plots.against_margin(_margin(w), w.logits[:, 0].abs(), "x"),
    "amplification": lambda w: plots.amplification(*(_column(w, k) for k in range(3))),
    "attack_at": lambda w: plots.attack_at(w.model, w.data.test, 8),
    "case_grid": lambda w: plots.case_grid({"a": w.logits, "b": 2 * w.logits}, w.target, "abcde"),
    "case_title": lambda w: plots.case_title("a", w.logits, w.target, 2.0),
    "class_gaps": lambda w: plots.class_gaps(
        cc.class_over_confidence(w.logits, w.target), "abcde"
    ),
    "components": lambda w: plots.components(_column(w, 0), _column(w, 1), ("a", "b")),
    "confidence_histogram": lambda w: plots.confidence_histogram(
        *cc.confidence_and_correct(w.logits, w.target)
    ),
    "epsilon_grid": lambda w: plots.epsilon_grid(w.cnn, w.data.test, "abcde", (0, 8)),
    "estimates_by_size": lambda w: plots.estimates_by_size(
        [1, 2], {5: torch.stack([_column(w, 0), _column(w, 1)])}
    ),
    "float32_error": lambda w: plots.float32_error(
        _column(w, 0), {"a": _column(w, 1), "b": _column(w, 2)}
    ),
    "image_grid": lambda w: plots.image_grid(w.inputs[:3], "abc"),
    "logit_bounds": lambda w: plots.logit_bounds(w.logits[0], 0, plots.figure(2)[1]),
    "logit_bounds_grid": lambda w: plots.logit_bounds_grid({"a": w.logits[0]}),
    "margin_histogram": lambda w: plots.margin_histogram({"a": _margin(w)}),
    "margin_scatter": lambda w: plots.margin_scatter(_margin(w), _margin(w) - 1),
    "noise_band": lambda w: plots.noise_band(
        cc.noise_floor(w.logits.softmax(1).amax(1), n_draws=20), plots.figure()[1][0]
    ),
    "radius_panel": lambda w: plots.radius_panel(
        plots.figure(4)[1], *plots.attack_at(w.model, w.data.test, 8), "abcde", 8
    ),
    "reliability_diagram": lambda w: plots.reliability_diagram(_curve(w)),
    "shift_band": lambda w: plots.shift_band(
        plots.shift_logits(w.cnn, w.data.test, "noise"), w.data.test.target, "noise"
    ),
    "shift_grid": lambda w: plots.shift_grid(w.cnn, w.data.test),
    "shift_logits": lambda w: plots.shift_logits(w.cnn, w.data.test, "noise"),
    "shift_panel": lambda w: plots.shift_panel(
        plots.figure(2)[1], plots.shift_logits(w.cnn, w.data.test, "noise"),
        w.data.test.target, "noise", 2,
    ),
    "snapshots": lambda w: plots.snapshots([(_curve(w), _margin(w), 1.0)], [0]),
    "spectrum": lambda w: plots.spectrum({"a": torch.linalg.eigvalsh(w.matrix)}),
    "tail_band": lambda w: plots.tail_band(_margin(w), cc.softmax_tail_bounds(w.logits, w.target)),
    "temperature_grid": lambda w: plots.temperature_grid(w.logits, w.target, (1.0,), (5,)),
    "tempered_reliability": lambda w: plots.tempered_reliability(w.logits, w.target, 2.0),
    "three_instruments": lambda w: plots.three_instruments(_curve(w), _margin(w), [0, 1], [1, 2]),
}  # fmt: skip
COMPUTING = ("attack_at", "case_title", "shift_logits")  # their results are compared themselves
WITHOUT_TENSORS = set(plots.__all__) - set(DRAWN)


def plot_case(name: str) -> Callable[[World], object]:
    """The case of a public name of `plots`."""
    return DRAWN[name] if name in COMPUTING else drawn(DRAWN[name])


def parts(result: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every tensor, number and word in a result, with where it stands."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, SimpleNamespace):
        result = vars(result)
    if isinstance(result, dict):
        for name, value in result.items():
            yield from parts(value, f"{path}.{name}")
    elif isinstance(result, list | tuple):
        for place, value in enumerate(result):
            yield from parts(value, f"{path}[{place}]")
    else:
        yield path, result


def differences(expected: object, found: object, device: str | None, rtol: float) -> list[str]:
    """What is another number, or lies elsewhere, in words.

    Args:
        expected: what came out on the CPU.
        found: what came out on the device.
        device: where tensors have to lie; None is anywhere.
        rtol: relative to the largest entry.
    """
    here, there = dict(parts(expected)), dict(parts(found))
    if here.keys() != there.keys():
        return [f"other parts: {sorted(here.keys() ^ there.keys())}"]
    faults = []
    for path, value in here.items():
        other = there[path]
        if isinstance(value, Tensor):
            if device and other.device.type != device:
                faults.append(f"{path or 'the result'} lies on {other.device}")
            other, value = other.detach().cpu().double(), value.detach().double()
        elif isinstance(value, float | np.ndarray):
            other, value = torch.as_tensor(other).double(), torch.as_tensor(value).double()
        elif value != other:
            faults.append(f"{path} is {other!r}, not {value!r}")
            continue
        else:
            continue
        if value.shape != other.shape:
            faults.append(f"{path} has shape {tuple(other.shape)}, not {tuple(value.shape)}")
            continue
        scale = value[value.isfinite()].abs().max().item() if value.isfinite().any() else 1.0
        atol = max(rtol * scale, math.ulp(0.0))
        if not torch.allclose(value, other, rtol=0.0, atol=atol, equal_nan=True):
            faults.append(f"{path} differs by {(value - other).abs().max().item():.2g}")
    return faults

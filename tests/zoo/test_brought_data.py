"""Data and labels as researchers bring them: of another device, layout or mode, or none at all."""

import copy
from types import SimpleNamespace

import pytest
import torch
from pretend_device import pretend_device
from torch import Tensor, nn

import calibcourse as cc

INPUTS = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(6) % 3
LOSSES = [cc.CrossEntropy(), cc.FocalLoss(), cc.MeanSquaredError(), cc.CalMO()]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def measured(model: nn.Module, inputs: Tensor, target: Tensor) -> dict[str, Tensor | float]:
    """A number of every kind, of those that draw or tabulate something too."""
    logits = model(inputs).detach()
    confidence, _ = cc.confidence_and_correct(logits, target)
    hessian = cc.Hessian(model, inputs, target)
    return {
        "sharpness": cc.gauss_newton_sharpness(model, inputs).value,
        "batch sharpness": cc.batch_sharpness(model, [(inputs, target)]),
        "lowest": cc.bottom_eigenpairs(hessian, 1)[0].value,
        "density": cc.spectral_density(hessian, n_vectors=2, steps=5).nodes[0],
        "trace": cc.trace(hessian, exact=False).value,
        "norms": cc.jacobian_norms(model, inputs),
        "ladder": cc.curvature_ladder(model, inputs, target).u2,
        "sandwich": cc.direct_sandwich(model, inputs, target).upper,
        "attack": cc.pgd(model, inputs, target, 0.1),
        "robust": cc.robust_margin(model, inputs, target, 0.1).margin,
        "slope": cc.input_margin_gradient(model, inputs, target),
        "ece": cc.expected_calibration_error(logits, target),
        "kce": cc.kernel_calibration_error(logits, target),
        "smooth": cc.smooth_calibration_error(logits, target),
        "by class": cc.class_over_confidence(logits, target).low,
        "classwise": cc.classwise_calibration_error(logits, target),
        "brier": cc.brier_score(logits, target),
        "floor": cc.noise_floor(confidence, n_draws=50).mean,
        "interval": cc.bootstrap_interval(cc.accuracy, logits, target, n_resamples=9).low,
        "streamed": cc.CalibrationError().update(logits, target).compute().accuracy,
        "bounds": cc.ece_bounds(logits, target).gamma,
    }


def test_what_is_measured_does_not_depend_on_the_default_device():
    """Nothing of ours is made where the caller did not ask for it: `meta` can compute nothing."""
    expected = measured(network(), INPUTS, TARGET)
    model = network()
    torch.set_default_device("meta")
    try:
        found = measured(model, INPUTS, TARGET)
    finally:
        torch.set_default_device(None)
    for what, value in expected.items():
        exact = {"rtol": 0, "atol": 0, "equal_nan": True, "msg": what}
        torch.testing.assert_close(torch.as_tensor(found[what]), torch.as_tensor(value), **exact)


def test_data_made_in_inference_mode_is_measured_and_trained_on():
    model = network()
    expected = cc.input_margin_gradient(model, INPUTS, TARGET)
    with torch.inference_mode():
        inputs, target = INPUTS.clone(), TARGET.clone()
        assert torch.equal(cc.input_margin_gradient(model, inputs, target), expected)
    assert torch.equal(cc.input_margin_gradient(model, inputs, target), expected)
    for loss in LOSSES:
        loss(model, inputs, target).total.backward()
    cc.pgd(model, inputs, target, 0.1)
    cc.robust_margin(model, inputs, target, 0.1)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_inputs_of_another_dtype_or_device_are_named(loss):
    calls = [
        lambda model, inputs: loss(model, inputs, TARGET),
        lambda model, inputs: cc.input_margin_gradient(model, inputs, TARGET),
        lambda model, inputs: cc.pgd(model, inputs, TARGET, 0.1),
        lambda model, inputs: cc.Hessian(model, inputs, TARGET),
        lambda model, inputs: cc.fit(
            copy.deepcopy(model), [(inputs, TARGET)], loss, lr=0.1, steps=1, progress=False
        ),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="inputs must have the model's dtype"):
            call(network(), INPUTS.double())
    with pretend_device():
        there = network().to("cuda")
        for call in calls[:-1]:  # `fit` moves the data
            with pytest.raises(ValueError, match="inputs must be on the model's device cuda"):
                call(there, INPUTS)


def test_labels_of_another_device_are_named():
    with pretend_device():
        model, inputs = network().to("cuda"), INPUTS.to("cuda")
        for call in (cc.Hessian, cc.input_margin_gradient, cc.curvature_ladder, LOSSES[0]):
            with pytest.raises(ValueError, match=r"target must be on .*cuda"):
                call(model, inputs, TARGET)
        for attack in (cc.pgd, cc.robust_margin):
            with pytest.raises(ValueError, match=r"target must be on .*cuda"):
                attack(model, inputs, TARGET, 0.1)


LOGITS = torch.eye(3).repeat(2, 1)


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (LOGITS.to_sparse(), "dense tensor that holds numbers, got torch.sparse"),
        (LOGITS.to("meta"), "dense tensor that holds numbers, got one without"),
        (LOGITS.to(torch.float8_e5m2), "16 bits or more"),
        (LOGITS.numpy(), "be a torch.Tensor, got ndarray"),
    ],
    ids=["sparse", "meta", "float8", "numpy"],
)
def test_logits_that_nothing_can_be_computed_of(logits, words: str):
    for function in (cc.expected_calibration_error, cc.true_margin, cc.ece_bounds, cc.brier_score):
        with pytest.raises(TypeError, match=f"logits must .*{words}"):
            function(logits, TARGET)
    with pytest.raises(TypeError, match=f"logits must .*{words}"):
        cc.TemperatureScaling().fit(logits, TARGET)


@pytest.mark.parametrize(
    ("logits", "target", "remedy"),
    [
        (LOGITS, TARGET.int(), r"long\(\)"),
        (LOGITS, torch.eye(3)[TARGET], r"argmax\(1\)"),
        (LOGITS, torch.eye(3).long()[TARGET], r"argmax\(1\)"),
        (LOGITS[:, :, None, None], TARGET, r"flatten\(1\)"),
        (LOGITS[:, :1], TARGET, r"zeros_like\(z\), z"),
    ],
    ids=["int32", "one-hot floats", "one-hot integers", "axes of length 1", "one logit"],
)
def test_the_remedy_is_in_the_error(logits, target, remedy: str):
    for function in (cc.expected_calibration_error, cc.true_margin, cc.ece_bounds):
        with pytest.raises((TypeError, ValueError), match=remedy):
            function(logits, target)


def test_vmap_is_named():
    def one(logits: Tensor, target: Tensor) -> Tensor:
        return cc.true_margin(logits[None], target[None])[0]

    with pytest.raises(ValueError, match="vmap they are not: call this outside"):
        torch.func.vmap(one)(LOGITS, TARGET)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: cc.top_eigenpair(torch.eye(3)), "operator must have matvec.*got Tensor"),
        (lambda m: cc.top_eigenvalue(m), "operator must have matvec.*got Sequential"),
        (lambda m: cc.top_eigenpairs(m, 2), "operator must have matvec.*GaussNewton"),
        (lambda m: cc.bottom_eigenpairs(m, 2), "operator must have matvec"),
        (lambda m: cc.spectral_density(m), "operator must have matvec"),
        (lambda m: cc.trace(torch.eye(3)), "operator must have matvec.*MatrixOperator"),
        (lambda m: cc.curvature.MatrixOperator(torch.eye(3).to_sparse()), "matrix must be a dense"),
        (lambda m: cc.batch_sharpness(m, (INPUTS, TARGET)), "batches must .*yield pairs"),
        (lambda m: cc.batch_sharpness(m, [(INPUTS, TARGET, TARGET)]), "batches must .*yield pairs"),
        (
            lambda m: (
                cc.GaussNewton(m, [(INPUTS, TARGET), (INPUTS.double(), TARGET)]) @ torch.ones(43)
            ),
            "inputs must have the model's dtype",
        ),
        (lambda m: cc.CalMO()(m, INPUTS.tolist(), TARGET), "inputs must be a torch.Tensor"),
        (lambda m: cc.make_optimizer("sgd", m.parameters(), 0.1), "model must be a torch.nn.Mod"),
        (
            lambda m: cc.SharpnessProbe()(m, split(INPUTS.numpy(), TARGET)),
            r"data\.train\.inputs must be a torch\.Tensor, got ndarray",
        ),
    ],
)
def test_what_is_given_in_the_place_of_something_else_is_named(call, words: str):
    with pytest.raises(TypeError, match=words):
        call(network())


def test_a_model_without_numbers():
    with pytest.raises(
        ValueError, match=r"must hold numbers, but '0\.weight' is on the device 'meta"
    ):
        cc.GaussNewton(network().to("meta"), INPUTS)


def test_a_model_that_narrows_its_logits_is_measured_to_their_digits():
    class Narrow(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).bfloat16()

    model, inputs = network().double(), INPUTS.double()
    exact = cc.gauss_newton_sharpness(model, inputs).value
    with pytest.warns(RuntimeWarning, match="casts its logits to torch.bfloat16"):
        found = cc.gauss_newton_sharpness(Narrow(*model), inputs).value
    assert found == pytest.approx(exact, rel=0.02)  # a few roundings of 2^-9


def test_a_constant_model_has_a_sandwich():
    model = network()
    nn.init.zeros_(model[2].weight), nn.init.zeros_(model[2].bias)
    cut = nn.Sequential(model, nn.Threshold(1.0, 0.0))  # constant, and so are its derivatives
    sandwich = cc.direct_sandwich(cut, INPUTS, TARGET)
    assert sandwich.holds and sandwich.lower == -sandwich.error_rate


def test_the_linear_margin_asks_for_one_dtype_and_says_so():
    weight = torch.eye(3, 4)
    with pytest.raises(TypeError, match="weight must have the dtype and device of inputs"):
        cc.linear_robust_margin(weight.double(), None, INPUTS, TARGET, 0.1)
    with pytest.raises(TypeError, match=r"bias must be a torch\.Tensor, got list"):
        cc.linear_robust_margin(weight, [0.0] * 3, INPUTS, TARGET, 0.1)
    expected = cc.linear_robust_margin(weight, None, INPUTS, TARGET, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cc.linear_robust_margin(weight, None, INPUTS, TARGET, 0.1), expected)


# --- fit ------------------------------------------------------------------------------------------


def split(inputs, target) -> SimpleNamespace:
    return SimpleNamespace(train=SimpleNamespace(inputs=inputs, target=target))


@pytest.mark.parametrize(
    ("inputs", "target", "error", "words"),
    [
        (INPUTS, TARGET[:4], ValueError, "one target per sample"),
        (INPUTS[:4], TARGET, ValueError, "one target per sample"),
        (INPUTS.numpy(), TARGET, TypeError, r"data\.train\.inputs must be a torch.Tensor"),
        (INPUTS, TARGET.tolist(), TypeError, r"data\.train\.target must be a torch.Tensor"),
    ],
)
def test_fit_asks_for_tensors_with_one_target_per_sample(inputs, target, error, words: str):
    with pytest.raises(error, match=words):
        cc.fit(network(), split(inputs, target), lr=0.1, steps=1, batch_size=2, progress=False)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_fit_keeps_no_graph_of_the_data(batch_size: int | None):
    """SAM goes backward twice through one batch, which must not share a graph with the data."""
    models = [network(), network()]
    for model, inputs in zip(models, (INPUTS, INPUTS.clone().requires_grad_()), strict=True):
        options = {"steps": 3, "batch_size": batch_size, "progress": False}
        cc.fit(model, split(inputs, TARGET), optimizer="sam", lr=0.1, **options)
    assert inputs.grad is None
    assert torch.equal(models[0][0].weight, models[1][0].weight)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [(torch.optim.SGD, "the class SGD"), (torch.amp.GradScaler("cpu"), "GradScaler")],
)
def test_fit_refuses_what_is_no_optimizer(optimizer, words: str):
    with pytest.raises(TypeError, match=f"optimizer must be a name or have step.*{words}"):
        cc.fit(network(), split(INPUTS, TARGET), optimizer=optimizer, steps=1, progress=False)


class Cut(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


def no_terms(model, inputs, target):
    return nn.functional.cross_entropy(model(inputs), target)


@pytest.mark.parametrize(
    ("model", "options", "error", "words"),
    [
        (Cut(4, 3), {}, ValueError, r"loss must depend on a trainable parameter.*no_grad"),
        (nn.Flatten(), {}, ValueError, "model must have a trainable parameter"),
        (network().forward, {}, TypeError, "model must be a torch.nn.Module, got method"),
        (network().to("meta"), {}, ValueError, "model must hold numbers"),
        (network(), {"loss": no_terms}, TypeError, "must return LossTerms.*got Tensor"),
        (network(), {"probes": print}, TypeError, "probes must be a list of callables"),
        (network(), {"probes": [3]}, TypeError, r"probes must be a list of callables.*\[3\]"),
    ],
)
def test_fit_says_what_it_cannot_train(model, options, error, words: str):
    with pytest.raises(error, match=words):
        cc.fit(model, split(INPUTS, TARGET), lr=0.1, steps=1, progress=False, **options)


def test_fit_trains_in_inference_mode():
    models = [network(), network()]
    for model, mode in zip(models, (False, True), strict=True):
        with torch.inference_mode(mode):
            cc.fit(model, split(INPUTS, TARGET), lr=0.1, steps=2, batch_size=4, progress=False)
    assert torch.equal(models[0][0].weight, models[1][0].weight)


def test_fit_refuses_an_exported_program():
    exported = torch.export.export(network(), (INPUTS,)).module()
    with pytest.raises(ValueError, match=r"torch\.export.*train the module"):
        cc.fit(exported, split(INPUTS, TARGET), lr=0.1, steps=1, progress=False)

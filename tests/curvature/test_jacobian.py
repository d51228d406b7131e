"""Jacobian Gram matrices and norms against explicit Jacobians."""

import copy

import pytest
import torch
from curvature_cases import MODELS, dense_jacobian, make_case, relative_error, small_resnet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from calibcourse.curvature import jacobian, jacobian_grams, jacobian_norms
from calibcourse.models import mlp


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("name", MODELS)
def test_grams_and_norms_equal_those_of_the_dense_jacobian(name: str, chunk_size: int | None):
    model, inputs, _ = make_case(name)
    dense = dense_jacobian(model, inputs)
    grams = jacobian_grams(model, inputs, chunk_size)
    assert relative_error(grams, dense @ dense.mT) < 1e-13  # float64 rounding
    norms = jacobian_norms(model, inputs, chunk_size)
    # The square root of an eigenvalue: rounding of the largest entry of J Jᵀ, halved.
    assert torch.allclose(norms, torch.linalg.matrix_norm(dense, 2), rtol=1e-12)
    assert not grams.requires_grad and not norms.requires_grad


FACTORISED = {
    "linear": 1,
    "mlp_tanh": 3,
    "mlp_gelu": 2,
    "cnn": 2,
    "batch_norm": 2,
    "tied_weights": 2,  # embed and plain; not the layer met twice, nor the weight used by hand
    "sequence": 1,  # the head; not the layer that sees two rows per sample
    "in_place": 2,
    "parametrised": 1,
    "partly_frozen": 4,
    "unused_layer": 2,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_that_factorise_do_and_no_others(name: str, monkeypatch: pytest.MonkeyPatch):
    counts = []
    share = jacobian._factorised_share

    def counted(calls, logits):
        counts.append(len(calls))
        return share(calls, logits)

    monkeypatch.setattr(jacobian, "_factorised_share", counted)
    model, inputs, _ = make_case(name)
    jacobian_grams(model, inputs)
    assert counts == [FACTORISED[name]]


@pytest.mark.parametrize("name", ["mlp_tanh", "batch_norm", "cnn"])
def test_the_generic_path_equals_the_factorised_one(name: str, monkeypatch: pytest.MonkeyPatch):
    model, inputs, _ = make_case(name)
    both = jacobian_grams(model, inputs)
    monkeypatch.setattr(jacobian, "_factorising", lambda calls, logits, n_samples: [])
    assert relative_error(jacobian_grams(model, inputs), both) < 1e-13


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    hidden=st.lists(st.integers(1, 7), max_size=3),
    n_classes=st.integers(2, 6),
    chunk_size=st.integers(1, 6),
)
def test_random_mlps(seed: int, hidden: list[int], n_classes: int, chunk_size: int):
    generator = torch.Generator().manual_seed(seed)
    model = mlp((1, 2, 2), hidden, n_classes, seed=seed).double()
    inputs = torch.rand(5, 1, 2, 2, generator=generator, dtype=torch.float64)
    grams = jacobian_grams(model, inputs, chunk_size)
    dense = dense_jacobian(model, inputs)
    assert relative_error(grams, dense @ dense.mT) < 1e-13
    assert (torch.linalg.eigvalsh(grams)[:, 0] >= -1e-12 * grams.abs().amax((1, 2))).all()
    order = torch.randperm(5, generator=generator)
    assert relative_error(jacobian_grams(model, inputs[order], chunk_size), grams[order]) < 1e-13


def test_float32_on_the_course_network():
    model = mlp()
    inputs = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    dense = dense_jacobian(copy.deepcopy(model).double(), inputs.double())
    # Sums of a few hundred float32 products: about 1e-7 each, partly averaged out.
    assert relative_error(jacobian_grams(model, inputs), dense @ dense.mT) < 2e-6
    expected = torch.linalg.matrix_norm(dense, 2)
    assert torch.allclose(jacobian_norms(model, inputs).double(), expected, rtol=2e-6)


def test_resnet_mixes_both_paths():
    model, inputs = small_resnet()
    dense = dense_jacobian(model, inputs)
    # float32 against float32, through twenty layers.
    assert relative_error(jacobian_grams(model, inputs, 1), (dense @ dense.mT).double()) < 1e-5


def test_hooks_of_the_user_are_respected_and_ours_are_gone():
    model, inputs, _ = make_case("mlp_tanh")
    model[2].register_forward_pre_hook(lambda module, args: (3 * args[0],))
    model[2].register_forward_hook(lambda module, args, output: 2 * output)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    dense = dense_jacobian(model, inputs)
    assert relative_error(jacobian_grams(model, inputs), dense @ dense.mT) < 1e-13
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


def test_hooks_are_gone_after_an_error():
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("inside the model")

    model = nn.Sequential(nn.Linear(2, 2), Failing())
    with pytest.raises(KeyError):
        jacobian_grams(model, torch.ones(1, 2))
    assert not model[0]._forward_hooks


def test_works_without_grad_mode_and_leaves_modes_alone():
    model, inputs, _ = make_case("batch_norm")
    expected = jacobian_norms(model, inputs)
    with torch.no_grad():
        assert torch.equal(jacobian_norms(model, inputs), expected)
    assert not model.training and all(p.requires_grad for p in model.parameters())


def test_named_errors():
    model, inputs = nn.Linear(2, 3), torch.ones(2, 2)
    refusals = [
        (ValueError, "chunk_size must be at least 1", model, inputs, 0),
        (TypeError, "chunk_size must be an int", model, inputs, 1.5),
        (
            ValueError,
            "BatchNorm1d in train mode",
            nn.Sequential(model, nn.BatchNorm1d(3)),
            inputs,
            1,
        ),
        (ValueError, r"inputs must have shape", model, inputs[:0], 1),
        (ValueError, r"model\(inputs\) must have", nn.Sequential(model, nn.Flatten(0)), inputs, 1),
    ]
    for error, message, network, data, chunk_size in refusals:
        with pytest.raises(error, match=message):
            jacobian_grams(network, data, chunk_size)


@pytest.mark.cuda
def test_grams_on_a_gpu_equal_those_on_the_cpu():
    model, inputs, _ = make_case("cnn")
    expected = jacobian_grams(model, inputs)
    assert relative_error(jacobian_grams(model.cuda(), inputs.cuda()).cpu(), expected) < 1e-12

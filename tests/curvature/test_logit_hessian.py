"""The closed-form logit Hessian against autograd, and where autograd's arithmetic gives out."""

import pytest
import torch
from curvature_cases import mean_loss, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.curvature import (
    logit_gradient,
    logit_hessian,
    logit_hessian_factor,
    logit_hessian_product,
)

LOSSES = ("cross_entropy", "mse")
logit_batches = st.tuples(
    st.integers(0, 2**16), st.integers(1, 4), st.integers(2, 12), st.floats(0.01, 5)
).map(
    lambda t: (
        t[3]
        * torch.randn(
            t[1], t[2], generator=torch.Generator().manual_seed(t[0]), dtype=torch.float64
        )
    )
)


@settings(max_examples=40)
@given(logits=logit_batches, loss=st.sampled_from(LOSSES))
def test_all_forms_equal_autograd(logits, loss):
    n_samples, n_classes = logits.shape
    target = torch.arange(n_samples) % n_classes
    identity = torch.eye(n_classes, dtype=torch.float64)
    hessian, factor = logit_hessian(logits, loss), logit_hessian_factor(logits, loss)
    for i in range(n_samples):
        one_loss = lambda z, i=i: mean_loss(z[None], target[i : i + 1], loss)  # noqa: E731
        reference = torch.func.hessian(one_loss)(logits[i])
        # Absolute, as autograd's own entries carry rounding of 1e-16 (p is at most 1).
        assert torch.allclose(hessian[i], reference, atol=1e-14, rtol=0)
        assert torch.allclose(factor[i] @ factor[i].T, reference, atol=1e-14, rtol=0)
        columns = logit_hessian_product(logits[i].expand(n_classes, -1), identity, loss)
        assert torch.allclose(columns, reference, atol=1e-14, rtol=0)
        slope = torch.func.grad(one_loss)(logits[i])
        gradient = logit_gradient(logits[i : i + 1], target[i : i + 1], loss)[0]
        assert torch.allclose(gradient, slope, atol=1e-14, rtol=1e-13)


@settings(max_examples=40)
@given(logits=logit_batches)
def test_rows_sum_to_zero_and_the_diagonal_is_positive(logits):
    hessian = logit_hessian(10 * logits)
    assert float(hessian.sum(2).abs().max()) <= 1e-16  # H_z 1 = 0, each entry at most 1/4
    assert torch.equal(hessian, hessian.mT)
    assert (hessian.diagonal(dim1=1, dim2=2) >= 0).all()


def test_the_order_of_tied_classes_does_not_matter():
    tied = torch.tensor([[1.0, 1.0, -2.0]], dtype=torch.float64)
    vector = torch.tensor([[0.3, -0.4, 2.0]], dtype=torch.float64)
    swapped = logit_hessian_product(tied[:, [1, 0, 2]], vector[:, [1, 0, 2]])
    assert torch.allclose(swapped[:, [1, 0, 2]], logit_hessian_product(tied, vector), atol=1e-16)


@pytest.mark.parametrize("margin", [0.0, 5.0, 15.0, 18.0, 40.0, 80.0])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_float32_keeps_relative_precision_at_any_margin(margin: float, n_classes: int):
    logits = torch.zeros(1, n_classes)
    logits[0, 1] = margin  # exact in float32, so that only the arithmetic is tested
    vector = torch.randn(1, n_classes, generator=torch.Generator().manual_seed(0))
    # Reference: float64, written as pairs, p_j Σ_k p_k (u_j - u_k): no 1 - p, no cancellation.
    p, u = logits.double().softmax(1)[0], vector.double()[0]
    reference = (p * (p * (u[:, None] - u)).sum(1))[None]
    outer = (p[:, None] * p).fill_diagonal_(0)
    dense = torch.diag(outer.sum(1)) - outer
    # Vectorised float32 exp is right to 5e-7; entries multiply two of them.
    assert relative_error(logit_hessian_product(logits, vector), reference) < 3e-6
    assert relative_error(logit_hessian(logits)[0], dense) < 3e-6
    factor = logit_hessian_factor(logits)[0].double()
    assert relative_error(factor @ factor.T, dense) < 3e-6
    expected = p.clone()
    expected[1] = -p[torch.arange(n_classes) != 1].sum()
    gradient = logit_gradient(logits, torch.tensor([1]))
    assert relative_error(gradient[0], expected) < 3e-6


def test_named_errors():
    logits = torch.zeros(2, 3)
    for function in (logit_hessian, logit_hessian_factor):
        with pytest.raises(ValueError, match="loss must be one of"):
            function(logits, "hinge")
        with pytest.raises(ValueError, match="logits must have shape"):
            function(torch.zeros(3))
    with pytest.raises(ValueError, match="vectors must have the shape of logits"):
        logit_hessian_product(logits, torch.zeros(3))
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.2"):
        logit_gradient(logits, torch.tensor([0, 3]))

"""Kinds of problem that curvlinops and hessian-eigenthings are tested on: measured, or refused.

What is expressed here agrees with curvlinops; what is not has an error that names the reason.
"""

import curvlinops
import pytest
import torch
from curvature_cases import relative_error
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from calibcourse.curvature import GaussNewton, Hessian

EXACT = 1e-10  # float64, a handful of layers


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def mlp(n_classes: int = 3) -> nn.Module:
    return seeded(
        lambda: nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, n_classes)).double()
    )


def cnn() -> nn.Module:
    layers = [nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 5), nn.ReLU()]
    return seeded(
        lambda: nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)).double()
    )


def batches(*shape: int, n_classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    return seeded(
        lambda: [
            (torch.rand(n, *shape, dtype=torch.float64), torch.randint(n_classes, (n,)))
            for n in (3, 4)
        ]
    )


MODELS = {"mlp": (mlp, (10,), 3), "cnn": (cnn, (1, 28, 28), 10)}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("chosen", ["all", "one block"])
@pytest.mark.parametrize("name", MODELS)
def test_cross_entropy_on_uneven_batches(name, chosen, reduction):
    build, shape, n_classes = MODELS[name]
    model, data = build(), batches(*shape, n_classes=n_classes)
    weights = list(model.parameters())
    some = weights if chosen == "all" else weights[2:]
    scale = 7 if reduction == "sum" else 1  # ours is the mean over the samples
    columns = torch.randn(sum(p.numel() for p in some), 2, dtype=torch.float64)
    for ours, peer in (
        (GaussNewton(model, data, parameters=some), curvlinops.GGNLinearOperator),
        (Hessian(model, data, parameters=some), curvlinops.HessianLinearOperator),
    ):
        loss = nn.CrossEntropyLoss(reduction=reduction)
        reference = peer(model, loss, some, data, check_deterministic=False)
        assert relative_error(scale * (ours @ columns), reference @ columns) < EXACT


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gauss_newton_of_a_regression_needs_no_target(reduction):
    model = mlp()
    data = [(x, torch.rand(len(x), 3, dtype=torch.float64)) for x, _ in batches(10)]
    weights = list(model.parameters())
    loss = nn.MSELoss(reduction=reduction)
    reference = curvlinops.GGNLinearOperator(model, loss, weights, data, check_deterministic=False)
    scale = 7 * 3 if reduction == "sum" else 1  # torch's mean is over samples and classes
    vector = torch.randn(reference.shape[0], dtype=torch.float64)
    product = scale * (GaussNewton(model, data, "mse") @ vector)
    assert relative_error(product, reference @ vector) < EXACT
    with pytest.raises(TypeError, match=r"target must have dtype torch.int64"):  # one-hot only
        Hessian(model, data, loss="mse")


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(5)])
def test_what_their_checks_of_determinism_find_is_refused(layer):
    model = mlp()
    model.insert(1, layer.double())
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        GaussNewton(model, batches(10))
    GaussNewton(model.eval(), batches(10))


def test_a_shuffled_loader_that_drops_a_batch_shows_the_same_one_every_time():
    [(inputs, target), _] = batches(10)
    loader = DataLoader(TensorDataset(inputs, target), 2, shuffle=True, drop_last=True)
    operator = GaussNewton(mlp(), loader)
    vector = torch.ones(operator.shape[0], dtype=torch.float64)
    assert torch.equal(operator @ vector, operator @ vector)


class OfDictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, data):
        return self.net(data["x"])


def of_dictionaries():
    return OfDictionary(), [({"x": x}, y) for x, y in batches(10)], "cross_entropy"


# One logit and binary targets; several per sample; dictionaries; a loss of another name.
REFUSED = {
    "one logit": (lambda: (mlp(1), batches(10), "mse"), ValueError, "must have K >= 2 classes"),
    "a logit per place": (
        lambda: (mlp(), batches(5, 10), "mse"),
        ValueError,
        r"must have shape \(N, K\)",
    ),
    "dictionaries": (of_dictionaries, TypeError, r"pairs \(inputs, target\) of tensors"),
    "binary losses": (lambda: (mlp(), batches(10), "bce"), ValueError, "loss must be one of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_named(name):
    make, error, message = REFUSED[name]
    model, data, loss = make()
    with pytest.raises(error, match=message):
        GaussNewton(model, data, loss)

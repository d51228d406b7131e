"""BulkSGD against steps written out by hand."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from calibcourse.curvature import Eigenpair, top_eigenpairs
from calibcourse.optimizers import make_optimizer


class Network(nn.Module):
    """A network with its images and loss, in float64: the curvature is known densely."""

    def __init__(self, layers: nn.Module, loss: str):
        super().__init__()
        self.layers = layers.double()
        generator = torch.Generator().manual_seed(3)
        self.inputs = torch.randn(15, 4, generator=generator, dtype=torch.float64)
        self.target = torch.randint(0, 3, (15,), generator=generator)
        self.loss_name = loss

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)

    def loss(self, flat: Tensor) -> Tensor:
        """The mean loss as a function of all parameters in one vector."""
        sizes = [p.numel() for p in self.parameters()]
        names = [name for name, _ in self.named_parameters()]
        parts = zip(names, flat.split(sizes), self.parameters(), strict=True)
        values = {name: part.view_as(p) for name, part, p in parts}
        logits = torch.func.functional_call(self, values, (self.inputs,))
        if self.loss_name == "mse":
            one_hot = nn.functional.one_hot(self.target, 3).double()
            return (logits - one_hot).square().mean()
        return nn.functional.cross_entropy(logits, self.target)

    def flat(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters()])

    def closure(self) -> Tensor:
        self.zero_grad()
        loss = self.loss(torch.cat([p.flatten() for p in self.parameters()]))
        loss.backward()
        return loss


def linear_network(loss: str = "mse") -> Network:
    torch.manual_seed(0)
    return Network(nn.Linear(4, 3), loss)


def bent_network() -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), "cross_entropy")


def bulk_step_by_hand(network: Network, lr: float, directions: int) -> Tensor:
    """θ - lr (g - V Vᵀ g) with V from the dense Hessian of the loss."""
    theta = network.flat()
    gradient = torch.func.grad(network.loss)(theta)
    steepest = torch.linalg.eigh(torch.func.hessian(network.loss)(theta))[1][:, -directions:]
    return theta - lr * (gradient - steepest @ (steepest.T @ gradient))


@pytest.fixture
def converged(monkeypatch):
    """Eigenvectors to 1e-8 instead of 1e-2, so that a step by hand has as many digits."""
    monkeypatch.setattr("calibcourse.optimizers.SUBSPACE_TOLERANCE", 1e-8)


def test_bulk_sgd_finds_its_directions_to_a_hundredth_and_pays_for_no_more(monkeypatch):
    def found(tolerance: float | None = None) -> list[Eigenpair]:
        pairs: list[Eigenpair] = []

        def watched(*args, **options):
            pairs.extend(top_eigenpairs(*args, **options))
            return pairs

        monkeypatch.setattr("calibcourse.optimizers.top_eigenpairs", watched)
        if tolerance:
            monkeypatch.setattr("calibcourse.optimizers.SUBSPACE_TOLERANCE", tolerance)
        network = bent_network()
        optimizer = make_optimizer("bulk_sgd", network, 0.3, inputs=network.inputs, directions=2)
        optimizer.step(network.closure)
        return pairs

    pairs = found()
    residuals = [pair.residual / pair.value for pair in pairs]
    assert all(pair.converged for pair in pairs) and max(residuals) <= 1e-2
    assert max(residuals) > 1e-4  # each product more divides them by about ten
    coarse, fine = (max(pair.matvecs for pair in found(tol)) for tol in (0.5, 1e-8))
    assert coarse < fine


@pytest.mark.parametrize("of_the_hessian", [False, True])
@pytest.mark.parametrize("directions", [3, 6, 9])
def test_bulk_sgd_by_hand_on_a_quadratic(directions, of_the_hessian, converged):
    # Squared error of a linear network is a quadratic, and its Gauss-Newton matrix the Hessian. It
    # acts on each of the 3 classes alike, so every eigenvalue comes three times: only a multiple
    # of 3 directions is a subspace of its own.
    network = linear_network()
    expected = bulk_step_by_hand(network, 0.3, directions)
    options = dict(inputs=network.inputs, directions=directions, loss="mse")
    if of_the_hessian:
        options["target"] = network.target
    optimizer = make_optimizer("bulk_sgd", network, 0.3, **options)
    optimizer.step(network.closure)
    # Gaps between eigenvalues are above a hundredth of them: vectors to 1e-6, gradients near 1.
    torch.testing.assert_close(network.flat(), expected, rtol=0, atol=1e-6)
    plain = bulk_step_by_hand(linear_network(), 0.3, 0)
    assert (network.flat() - plain).norm() > 0.05  # what was taken out was not nothing


def test_bulk_sgd_of_the_hessian_by_hand(converged):
    def step(**target) -> Tensor:
        network = bent_network()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter *= 3  # away from small weights, where Hessian and Gauss-Newton agree
        expected.append(bulk_step_by_hand(network, 0.3, 1))
        make_optimizer("bulk_sgd", network, 0.3, inputs=network.inputs, **target).step(
            network.closure
        )
        return network.flat()

    expected: list[Tensor] = []
    hessian, gauss_newton = step(target=bent_network().target), step()
    torch.testing.assert_close(hessian, expected[0], rtol=0, atol=1e-6)
    assert (gauss_newton - expected[0]).abs().max() > 1e-3


def test_bulk_sgd_moves_across_the_steepest_directions_and_refreshes_them(monkeypatch):
    network = bent_network()
    optimizer = make_optimizer(
        "bulk_sgd", network, 1.0, inputs=network.inputs, directions=2, refresh=4
    )
    subspaces, guesses = [], []

    def watched(operator, k, v0, **options):
        guesses.append(v0)
        return top_eigenpairs(operator, k, v0, **options)

    monkeypatch.setattr("calibcourse.optimizers.top_eigenpairs", watched)
    for _ in range(6):
        before = network.flat()
        optimizer.step(network.closure)
        subspaces.append(optimizer.state["bulk"]["subspace"])
        # Orthonormal rows, so the projection is exact up to rounding.
        assert (subspaces[-1] @ (network.flat() - before)).abs().max() < 1e-12
    changes = [not torch.equal(a, b) for a, b in pairwise(subspaces)]
    assert changes == [False, False, False, True, False]
    assert guesses[0] is None and torch.equal(guesses[1], subspaces[0])  # a warm start


def test_bulk_sgd_state_survives_a_save(tmp_path):
    def run(interrupted: bool) -> Tensor:
        network = bent_network()

        def fresh():
            return make_optimizer("bulk_sgd", network, 0.5, inputs=network.inputs, refresh=4)

        optimizer = fresh()
        for step in range(10):
            if interrupted and step == 6:
                torch.save(optimizer.state_dict(), tmp_path / "state")
                optimizer = fresh()
                optimizer.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
            optimizer.step(network.closure)
        return network.flat()

    assert torch.equal(run(interrupted=True), run(interrupted=False))


def test_a_second_group_of_parameters_is_refused():
    model = nn.Linear(2, 2)
    optimizer = make_optimizer("bulk_sgd", model, 0.1, inputs=torch.ones(1, 2), refresh=1)
    with pytest.raises(ValueError, match=r"^bulk_sgd must have one group of parameters"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})

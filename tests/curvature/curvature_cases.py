"""Small networks in float64 and dense references from `torch.func` that share no code with us."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from calibcourse.models import mlp, resnet20

N_SAMPLES, N_CLASSES = 7, 4


class TiedWeights(nn.Module):
    """A layer called twice, its weight shared, another used by hand: none of them factorises."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 5)
        self.twice = nn.Linear(5, 5)
        self.sharing = nn.Linear(5, 5)
        self.sharing.weight = self.twice.weight
        self.head = nn.Linear(5, N_CLASSES)
        self.plain = nn.Linear(5, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.twice(torch.tanh(self.twice(self.embed(x.flatten(1))))))
        h = torch.tanh(self.sharing(h))
        return self.plain(h) + F.linear(h.square(), self.head.weight) + self.head(h)


class Sequence(nn.Module):
    """A linear layer that sees several rows per sample, then an in-place activation."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Linear(3, 5)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.rows(x.view(len(x), 2, 3)).mean(1)))


def partly_frozen() -> nn.Module:
    model = mlp((1, 2, 3), hidden=(5, 4, 4), n_classes=N_CLASSES, seed=3)
    model[2].bias.requires_grad_(False)
    model[4].weight.requires_grad_(False)
    model[6].requires_grad_(False)
    return model


def in_place_activation() -> nn.Module:
    layers = nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, N_CLASSES, bias=False)
    return nn.Sequential(nn.Flatten(), *layers)


def small_convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 5),
        nn.Tanh(),
        nn.Linear(5, N_CLASSES),
    )


def parametrised() -> nn.Module:
    """The layer's weight is computed from the parameter, so that it is no parameter itself."""
    linear = nn.Linear(6, 5)
    parametrize.register_parametrization(linear, "weight", nn.Tanh())
    return nn.Sequential(nn.Flatten(), linear, nn.Tanh(), nn.Linear(5, N_CLASSES))


def with_unused_layer() -> nn.Module:
    model = mlp((1, 2, 3), hidden=(4,), n_classes=N_CLASSES)
    model.unused = nn.Linear(2, 2)  # registered, trainable, and not on the way to the logits
    model.forward = lambda x: nn.Sequential(*list(model)[:-1])(x)
    return model


def batch_norm_cnn() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.BatchNorm1d(5),
        nn.Tanh(),
        nn.Linear(5, N_CLASSES),
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, N_CLASSES)), (1, 2, 3)),
    "mlp_tanh": (lambda: mlp((1, 2, 3), hidden=(6, 5), n_classes=N_CLASSES), (1, 2, 3)),
    "mlp_gelu": (lambda: mlp((1, 2, 3), (7,), N_CLASSES, "gelu", seed=1), (1, 2, 3)),
    "cnn": (small_convolution, (1, 4, 4)),
    "batch_norm": (batch_norm_cnn, (1, 4, 4)),
    "tied_weights": (TiedWeights, (1, 2, 3)),
    "sequence": (Sequence, (1, 2, 3)),
    "in_place": (in_place_activation, (1, 2, 3)),
    "parametrised": (parametrised, (1, 2, 3)),
    "partly_frozen": (partly_frozen, (1, 2, 3)),
    "unused_layer": (with_unused_layer, (1, 2, 3)),
}


def make_case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """(model, inputs, target) in float64; logits lie units apart, so p is far from uniform."""
    build, shape = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(sum(name.encode()))
        model = build().double()
        inputs = torch.rand(N_SAMPLES, *shape, dtype=torch.float64)
        target = torch.randint(N_CLASSES, (N_SAMPLES,))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    return model, inputs, target


def small_resnet() -> tuple[nn.Module, Tensor]:
    """ResNet-20 in eval mode with BatchNorm statistics that are not trivial, and two images."""
    model = resnet20(n_classes=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(torch.rand(4, 3, 8, 8))
        return model.eval(), torch.rand(2, 3, 8, 8)


def flat_function(model: nn.Module) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """θ as one vector, and (θ, inputs) -> logits."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    theta = torch.cat([p.detach().reshape(-1) for p in named.values()])

    def logits_of(vector: Tensor, inputs: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in named.values()])
        shaped = {k: part.view_as(p) for (k, p), part in zip(named.items(), parts, strict=True)}
        return torch.func.functional_call(model, shaped, (inputs,))

    return theta, logits_of


def dense_jacobian(model: nn.Module, inputs: Tensor) -> Tensor:
    """(N, K, d), by reverse mode on the whole batch."""
    theta, logits_of = flat_function(model)
    return torch.func.jacrev(lambda vector: logits_of(vector, inputs))(theta).detach()


def mean_loss(logits: Tensor, target: Tensor, loss: str) -> Tensor:
    if loss == "cross_entropy":
        return F.cross_entropy(logits, target)
    return F.mse_loss(logits, F.one_hot(target, logits.shape[1]).to(logits.dtype))


def dense_gauss_newton(model: nn.Module, inputs: Tensor, loss: str) -> Tensor:
    """Σ Jᵀ (Hessian of the mean loss in all logits) J, the inner Hessian by autograd."""
    jacobian = dense_jacobian(model, inputs)
    with torch.no_grad():
        logits = model(inputs)
    target = torch.zeros(len(inputs), dtype=torch.int64)
    inner = torch.func.hessian(lambda z: mean_loss(z, target, loss))(logits)
    n_outputs = logits.numel()
    flat = jacobian.reshape(n_outputs, -1)
    return flat.T @ inner.reshape(n_outputs, n_outputs) @ flat


def dense_hessian(model: nn.Module, inputs: Tensor, target: Tensor, loss: str) -> Tensor:
    theta, logits_of = flat_function(model)
    return torch.func.hessian(lambda v: mean_loss(logits_of(v, inputs), target, loss))(
        theta
    ).detach()


def relative_error(result: Tensor, reference: Tensor) -> float:
    return float((result.double() - reference).norm() / reference.norm())

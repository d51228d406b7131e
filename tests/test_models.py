"""Models: shapes, seeds, normalisation as the first layer, and ResNet-20 as published."""

import re

import pytest
import torch
from torch import nn

from calibcourse.models import Normalize, ResidualBlock, mlp, resnet20, small_cnn

MAKERS = {"mlp": mlp, "small_cnn": small_cnn, "resnet20": lambda **k: resnet20(1, **k)}


@pytest.fixture(params=MAKERS, name="make")
def _make(request):
    """A function that makes a network for 1 x 28 x 28 images."""
    return MAKERS[request.param]


def state(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters())


# --- Every network --------------------------------------------------------------------------------


@pytest.mark.parametrize("n, n_classes", [(1, 2), (3, 10)])
def test_images_to_logits(make, n, n_classes):
    logits = make(n_classes=n_classes)(torch.rand(n, 1, 28, 28))
    assert logits.shape == (n, n_classes)
    assert torch.isfinite(logits).all()


def test_other_sizes_and_colours():
    images = torch.rand(2, 3, 32, 24)
    assert mlp((3, 32, 24), (7, 5, 4), n_classes=6)(images).shape == (2, 6)
    assert small_cnn((3, 32, 24), (4, 6, 8), n_classes=6)(images).shape == (2, 6)
    assert resnet20(3, n_classes=6)(images).shape == (2, 6)
    assert resnet20(3)(torch.rand(2, 3, 4, 4)).shape == (2, 10)


def test_seed_decides_the_weights_and_nothing_else_does(make):
    torch.manual_seed(5)
    first = state(make(seed=1))
    torch.manual_seed(6)
    assert torch.equal(first, state(make(seed=1)))
    assert not torch.equal(first, state(make(seed=2)))


def test_global_random_state_is_left_alone(make):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    make(seed=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_global_random_state_is_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ValueError):
        mlp(hidden=(5, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_normalisation_is_the_first_layer(make):
    """Pixels come in as they are, in [0, 1], and the rest of the network sees [-1, 1]."""
    model = make().eval()
    images = torch.rand(2, 1, 28, 28)
    assert isinstance(model[0], Normalize)
    torch.testing.assert_close(model(images), model[1:](2 * images - 1))


def test_double_precision_reaches_every_layer(make):
    assert make().double()(torch.rand(2, 1, 28, 28, dtype=torch.float64)).dtype == torch.float64


def test_training_lowers_the_loss(make):
    """Every parameter gets a gradient, and following it helps."""
    model, images, target = make(), torch.rand(16, 1, 28, 28), torch.arange(16) % 10
    losses = []
    for _ in range(5):
        losses.append(nn.functional.cross_entropy(model(images), target))
        model.zero_grad()
        losses[-1].backward()
        assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.ndim > 1)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.05 * p.grad
    assert losses[-1] < losses[0]


# --- Normalize ------------------------------------------------------------------------------------


def test_normalize_each_channel():
    layer = Normalize(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    images = torch.full((2, 3, 1, 1), 0.5)
    expected = torch.tensor([0.4, 0.15, 0.05]).view(1, 3, 1, 1).expand(2, 3, 1, 1)
    torch.testing.assert_close(layer(images), expected)
    assert list(layer.parameters()) == []  # constants: saved with the model, never trained
    assert set(layer.state_dict()) == {"mean", "std"}


# --- Each network as described --------------------------------------------------------------------


def test_mlp_is_the_papers():
    model = mlp()
    widths = [m.weight.shape for m in model if isinstance(m, nn.Linear)]
    assert widths == [(200, 784), (200, 200), (10, 200)]
    assert sum(isinstance(m, nn.Tanh) for m in model) == 2
    assert sum(p.numel() for p in model.parameters()) == 157_000 + 40_200 + 2_010


@pytest.mark.parametrize(
    "activation, layer", [("tanh", nn.Tanh), ("relu", nn.ReLU), ("gelu", nn.GELU)]
)
def test_mlp_activations(activation, layer):
    assert isinstance(mlp(hidden=(3,), activation=activation)[3], layer)


def test_linear_model_is_an_mlp_without_hidden_layers():
    model = mlp((1, 2, 2), hidden=(), n_classes=3)
    assert [type(m) for m in model] == [Normalize, nn.Flatten, nn.Linear]


def test_small_cnn_rearranges_blocks_of_pixels():
    model = small_cnn()
    seen = []
    model[2].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = torch.rand(1, 1, 28, 28)
    model(images)
    assert seen[0].shape == (1, 16, 7, 7)
    torch.testing.assert_close(seen[0][0, :, 2, 3], 2 * images[0, 0, 8:12, 12:16].flatten() - 1)
    # 16 · 16 · 9 + 16, twice; 784 · 128 + 128; 128 · 10 + 10
    assert sum(p.numel() for p in model.parameters()) == 2 * 2_320 + 100_480 + 1_290


def test_resnet20_has_the_published_size():
    """He et al. 2016, Table 6: 20 layers, 0.27 M parameters; stages of 16, 32 and 64 channels."""
    model = resnet20()
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 20
    assert sum(p.numel() for p in model.parameters()) == 269_722
    shapes = []
    for module in model:
        if isinstance(module, ResidualBlock):
            module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    model(torch.rand(2, 3, 32, 32))
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


def test_resnet20_starts_with_the_published_weights():
    """Normal weights of variance 2 / fan-in (He et al. 2015)."""
    for module in resnet20().modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            # The relative error of a variance estimate is sqrt(2 / n); four of them.
            tolerance = 4 * (2 / module.weight.numel()) ** 0.5
            variance = module.weight.square().mean().item()
            assert variance == pytest.approx(2 / fan_in, rel=tolerance)


def test_shortcut_has_no_parameters():
    """Option A: with a silent body, a block subsamples, pads with zero channels and rectifies."""
    block = ResidualBlock(2, 5, stride=2)
    nn.init.zeros_(block.body[-1].weight)
    x = torch.randn(3, 2, 6, 6)
    out = block(x)
    torch.testing.assert_close(out[:, :2], x[:, :, ::2, ::2].relu())
    assert out.shape == (3, 5, 3, 3) and not out[:, 2:].any()


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: mlp(activation="sine"), ValueError, "activation must be one of gelu, relu, tanh"),
        (lambda: mlp(n_classes=1), ValueError, "n_classes must be at least 2, got 1"),
        (lambda: mlp(hidden=(10, 0)), ValueError, "hidden must be at least 1, got 0"),
        (lambda: mlp(hidden=(2.5,)), TypeError, "hidden must be an int, got float"),
        (lambda: mlp(seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: small_cnn(n_classes=0), ValueError, "n_classes must be at least 2, got 0"),
        (lambda: small_cnn(channels=(8, 0)), ValueError, "channels must be at least 1, got 0"),
        (lambda: small_cnn((1, 28, 30)), ValueError, "multiples of 4, got (1, 28, 30)"),
        (lambda: small_cnn((1, 27, 28)), ValueError, "input_shape must have height and width"),
        (lambda: resnet20(in_channels=0), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: resnet20(n_classes=True), TypeError, "n_classes must be an int, got bool"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()

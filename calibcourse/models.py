"""The small vision networks of the course: an MLP, a small CNN and ResNet-20.

Inputs are images in [0, 1], NCHW. Normalisation is each model's own first layer, so that radii of
perturbations and input gradients are measured in pixel units.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_choice, check_integer, check_seed

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


class Normalize(nn.Module):
    """Map pixels from [0, 1] to roughly zero mean and unit variance: (x - mean) / std.

    Args:
        mean: one value per channel, in pixel units, or one value for all channels.
        std: likewise, positive.
    """

    def __init__(self, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.5,)):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(images - mean) / std, channel by channel."""
        return (images - self.mean) / self.std


class LogitsOf(nn.Module):
    """A model whose result holds the logits, as one that returns them: for all that needs (N, K).

    Args:
        model: any module; its parameters are these parameters.
        pick: from the model's result to the logits (N, K).

    Example:
        >>> class Named(nn.Linear):
        ...     def forward(self, inputs):
        ...         return {"logits": super().forward(inputs)}
        >>> model = LogitsOf(Named(2, 3), lambda result: result["logits"])
        >>> model(torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """

    def __init__(self, model: nn.Module, pick: Callable[[Any], Tensor]):
        super().__init__()
        self.model, self.pick = model, pick

    def forward(self, inputs: Tensor) -> Tensor:
        """The logits that `pick` finds in model(inputs)."""
        return self.pick(self.model(inputs))


def mlp(
    input_shape: Sequence[int] = (1, 28, 28),
    hidden: Sequence[int] = (200, 200),
    n_classes: int = 10,
    activation: str = "tanh",
    seed: int = 0,
) -> nn.Sequential:
    """A fully connected network; the default is the paper's trajectory model (Sec. 3).

    Args:
        input_shape: (channels, height, width) of one image.
        hidden: widths of the hidden layers.
        n_classes: K, the number of logits.
        activation: "tanh", "relu" or "gelu".
        seed: decides the initial weights; the global random state is left untouched.

    Returns:
        A module that maps images (N, C, H, W) in [0, 1] to logits (N, K).

    Raises:
        ValueError, TypeError: an unknown activation, fewer than 2 classes or an empty layer.

    Example:
        >>> mlp(hidden=(16,))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    check_choice(activation, "activation", ACTIVATIONS)
    n_classes = check_integer(n_classes, "n_classes", 2)
    with _seeded(seed):
        layers: list[nn.Module] = [Normalize(), nn.Flatten()]
        width_in = math.prod(input_shape)
        for width in hidden:
            check_integer(width, "hidden", 1)
            layers += [nn.Linear(width_in, width), ACTIVATIONS[activation]()]
            width_in = width
        return nn.Sequential(*layers, nn.Linear(width_in, n_classes))


def small_cnn(
    input_shape: Sequence[int] = (1, 28, 28),
    channels: Sequence[int] = (16, 16),
    n_classes: int = 10,
    seed: int = 0,
) -> nn.Sequential:
    """Two 3 x 3 convolutions and one hidden layer, all with tanh: trains in seconds on a CPU.

    Every 4 x 4 block of pixels is first rearranged into channels, so that all layers cost about the
    same in every direction. Through a convolution on full-size images, the gradient with respect to
    the pixels would cost more than everything else, and margin-aware training takes five of them
    per step. tanh is smooth: gradients of gradients see how the network bends.

    Args:
        input_shape: (channels, height, width) of one image, height and width multiples of 4.
        channels: width of each convolution.
        n_classes: K, the number of logits.
        seed: decides the initial weights; the global random state is left untouched.

    Returns:
        A module that maps images (N, C, H, W) in [0, 1] to logits (N, K).

    Raises:
        ValueError, TypeError: a height or width that is no multiple of 4, fewer than 2 classes or
            an empty layer.

    Example:
        >>> small_cnn()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    n_classes = check_integer(n_classes, "n_classes", 2)
    width_in, height, width = input_shape
    if height % 4 or width % 4:
        raise ValueError(
            "input_shape must have height and width that are multiples of 4, "
            f"got {tuple(input_shape)}"
        )
    with _seeded(seed):
        layers: list[nn.Module] = [Normalize(), nn.PixelUnshuffle(4)]
        width_in *= 4 * 4
        for width_out in channels:
            check_integer(width_out, "channels", 1)
            layers += [nn.Conv2d(width_in, width_out, 3, padding=1), nn.Tanh()]
            width_in = width_out
        n_features = width_in * (height // 4) * (width // 4)
        layers += [nn.Flatten(), nn.Linear(n_features, 128), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(128, n_classes))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm and a parameter-free shortcut (option A)."""

    def __init__(self, width_in: int, width_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.extra_channels = width_out - width_in
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width_out),
            nn.ReLU(),
            nn.Conv2d(width_out, width_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(width_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The body's output plus the input, strided and padded to its shape."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.extra_channels))
        return torch.relu(self.body(x) + shortcut)


def resnet20(in_channels: int = 3, n_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """ResNet-20 in its CIFAR form (He et al. 2016, arXiv 1512.03385, Sec. 4.2).

    Args:
        in_channels: 3 for CIFAR, 1 for the MNIST family; any height and width of at least 4.
        n_classes: K, the number of logits.
        seed: decides the initial weights; the global random state is left untouched.

    Returns:
        A module that maps images (N, C, H, W) in [0, 1] to logits (N, K).

    Raises:
        ValueError, TypeError: no input channel or fewer than 2 classes.

    Example:
        >>> resnet20(in_channels=1).eval()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    in_channels = check_integer(in_channels, "in_channels", 1)
    n_classes = check_integer(n_classes, "n_classes", 2)
    with _seeded(seed):
        layers: list[nn.Module] = [
            Normalize(),
            nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        ]
        width_in = 16
        for width_out, stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(3):
                layers.append(ResidualBlock(width_in, width_out, stride if index == 0 else 1))
                width_in = width_out
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_classes)]
        model = nn.Sequential(*layers)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block and restore the caller's random state after it."""
    seed = check_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach every device
        yield

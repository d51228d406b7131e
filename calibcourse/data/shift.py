"""Images as training never showed them: rotated, noisy, blurred or pale, in graded strength."""

import math
from types import ModuleType

import torch
from torch import Tensor

from .._checks import check_choice, check_inputs, check_real, check_seed
from ._torchvision import import_torchvision

# What is graded, in which unit, and five strengths; 0 leaves the images as they are.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "rotation": (10.0, 20.0, 30.0, 45.0, 60.0),
    "noise": (0.05, 0.1, 0.2, 0.3, 0.4),
    "blur": (0.5, 1.0, 1.5, 2.0, 3.0),
    "contrast": (0.2, 0.4, 0.6, 0.8, 0.9),
}
UNITS = {
    "rotation": "degrees",
    "noise": "standard deviation",
    "blur": "σ in pixels",
    "contrast": "part taken away",
}
_LARGEST = {"rotation": 180.0, "noise": 10.0, "blur": 100.0, "contrast": 1.0}


def shifted(inputs: Tensor, kind: str, strength: float, seed: int = 0) -> Tensor:
    """The same images after a shift of the data; their labels stay.

    | kind | strength | what is done |
    |---|---|---|
    | rotation | degrees, 0 to 180 | anticlockwise about the centre, bilinear, black corners |
    | noise | standard deviation, 0 to 10 | Gaussian, one draw per pixel, clipped to [0, 1] |
    | blur | σ in pixels, 0 to 100 | Gaussian, over 3 σ to each side or as far as the image goes |
    | contrast | part taken away, 0 to 1 | pixels drawn towards the mean grey of their image |

    `STRENGTHS` holds five graded strengths of each kind.

    Args:
        inputs: images (N, C, H, W) with one channel or three, floating, pixels in [0, 1].
        kind: "rotation", "noise", "blur" or "contrast".
        strength: as in the table; 0 returns the images, copied.
        seed: decides the noise, the same on every device; the other kinds are not random.

    Returns:
        (N, C, H, W), pixels in [0, 1], dtype and device of the inputs, in memory of its own.

    Raises:
        ValueError, TypeError: no image, a wrong shape or dtype, NaN, pixels outside [0, 1]; an
            unknown kind; a strength outside its range; a negative seed.

    Example:
        >>> image = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
        >>> shifted(image, "contrast", 0.5).flatten()
        tensor([0.2500, 0.7500, 0.2500, 0.7500])
    """
    _check_images(inputs)
    check_choice(kind, "kind", STRENGTHS)
    check_real(strength, f"strength of {kind}, in {UNITS[kind]},", 0.0, _LARGEST[kind])
    seed = check_seed(seed)
    if strength == 0:
        return inputs.clone()
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype)
        return (inputs + strength * noise.to(inputs.device)).clamp(0, 1)
    functional = _functional()
    if kind == "rotation":
        bilinear = functional.InterpolationMode.BILINEAR
        moved = functional.rotate(inputs, strength, interpolation=bilinear)
    elif kind == "blur":
        # The image is mirrored at its border, which takes a reach below its size.
        reach = min(math.ceil(3 * strength), min(inputs.shape[2:]) - 1)
        moved = functional.gaussian_blur(inputs, 2 * reach + 1, strength) if reach else inputs
    else:
        moved = functional.adjust_contrast(inputs, 1 - strength)
    return moved.clamp(0, 1)  # interpolation may leave [0, 1] by a rounding


def _functional() -> ModuleType:
    """torchvision's transforms of tensors."""
    return import_torchvision().transforms.functional


def _check_images(inputs: Tensor) -> None:
    check_inputs(inputs)
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
        raise ValueError(
            "inputs must be images of shape (N, 1, H, W) or (N, 3, H, W), got "
            f"{tuple(inputs.shape)}"
        )
    low, high = (float(v) for v in torch.aminmax(inputs))
    if low < 0 or high > 1:
        raise ValueError(f"inputs must be pixels in [0, 1], got {low:.4g} to {high:.4g}")

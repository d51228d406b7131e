"""Logits and labels to fit a temperature to."""

import torch

from calibcourse.posthoc import TemperatureScaling


def sample(n_samples=300, n_classes=5, too_sure=2.0, seed=0, dtype=torch.float64):
    """Logits that are `too_sure` times those that drew the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n_samples, n_classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return (too_sure * logits).to(dtype), target


def scales(logits, target):
    """Median distance to the next lower logit, mean distance to wrong labels; those that exist."""
    below = (logits.amax(1, keepdim=True) - logits).double()
    gaps = [min(row) for z in below.tolist() if (row := [v for v in z if v > 0])]
    wrong = [v for v in below.gather(1, target[:, None])[:, 0].tolist() if v > 0]
    lower_median = [sorted(gaps)[(len(gaps) - 1) // 2]] if gaps else []
    return lower_median + ([sum(wrong) / len(wrong)] if wrong else [])


def fitted(logits, target):
    return TemperatureScaling().fit(logits, target)

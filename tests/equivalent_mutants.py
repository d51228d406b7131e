"""Mutants of references that are right answers: each with the reason, found by hand.

Whatever is not listed here has to be refused; whatever is listed has to be accepted.
"""

_SIGN = "the sign of the difference is lost in the absolute value or in the square"
_ONE_COLUMN = "the only column is the first and the last"
_ORDER = "the order of a minimum, a maximum, a sum or a product of vectors does not matter"
_LENGTHS = "`strict` only guards against lists of different lengths, and these have the same"
_SCALE = "every product is divided by its length, so the length of the start does not matter"
_BRACKET = "a bracket that still holds the temperature, halved until it is one number"
_PLACE = "the checks' inputs lie on the CPU, where a tensor is made unless told otherwise"
_SHORT = "any features that are short enough break the bound; the check measures whether they do"

EQUIVALENT = {
    "01/bins": {
        "accuracy = torch.bincount(index, correct, n_bins) / images": "weights may be bools",
        "inner_edges = torch.linspace(0, 1, n_bins + 1)[1:-1]": _PLACE,
    },
    "01/ece": {
        "gap = torch.bincount(index, confidence - correct)": (
            "bins behind the last full one would add 0"
        ),
        "gap = torch.bincount(index, correct - confidence, n_bins)": _SIGN,
        "inner_edges = torch.linspace(0, 1, n_bins + 1, device=confidence.device)[0:-1]": (
            "a confidence is above 0, so every index is one larger and the groups are the same"
        ),
        "inner_edges = torch.linspace(0, 1, n_bins + 1)[1:-1]": _PLACE,
    },
    "01/useless": {
        "frequency = torch.bincount(target, minlength=n_classes) * len(target)": (
            "logits are known up to a constant"
        ),
        "frequency = torch.bincount(target, minlength=n_classes)": (
            "logits are known up to a constant"
        ),
        "prior = frequency.clamp(min=2e-09).log()": "any tiny frequency will do",
        "prior = frequency.clamp(min=5e-10).log()": "any tiny frequency will do",
    },
    "01/temperature": {
        "true_logit = logits.gather(1, target[:, None])": (
            "the mean over all pairs of images is the difference of the means"
        ),
        "true_logit = logits.gather(1, target[:, None]).squeeze(0)": (
            "the mean over all pairs of images is the difference of the means"
        ),
        "cold, hot = (0.002, 1000.0)": _BRACKET,
        "cold, hot = (0.0005, 1000.0)": _BRACKET,
        "cold, hot = (0.001, 2000.0)": _BRACKET,
        "cold, hot = (0.001, 500.0)": _BRACKET,
        "for _ in range(59):": _BRACKET,
        "for _ in range(61):": _BRACKET,
        "if (expected_logit - true_logit).mean() >= 0:": "a slope of exactly 0 is the minimum",
        "if (expected_logit - true_logit).sum() > 0:": "a sum has the sign of its mean",
    },
    "02/margin": {
        "true = logits.gather(1, target[:, None])[:, -1]": _ONE_COLUMN,
    },
    "02/pgd_step": {
        "inside = torch.minimum(clean + epsilon, torch.maximum(moved, clean - epsilon))": _ORDER,
        "inside = torch.minimum(torch.maximum(clean - epsilon, moved), clean + epsilon)": _ORDER,
    },
    "03/gauss_newton": {
        "return pull(bent / len(logits))[-1]": "the tuple has one entry",
    },
    "03/power_iteration": {
        "v = v * v.norm()": _SCALE,
        "v = v": _SCALE,
        "v = v / v.sum()": _SCALE,
        "return matvec(v) @ v": _ORDER,
    },
    "04/correlation": {
        "return np.corrcoef(x[rows], y[rows])[1, 0]": "the matrix is symmetric",
        "return np.corrcoef(y[rows], x[rows])[0, 1]": "the matrix is symmetric",
        "rows = np.isin(step, chosen) & ~np.isnan(x - y)": "a difference with NaN is NaN too",
    },
    "04/ece_bounds": {
        "return (abs(error - doubt), doubt + error)": _SIGN,
    },
    "04/kce": {
        "gap = confidence - correct.to(confidence)": _SIGN,
        "distance = (confidence[None, :] - confidence[:, None]).abs()": _SIGN,
        "return (gap @ (gap @ weights)).sqrt() / len(gap)": _ORDER,
        "return (weights @ gap @ gap).sqrt() / len(gap)": _ORDER,
    },
    "04/signs": {
        "ece = abs(error - doubt)": _SIGN,
        "return [np.sign(np.corrcoef(ece[:n], sharpness[:n])[1, 0]) for n in stops]": (
            "the matrix is symmetric"
        ),
        "return [np.sign(np.corrcoef(sharpness[:n], ece[:n])[0, 1]) for n in stops]": (
            "the matrix is symmetric"
        ),
    },
    "05/gap": {
        "gap = (confidence - right.float()).abs()": _SIGN,
        "on_both = p.gather(1, answer[:, None])[:, -1] + p.gather(1, target[:, None])[:, 0]": (
            _ONE_COLUMN
        ),
        "on_both = p.gather(1, answer[:, None])[:, 0] + p.gather(1, target[:, None])[:, -1]": (
            _ONE_COLUMN
        ),
    },
    "05/ece_lower": {
        "return -float('nan')": "nan has no sign",
    },
    "05/rungs": {
        "together = torch.linalg.eigvals(hessians @ grams).real.amax(dim=1)": (
            "A B and B A have the same eigenvalues"
        ),
    },
    "05/escape": {
        "return -(0.1 * features / (features.norm() * n_classes ** 0.5))": _SHORT,
        "return 0.1 * features": _SHORT,
        "features = torch.ones(2, width)": _SHORT,
        "return 0.1 / features / (features.norm() * n_classes ** 0.5)": _SHORT,
        "return 0.1 * features / (features.norm() + n_classes ** 0.5)": _SHORT,
        "return 0.1 * features / features.norm()": _SHORT,
        "return 0.1 * features / n_classes ** 0.5": _SHORT,
        "return 0.2 * features / (features.norm() * n_classes ** 0.5)": _SHORT,
        "return 0.05 * features / (features.norm() * n_classes ** 0.5)": _SHORT,
        "return 0.0 * features / (features.norm() * n_classes ** 0.5)": _SHORT,
        "return 0.1 * features / (features.sum() * n_classes ** 0.5)": _SHORT,
        "return 0.1 * features / (features * n_classes ** 0.5)": _SHORT,
        "return 0.1 * features / (features.norm() * (n_classes * 0.5))": _SHORT,
        "return 0.1 * features / (features.norm() * n_classes)": _SHORT,
        "return 0.1 * features / (features.norm() * 0.5)": _SHORT,
        "return 0.1 * features / (features.norm() * n_classes ** 1.0)": _SHORT,
        "return 0.1 * features / (features.norm() * n_classes ** 0.25)": _SHORT,
        "return 0.1 * features / (features.norm() * n_classes ** 0.0)": _SHORT,
    },
    "06/sam_step": {
        "above = [p + rho * g / length for p, g in zip(parameters, gradients)]": _LENGTHS,
        "above = [p + rho * g / length for p, g in zip(parameters, gradients, strict=False)]": (
            _LENGTHS
        ),
        "return [p - lr * g for p, g in zip(parameters, gradients_of(above))]": _LENGTHS,
        "return [p - lr * g for p, g in zip(parameters, gradients_of(above), strict=False)]": (
            _LENGTHS
        ),
    },
    "07/robust_term": {
        "point = point.requires_grad_()": "the derivative of a sign is 0, so the walk is constant",
        "log_q = model(point).log_softmax(1)": (
            "the derivative of a sign is 0, so the walk is constant"
        ),
    },
    "07/smooth_term": {
        "inputs = inputs.detach().requires_grad_()": "the caller's inputs need no gradient",
        "inputs = inputs.requires_grad_()": "the numbers of the caller's inputs stay as they are",
        "true = logits.gather(1, target[:, None])[:, -1]": _ONE_COLUMN,
        "gradient, = torch.autograd.grad((rival - true).sum(), inputs, create_graph=True)": _SIGN,
    },
    "07/validated_choice": {
        "chosen = validation_loss.sum(dim=1).argmin()": "a sum and a mean have the same least row",
    },
    "08/mse_repair": {
        "ece = abs(accuracy - confidence)": _SIGN,
    },
    "09/verdict": {
        "return -0": "0 has no sign",
        "return 1 if difference >= 0 else -1": "a difference of exactly 0 is a tie already",
        "half = 1.96 * (resampled[:, 1] - resampled[:, 0]).std()": (
            "a standard deviation does not see the sign"
        ),
    },
}

"""Right answers in three other styles for every exercise: NumPy, loops, other calls of torch.

Written as learners write them, not as the references are: what a check accepts is what is true.
Long, for there are 34 exercises.
"""

import math
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# --- Lesson 00 -----------------------------------------------------------------------------------


def over_confidence_numpy(confidence, correct):
    return np.average(confidence.numpy() - correct.numpy())


def over_confidence_loop(confidence, correct):
    total = 0.0
    for c, y in zip(confidence, correct, strict=True):
        total += c.item() - (1 if y else 0)
    return total / len(confidence)


def over_confidence_torch(confidence, correct):
    return torch.mean(confidence) - torch.count_nonzero(correct) / correct.numel()


# --- Lesson 01 -----------------------------------------------------------------------------------


def bins_numpy(confidence, correct, n_bins):
    c, y = confidence.numpy(), correct.numpy()
    place = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1].astype(np.float32), c)
    count = np.bincount(place, minlength=n_bins)
    sums = [np.bincount(place, weights, n_bins) for weights in (c, y)]
    return count, *(np.divide(s, count, out=np.zeros(n_bins), where=count > 0) for s in sums)


def bins_loop(confidence, correct, n_bins):
    members = [[] for _ in range(n_bins)]
    for c, y in zip(confidence.tolist(), correct.tolist(), strict=True):
        members[max(math.ceil(c * n_bins - 1e-6) - 1, 0)].append((c, y))
    return (
        [len(bin) for bin in members],
        [fmean(c for c, _ in bin) if bin else 0 for bin in members],
        [fmean(y for _, y in bin) if bin else 0 for bin in members],
    )


def bins_torch(confidence, correct, n_bins):
    edges = torch.linspace(0, 1, n_bins + 1)
    inside = (confidence > edges[:-1, None]) & (confidence <= edges[1:, None])
    inside[0] |= confidence == 0
    weights = inside.float()
    count = weights.sum(1)
    means = [torch.nan_to_num(weights @ x / count) for x in (confidence, correct.float())]
    return torch.stack([count, *means])


def ece_numpy(logits, target, n_bins):
    z = logits.numpy().astype(float)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    c, right = p.max(1), p.argmax(1) == target.numpy()
    place = np.digitize(c.astype(np.float32), np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    return sum(abs((c - right)[place == b].sum()) for b in range(n_bins)) / len(c)


def ece_loop(logits, target, n_bins):
    bins = {}
    for row, y in zip(logits.softmax(1), target, strict=True):
        c = row.max().item()
        place = math.ceil(c * n_bins - 1e-6)
        bins.setdefault(place, []).append(c - float(row.argmax() == y))
    return sum(abs(sum(gaps)) for gaps in bins.values()) / len(target)


def ece_torch(logits, target, n_bins):
    top, prediction = torch.topk(logits, 1)
    c = torch.exp(top - logits.logsumexp(1, keepdim=True)).squeeze(1)
    place = (c * n_bins - 1e-6).ceil().long().clamp(1, n_bins) - 1
    gaps = (c - prediction.squeeze(1).eq(target).float()) / len(target)
    return torch.zeros(n_bins).index_add(0, place, gaps).norm(p=1)


def useless_numpy(target, n_classes):
    share = np.bincount(target.numpy(), minlength=n_classes) / len(target)
    return np.tile(np.log(np.maximum(share, 1e-10)), (len(target), 1))


def useless_loop(target, n_classes):
    labels = target.tolist()
    row = [math.log((labels.count(k) + 1e-9) / len(labels)) for k in range(n_classes)]
    return [list(row) for _ in labels]


def useless_torch(target, n_classes):
    """Another forecaster: a class more frequent than 1/K, and no other one preferred."""
    share = F.one_hot(target, n_classes).float().mean(0)
    chosen = torch.nonzero(share > 1 / n_classes)[0, 0]
    p = ((1 - share[chosen]) / (n_classes - 1)).expand(n_classes).clone()
    p[chosen] = share[chosen]
    return p.log().expand(len(target), -1)


def temperature_numpy(logits, target):
    z, y = logits.numpy().astype(float), target.numpy()
    best, span = 0.0, 5.0
    for _ in range(12):  # a finer and finer grid in log T
        grid = best + np.linspace(-span, span, 41)
        scaled = z / np.exp(grid)[:, None, None]
        loss = np.logaddexp.reduce(scaled, 2) - scaled[:, np.arange(len(y)), y]
        best, span = grid[loss.mean(1).argmin()], span / 8
    return math.exp(best)


def temperature_loop(logits, target):
    def loss(t):
        return F.cross_entropy(logits.double() / t, target).item()

    t, step = 1.0, 2.0
    while step > 1.0001:
        if loss(t * step) < loss(t):
            t *= step
        elif loss(t / step) < loss(t):
            t /= step
        else:
            step = math.sqrt(step)
    return t


def temperature_torch(logits, target):
    b = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)  # log 1/T
    optimizer = torch.optim.Adam([b], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(logits.double() * b.exp(), target).backward()
        optimizer.step()
    return (-b).exp().detach()


# --- Lesson 02 -----------------------------------------------------------------------------------


def margin_numpy(logits, target):
    z, rows = logits.numpy().copy(), np.arange(len(logits))
    true = z[rows, target.numpy()].copy()
    z[rows, target.numpy()] = -np.inf
    return true - z.max(1)


def margin_loop(logits, target):
    return [
        z[y] - max(z[k] for k in range(len(z)) if k != y)
        for z, y in zip(logits, target, strict=True)
    ]


def margin_torch(logits, target):
    top, classes = logits.topk(2)
    rival = torch.where(classes[:, 0] == target, top[:, 1], top[:, 0])
    return torch.take_along_dim(logits, target[:, None], 1).squeeze(1) - rival


def band_numpy(margin, n_classes):
    s = np.exp(-margin.numpy().astype(float))
    return [x / (1 + x) for x in (s, (n_classes - 1) * s)]


def band_loop(margin, n_classes):
    sides = [[1 / (1 + math.exp(m) / rivals) for m in margin] for rivals in (1, n_classes - 1)]
    return sides[0], sides[1]


def band_torch(margin, n_classes):
    return torch.sigmoid(torch.tensor([[1.0], [n_classes - 1.0]]).log() - margin)


def log_q_numpy(margin):
    m = margin.numpy().astype(float)
    return np.log(np.mean(np.exp(m.min() - m))) - m.min()


def log_q_loop(margin):
    low = min(margin.tolist())
    return math.log(sum(math.exp(low - m) for m in margin.tolist()) / len(margin)) - low


def log_q_torch(margin):
    return torch.logsumexp(-margin - math.log(margin.numel()), 0)


def pgd_step_numpy(point, gradient, clean, step_size, epsilon):
    point, gradient, clean = point.numpy(), gradient.numpy(), clean.numpy()
    change = np.clip(point - step_size * np.sign(gradient) - clean, -epsilon, epsilon)
    return np.clip(clean + change, 0, 1)


def pgd_step_loop(point, gradient, clean, step_size, epsilon):
    result = torch.empty_like(point)
    flat = zip(point.flatten(), gradient.flatten(), clean.flatten(), strict=True)
    for i, (x, g, centre) in enumerate(flat):
        x = x - step_size if g > 0 else x + step_size if g < 0 else x
        x = min(max(x, centre - epsilon), centre + epsilon)
        result.view(-1)[i] = min(max(x, 0.0), 1.0)
    return result


def pgd_step_torch(point, gradient, clean, step_size, epsilon):
    lowest, highest = (clean - epsilon).clamp_min(0), (clean + epsilon).clamp_max(1)
    return torch.clamp(torch.add(point, gradient.sgn(), alpha=-step_size), lowest, highest)


# --- Lesson 03 -----------------------------------------------------------------------------------


def logit_hessian_numpy(logits, v):
    z, v = logits.numpy(), v.numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p * np.einsum("nj,nkj->nk", p, v[:, :, None] - v[:, None, :])


def logit_hessian_loop(logits, v):
    rows = []
    for z, u in zip(logits, v, strict=True):
        p = z.softmax(0)
        u = u - u[p.argmax()]
        rows.append(p * u - p * (p @ u))
    return rows


def logit_hessian_torch(logits, v):
    p = F.softmax(logits, dim=-1)
    place = F.one_hot(p.argmax(-1), p.shape[-1]).to(p)
    shifted = v - (v * place).sum(-1, keepdim=True)
    return torch.addcmul(p * shifted, p, (p * shifted).sum(-1, keepdim=True), value=-1)


def _curvature(logits):
    p = logits.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def gauss_newton_numpy(logits_of, theta, v):
    jacobian = torch.func.jacfwd(logits_of)(theta).numpy()
    curvature = _curvature(logits_of(theta)).numpy()
    return np.einsum("nkd,nkl,nle,e->d", jacobian, curvature, jacobian, v.numpy()) / len(jacobian)


def gauss_newton_loop(logits_of, theta, v):
    total, images = torch.zeros_like(theta), len(logits_of(theta))
    for i in range(images):
        logits, change = torch.func.jvp(lambda t, i=i: logits_of(t)[i], (theta,), (v,))
        bent = _curvature(logits[None])[0] @ change
        _, pull = torch.func.vjp(lambda t, i=i: logits_of(t)[i], theta)
        total += pull(bent)[0]
    return total / images


def gauss_newton_torch(logits_of, theta, v):
    """The Hessian of the loss of the linearised network."""
    theta0 = theta.clone()

    def loss(t):
        logits, change = torch.func.jvp(logits_of, (theta0,), (t - theta0,))
        return torch.logsumexp(logits + change, 1).mean()

    return torch.func.jvp(torch.func.grad(loss), (theta0,), (v,))[1]


def power_iteration_numpy(matvec, v, n_iterations):
    x = v.numpy() / np.linalg.norm(v.numpy())
    for _ in range(n_iterations):
        y = matvec(torch.from_numpy(x)).numpy()
        x = y / np.linalg.norm(y)
    return np.dot(x, matvec(torch.from_numpy(x)).numpy())


def power_iteration_loop(matvec, v, n_iterations):
    estimate, done = None, 0
    while done < n_iterations:
        v = v / math.sqrt(sum(x * x for x in v.tolist()))
        product = matvec(v)
        estimate = sum(a * b for a, b in zip(v.tolist(), product.tolist(), strict=True))
        v, done = product, done + 1
    return estimate


def power_iteration_torch(matvec, v, n_iterations):
    for _ in range(n_iterations):
        v = F.normalize(matvec(v), dim=0)
    return torch.inner(v, matvec(v)) / torch.inner(v, v)


def stable_rate_numpy(eigenvalues):
    return 2 / np.max(eigenvalues.numpy())


def stable_rate_loop(eigenvalues):
    return min(2 / e.item() for e in eigenvalues)


def stable_rate_torch(eigenvalues):
    return 2 * torch.reciprocal(eigenvalues.sort(descending=True).values[0])


# --- Lesson 04 -----------------------------------------------------------------------------------


def correlation_numpy(step, x, y, chosen):
    use = np.isin(step, chosen) & np.isfinite(x) & np.isfinite(y)
    x, y = x[use] - x[use].mean(), y[use] - y[use].mean()
    return (x @ y) / np.sqrt((x @ x) * (y @ y))


def correlation_loop(step, x, y, chosen):
    pairs = [
        (a, b)
        for s, a, b in zip(step, x, y, strict=True)
        if s in chosen and not math.isnan(a) and not math.isnan(b)
    ]
    a, b = fmean(p[0] for p in pairs), fmean(p[1] for p in pairs)
    top = sum((p - a) * (q - b) for p, q in pairs)
    return top / math.sqrt(
        sum((p - a) ** 2 for p, _ in pairs) * sum((q - b) ** 2 for _, q in pairs)
    )


def correlation_torch(step, x, y, chosen):
    both = torch.tensor(np.stack([x, y]))[:, torch.tensor(np.isin(step, chosen))]
    return torch.corrcoef(both[:, both.isfinite().all(0)])[0, 1]


def ece_bounds_numpy(confidence, accuracy):
    u, err = 1 - confidence.numpy(), 1 - accuracy.numpy()
    return np.abs(u - err), u + err


def ece_bounds_loop(confidence, accuracy):
    pairs = list(zip(confidence.tolist(), accuracy.tolist(), strict=True))
    return [abs(c - a) for c, a in pairs], [2 - c - a for c, a in pairs]


def ece_bounds_torch(confidence, accuracy):
    u, err = confidence.neg().add(1), accuracy.neg().add(1)
    return torch.stack([torch.sub(u, err).abs(), torch.add(u, err)])


def signs_moments(doubt, error, sharpness, stops):
    found = []
    for n in stops:
        ece, sharp = np.abs(doubt[:n] - error[:n]), sharpness[:n]
        found.append(1 if np.mean(ece * sharp) > np.mean(ece) * np.mean(sharp) else -1)
    return found


def signs_loop(doubt, error, sharpness, stops):
    found = []
    for n in stops:
        ece = [max(u - e, e - u) for u, e in zip(doubt[:n], error[:n], strict=True)]
        mean = sum(ece) / n
        total = sum((x - mean) * s for x, s in zip(ece, sharpness[:n], strict=True))
        found.append(math.copysign(1.0, total))
    return np.array(found)


def signs_torch(doubt, error, sharpness, stops):
    both = torch.stack([torch.as_tensor(doubt - error).abs(), torch.as_tensor(sharpness)])
    return tuple(torch.corrcoef(both[:, :n])[0, 1].sign() for n in stops)


def kce_numpy(confidence, correct, bandwidth):
    c = confidence.numpy().astype(float)
    r = correct.numpy() - c
    return np.sqrt(np.mean(np.outer(r, r) * np.exp(-np.abs(np.subtract.outer(c, c)) / bandwidth)))


def kce_loop(confidence, correct, bandwidth):
    total = 0.0
    for c, y in zip(confidence, correct, strict=True):
        weights = torch.exp(-(confidence - c).abs() / bandwidth)
        total += ((float(y) - c) * (weights * (correct.float() - confidence)).sum()).item()
    return total**0.5 / len(confidence)


def kce_torch(confidence, correct, bandwidth):
    points = confidence.double()[:, None]
    r = correct.double() - confidence.double()
    kernel = torch.exp(-torch.cdist(points, points, p=1) / bandwidth)
    return torch.einsum("i,ij,j->", r, kernel, r).sqrt() / len(r)


# --- Lesson 05 -----------------------------------------------------------------------------------


def gap_numpy(logits, target):
    p = logits.softmax(1).numpy()
    rows, answer = np.arange(len(p)), p.argmax(1)
    right = answer == target.numpy()
    c, true = p[rows, answer], p[rows, target.numpy()]
    return np.where(right, 1 - c, c), np.where(right, 0.0, 1 - c - true)


def gap_loop(logits, target):
    gaps, rests = [], []
    for row, y in zip(logits.softmax(1).tolist(), target.tolist(), strict=True):
        answer = row.index(max(row))
        gaps.append(1 - row[y] if answer == y else row[answer])
        rests.append(
            sum(q for k, q in enumerate(row) if k not in (y, answer)) if answer != y else 0
        )
    return gaps, rests


def gap_torch(logits, target):
    p = torch.softmax(logits, -1)
    gap = ((logits.argmax(-1) == target).to(p) - p.amax(-1)).abs()
    return gap, 1 - p[torch.arange(len(p)), target] - gap


def ece_lower_numpy(margin):
    m = margin.numpy()
    return np.exp(-m).mean() / (1 + np.exp(-m.min())) if m.min() > 0 else np.nan


def ece_lower_loop(margin):
    m = sorted(margin.tolist())
    if not all(x > 0 for x in m):
        return math.nan
    return sum(math.exp(-x) for x in m) / len(m) / (1 + math.exp(-m[0]))


def ece_lower_torch(margin):
    bound = torch.exp(-margin).mean() * torch.sigmoid(margin.amin())
    return torch.where(margin.amin() > 0, bound, torch.nan)


def rungs_numpy(grams, hessians):
    g, h = grams.numpy(), hessians.numpy()
    size, bend = np.linalg.norm(g, 2, (1, 2)), np.linalg.norm(h, 2, (1, 2))
    together = np.linalg.eigvals(g @ h).real.max(1)
    return together.mean(), (size * bend).mean(), size.max() * bend.mean()


def rungs_loop(grams, hessians):
    tops = []
    for g, h in zip(grams.double(), hessians.double(), strict=True):
        root = torch.linalg.cholesky(g + 1e-12 * torch.eye(len(g)))
        tops.append([torch.linalg.eigvalsh(m)[-1].item() for m in (root.T @ h @ root, g, h)])
    together, size, bend = zip(*tops, strict=True)
    products = [s * b for s, b in zip(size, bend, strict=True)]
    return fmean(together), fmean(products), max(size) * fmean(bend)


def rungs_torch(grams, hessians):
    values, vectors = torch.linalg.eigh(grams)
    root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    together = torch.linalg.matrix_norm(root.mT @ hessians @ root, ord=2)
    bend = torch.linalg.svdvals(hessians)[:, 0]
    return torch.stack(
        [together.mean(), values[:, -1].dot(bend) / len(bend), values.max() * bend.mean()]
    )


def escape_numpy(weight):
    return np.full((1, weight.shape[1]), 0.05 / weight.numel())


def escape_loop(weight):
    return [[0.01 / weight.shape[1]] * weight.shape[1]]


def escape_torch(weight):
    generator = torch.Generator().manual_seed(1)
    return F.normalize(torch.randn(5, weight.shape[1], generator=generator)) / (10 * len(weight))


# --- Lesson 06 -----------------------------------------------------------------------------------


def sam_step_numpy(gradients_of, parameters, lr, rho):
    here = [g.numpy() for g in gradients_of(parameters)]
    length = np.linalg.norm(np.concatenate([g.ravel() for g in here]))
    above = [p + torch.from_numpy(rho * g / length) for p, g in zip(parameters, here, strict=True)]
    there = gradients_of(above)
    return [p.numpy() - lr * g.numpy() for p, g in zip(parameters, there, strict=True)]


def sam_step_loop(gradients_of, parameters, lr, rho):
    gradients = gradients_of(parameters)
    square = 0.0
    for g in gradients:
        square += g.pow(2).sum().item()
    work = [p.clone() for p in parameters]
    for w, g in zip(work, gradients, strict=True):
        w += rho / math.sqrt(square) * g
    updated = []
    for p, g in zip(parameters, gradients_of(work), strict=True):
        updated.append(p - lr * g)
    return updated


def sam_step_torch(gradients_of, parameters, lr, rho):
    here = list(gradients_of(parameters))
    length = nn.utils.get_total_norm(here)
    above = torch._foreach_add(list(parameters), here, alpha=(rho / length).item())
    return torch._foreach_add(list(parameters), list(gradients_of(above)), alpha=-lr)


def orthogonalised_numpy(gradient):
    u, _, vt = np.linalg.svd(gradient.numpy(), full_matrices=False)
    return u @ vt


def orthogonalised_loop(gradient):
    x = gradient.double() / gradient.double().norm()
    for _ in range(40):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


def orthogonalised_torch(gradient):
    g = gradient.double()
    values, vectors = torch.linalg.eigh(g @ g.T if g.shape[0] <= g.shape[1] else g.T @ g)
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    return root @ g if g.shape[0] <= g.shape[1] else g @ root


def bulk_gradient_numpy(gradient, eigenvectors):
    v = eigenvectors.numpy()
    return gradient.numpy() - v.T @ np.linalg.solve(v @ v.T, v @ gradient.numpy())


def bulk_gradient_loop(gradient, eigenvectors):
    for v in eigenvectors:
        gradient = gradient - (v @ gradient) / (v @ v) * v
    return gradient


def bulk_gradient_torch(gradient, eigenvectors):
    basis = torch.linalg.qr(eigenvectors.T).Q
    return gradient - basis.mv(basis.T.mv(gradient))


# --- Lesson 07 -----------------------------------------------------------------------------------


def robust_term_numpy(model, inputs, target, epsilon, step_size, steps):
    """NumPy walks; the two predictions are torch's, for they have to be differentiated."""
    clean = inputs.numpy()
    x = clean.copy()
    for _ in range(steps):
        point = torch.tensor(x, requires_grad=True)
        gradient = torch.autograd.grad(F.cross_entropy(model(point), target), point)[0].numpy()
        x = np.clip(x + np.float32(step_size) * np.sign(gradient), clean - epsilon, clean + epsilon)
        x = np.clip(x, 0, 1).astype(np.float32)
    p, q = model(inputs).softmax(1), model(torch.tensor(x)).softmax(1)
    return (p * (p / q).log()).sum() / len(p)


def robust_term_loop(model, inputs, target, epsilon, step_size, steps):
    total = 0.0
    for image, label in zip(inputs.split(1), target.split(1), strict=True):
        x = image
        for _ in range(steps):
            x = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(model(x), label), x)
            x = torch.clamp(x + step_size * g.sign(), image - epsilon, image + epsilon).clamp(0, 1)
        log_p, log_q = (model(z)[0].log_softmax(0) for z in (image, x.detach()))
        total = total + sum(a.exp() * (a - b) for a, b in zip(log_p, log_q, strict=True))
    return total / len(inputs)


def robust_term_torch(model, inputs, target, epsilon, step_size, steps):
    lowest, highest = (inputs - epsilon).clamp(min=0), (inputs + epsilon).clamp(max=1)
    loss = nn.CrossEntropyLoss(reduction="sum")
    ascent = torch.func.grad(lambda x: loss(model(x), target))
    x = inputs
    for _ in range(steps):
        x = torch.clamp(x + step_size * ascent(x).sign(), lowest, highest)
    divergence = nn.KLDivLoss(reduction="batchmean", log_target=True)
    return divergence(model(x.detach()).log_softmax(-1), model(inputs).log_softmax(-1))


def _margins(logits, target):
    others = logits.masked_fill(F.one_hot(target, logits.shape[1]).bool(), -math.inf)
    return logits[torch.arange(len(target)), target] - others.amax(1)


def smooth_term_numpy(model, inputs, target):
    """NumPy finds the rivals; the gradient is torch's, for it has to be differentiated."""
    logits = model(inputs).detach().numpy().copy()
    rows = np.arange(len(logits))
    logits[rows, target.numpy()] = -np.inf
    rival = torch.tensor(logits.argmax(1))
    x = inputs.clone().requires_grad_()
    out = model(x)
    lead = out[rows, target] - out[rows, rival]
    return torch.autograd.grad(lead.sum(), x, create_graph=True)[0].pow(2).sum() / len(rows)


def smooth_term_loop(model, inputs, target):
    total = 0.0
    for image, label in zip(inputs.split(1), target.split(1), strict=True):
        x = image.clone().requires_grad_()
        (g,) = torch.autograd.grad(_margins(model(x), label), x, create_graph=True)
        total = total + (g * g).sum()
    return total / len(inputs)


def smooth_term_torch(model, inputs, target):
    def margin(image, label):
        logits = model(image[None])[0]
        rivals = logits.scatter(0, label[None], -math.inf)
        return logits.gather(0, label[None])[0] - rivals.amax()

    slopes = torch.func.vmap(torch.func.grad(margin))(inputs, target)
    return torch.linalg.vector_norm(slopes.flatten(1), dim=1).pow(2).mean()


def validated_choice_numpy(weights, train_ece, validation_loss, validation_ece, test_ece):
    best = np.argmin(np.mean(validation_loss.numpy(), axis=1))
    return weights.numpy()[best], np.mean(test_ece.numpy()[best])


def validated_choice_loop(weights, train_ece, validation_loss, validation_ece, test_ece):
    best, lowest = None, math.inf
    for i, losses in enumerate(validation_loss.tolist()):
        if fmean(losses) < lowest:
            best, lowest = i, fmean(losses)
    return weights[best].item(), fmean(test_ece[best].tolist())


def validated_choice_torch(weights, train_ece, validation_loss, validation_ece, test_ece):
    order = torch.einsum("ws->w", validation_loss).argsort()
    return torch.stack([weights[order[0]], test_ece[order[0]].mean()])


# --- Lesson 08 -----------------------------------------------------------------------------------


def mse_repair_numpy(n_classes, accuracy):
    row = np.eye(n_classes)[0]
    c = (np.exp(row) / np.exp(row).sum()).max()
    odds = np.log([accuracy, (1 - accuracy) / (n_classes - 1)])
    return np.array([c, np.abs(c - accuracy), 1 / (odds[0] - odds[1])])


def mse_repair_loop(n_classes, accuracy):
    total = sum(math.exp(1 if k == 0 else 0) for k in range(n_classes))
    c = math.exp(1) / total
    low, high = 1e-4, 1e4  # confidence falls with the temperature
    while high / low > 1 + 1e-9:
        t = math.sqrt(low * high)
        if 1 / (1 + (n_classes - 1) * math.exp(-1 / t)) > accuracy:
            low = t
        else:
            high = t
    return [c, c - accuracy if c > accuracy else accuracy - c, low]


def mse_repair_torch(n_classes, accuracy):
    c = F.one_hot(torch.tensor(0), n_classes).double().softmax(0)[0]
    a = torch.tensor(accuracy, dtype=torch.float64)
    return c, (a - c).abs(), 1 / (torch.logit(a) + math.log(n_classes - 1))


def clean_over_confidence_numpy(confidence, agreement, rate, n_classes):
    at_0, at_1 = rate / (n_classes - 1), 1 - rate
    accuracy = (np.mean(agreement.numpy()) - at_0) / (at_1 - at_0)
    return np.mean(confidence.numpy()) - accuracy


def clean_over_confidence_loop(confidence, agreement, rate, n_classes):
    agreed = sum(1 for a in agreement if a) / len(agreement)
    low, high = -9.0, 9.0
    for _ in range(100):
        a = (low + high) / 2
        if a * (1 - rate) + (1 - a) * rate / (n_classes - 1) < agreed:
            low = a
        else:
            high = a
    return fmean(confidence.tolist()) - low


def clean_over_confidence_torch(confidence, agreement, rate, n_classes):
    agreed = torch.where(agreement, 1.0, 0.0)
    excess = agreed * (n_classes - 1) - rate
    return torch.mean(confidence - excess / (n_classes - 1 - n_classes * rate))


def shift_gap_numpy(fit, before, before_target, after, after_target):
    fitted, z = fit(before, before_target), after.numpy().astype(float)
    p = np.exp((z - z.max(1, keepdims=True)) / fitted)
    c = p.max(1) / p.sum(1)
    return np.array([
        fitted, np.mean(c - (z.argmax(1) == after_target.numpy())), fit(after, after_target)
    ])  # fmt: skip


def shift_gap_loop(fit, before, before_target, after, after_target):
    fitted, needed = fit(before, before_target), fit(after, after_target)
    gaps = []
    for z, y in zip(after, after_target, strict=True):
        k = int(torch.argmax(z))
        gaps.append(1 / sum(math.exp((v - z[k].item()) / fitted) for v in z.tolist()) - int(k == y))
    return fitted, fmean(gaps), needed


def shift_gap_torch(fit, before, before_target, after, after_target):
    fitted = fit(before, before_target)
    top, answer = torch.max(F.softmax(after / fitted, -1), -1)
    return [fitted, (top - answer.eq(after_target).float()).mean(), fit(after, after_target)]


# --- Lesson 09 -----------------------------------------------------------------------------------


def verdict_numpy(in_noise, difference, resampled):
    reach = 1.96 * np.std(np.diff(resampled.numpy(), axis=1), ddof=1)
    tie = in_noise.numpy().sum() == 2 or -reach <= difference <= reach
    return np.sign(difference) * (not tie)


def verdict_loop(in_noise, difference, resampled):
    if in_noise[0] and in_noise[1]:
        return 0
    gaps = [first - second for first, second in resampled.tolist()]
    variance = sum((gap - fmean(gaps)) ** 2 for gap in gaps) / (len(gaps) - 1)
    reach = 1.96 * math.sqrt(variance)
    if difference - reach > 0:
        return 1
    return -1 if difference + reach < 0 else 0


def verdict_torch(in_noise, difference, resampled):
    covariance = torch.cov(resampled.T)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    differ = torch.tensor(difference).square() > 1.96**2 * variance.clamp(min=1e-12)
    return torch.sign(torch.tensor(difference)) * (differ & ~torch.all(in_noise))


def hidden_class_numpy(logits, target):
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    said, c = p.argmax(1), p.max(1)
    excess = c - (said == target.numpy())
    z = np.zeros(p.shape[1])
    for k in np.unique(said):
        z[k] = excess[said == k].sum() / np.sqrt((c * (1 - c))[said == k].sum())
    worst = np.abs(z).argmax()
    return worst, excess[said == worst].mean()


def hidden_class_loop(logits, target):
    best = (-1.0, 0, 0.0)
    confidence, said = logits.softmax(-1).max(-1)
    for k in range(logits.shape[1]):
        chosen = [i for i, s in enumerate(said.tolist()) if s == k]
        if not chosen:
            continue
        off = sum(confidence[i].item() - (target[i].item() == k) for i in chosen)
        variance = sum(confidence[i].item() * (1 - confidence[i].item()) for i in chosen)
        best = max(best, (off * off / variance, k, off / len(chosen)))
    return best[1:]


def hidden_class_torch(logits, target):
    p = logits.softmax(dim=-1)
    c, said = p.amax(1), p.argmax(1)
    one_hot = F.one_hot(said, p.shape[1]).to(p.dtype)
    excess = (c - said.eq(target).to(p.dtype)) @ one_hot
    surprise = excess.square() / ((c - c.square()) @ one_hot).clamp(min=1e-9)
    worst = surprise.argmax()
    return worst, excess[worst] / one_hot.sum(0)[worst]


def split_numpy(trained_on, group):
    g = group.numpy()
    clean = ~np.isin(g, np.unique(g[trained_on.numpy()]))
    return np.logical_and(clean, g % 2 == 0), np.logical_and(clean, g % 2 == 1)


def split_loop(trained_on, group):
    seen = {g for g, t in zip(group.tolist(), trained_on.tolist(), strict=True) if t}
    fit = [g not in seen and g % 2 == 0 for g in group.tolist()]
    report = [g not in seen and g % 2 == 1 for g in group.tolist()]
    return fit, report


def split_torch(trained_on, group):
    same = group[:, None] == group
    clean = torch.logical_not((same & trained_on).any(dim=1))
    odd = torch.remainder(group, 2).bool()
    return clean.logical_and(~odd), clean.logical_and(odd)


def missing_numpy():
    found = np.zeros(10, dtype=int)
    for code, sentences in enumerate([(2, 7), (5, 8), (3, 9), (6, 10)], 1):
        found[np.array(sentences) - 1] = code
    return found


def missing_loop():
    needs = {2: 1, 3: 3, 5: 2, 6: 4, 7: 1, 8: 2, 9: 3, 10: 4}
    return [needs.get(sentence, 0) for sentence in range(1, 11)]


def missing_torch():
    return torch.tensor([0, 1, 3, 0, 2, 4, 1, 2, 3, 4])


RIGHT = {
    "00/over_confidence": (over_confidence_numpy, over_confidence_loop, over_confidence_torch),
    "01/bins": (bins_numpy, bins_loop, bins_torch),
    "01/ece": (ece_numpy, ece_loop, ece_torch),
    "01/useless": (useless_numpy, useless_loop, useless_torch),
    "01/temperature": (temperature_numpy, temperature_loop, temperature_torch),
    "02/margin": (margin_numpy, margin_loop, margin_torch),
    "02/band": (band_numpy, band_loop, band_torch),
    "02/log_q": (log_q_numpy, log_q_loop, log_q_torch),
    "02/pgd_step": (pgd_step_numpy, pgd_step_loop, pgd_step_torch),
    "03/logit_hessian": (logit_hessian_numpy, logit_hessian_loop, logit_hessian_torch),
    "03/gauss_newton": (gauss_newton_numpy, gauss_newton_loop, gauss_newton_torch),
    "03/power_iteration": (power_iteration_numpy, power_iteration_loop, power_iteration_torch),
    "03/stable_rate": (stable_rate_numpy, stable_rate_loop, stable_rate_torch),
    "04/correlation": (correlation_numpy, correlation_loop, correlation_torch),
    "04/ece_bounds": (ece_bounds_numpy, ece_bounds_loop, ece_bounds_torch),
    "04/signs": (signs_moments, signs_loop, signs_torch),
    "04/kce": (kce_numpy, kce_loop, kce_torch),
    "05/gap": (gap_numpy, gap_loop, gap_torch),
    "05/ece_lower": (ece_lower_numpy, ece_lower_loop, ece_lower_torch),
    "05/rungs": (rungs_numpy, rungs_loop, rungs_torch),
    "05/escape": (escape_numpy, escape_loop, escape_torch),
    "06/sam_step": (sam_step_numpy, sam_step_loop, sam_step_torch),
    "06/orthogonalised": (orthogonalised_numpy, orthogonalised_loop, orthogonalised_torch),
    "06/bulk_gradient": (bulk_gradient_numpy, bulk_gradient_loop, bulk_gradient_torch),
    "07/robust_term": (robust_term_numpy, robust_term_loop, robust_term_torch),
    "07/smooth_term": (smooth_term_numpy, smooth_term_loop, smooth_term_torch),
    "07/validated_choice": (
        validated_choice_numpy,
        validated_choice_loop,
        validated_choice_torch,
    ),
    "08/mse_repair": (mse_repair_numpy, mse_repair_loop, mse_repair_torch),
    "08/clean_over_confidence": (
        clean_over_confidence_numpy,
        clean_over_confidence_loop,
        clean_over_confidence_torch,
    ),
    "08/shift_gap": (shift_gap_numpy, shift_gap_loop, shift_gap_torch),
    "09/verdict": (verdict_numpy, verdict_loop, verdict_torch),
    "09/hidden_class": (hidden_class_numpy, hidden_class_loop, hidden_class_torch),
    "09/split": (split_numpy, split_loop, split_torch),
    "09/missing": (missing_numpy, missing_loop, missing_torch),
}

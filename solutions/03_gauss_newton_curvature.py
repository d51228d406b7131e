# %% [markdown]
# # 03 · Gauss–Newton curvature
#
# *How sharply does the loss bend in its steepest direction? The matrix that knows has forty billion
# entries. You will find its largest eigenvalue with a handful of passes through the network, see a
# textbook formula lose every digit, and watch gradient descent drive itself to the edge of stability.*
#
# {{header: lessons 01 and 02; eigenvalues}}
#
# **You will be able to**
#
# - multiply by the logit Hessian and by the Gauss–Newton matrix without forming either;
# - find a top eigenvalue by power iteration, and say why Lanczos needs fewer products;
# - recognise cancellation in 32-bit arithmetic, and remove it;
# - predict the learning rate at which gradient descent becomes unstable.

# %%
# {{bootstrap}}

# %%
import dataclasses
import warnings

import numpy as np
import torch

import calibcourse as cc
from calibcourse import curvature, plots, widgets
from calibcourse.exercises import claim
from calibcourse.exercises import lesson_03 as ex
from calibcourse.reproduce import learning_rate_grid, load_recorded

device = cc.default_device()
data = cc.load_dataset("fashion_mnist_small").to(device)
data = dataclasses.replace(data, train=data.train.head(1000))
inputs, target = data.train.inputs, data.train.target

# %% [markdown]
# ## 1 · Two matrices that bend
#
# The loss $L(\theta)$ is an average over images of cross-entropy in the logits, and the logits
# depend on the parameters. Differentiate twice and the chain rule leaves two terms:
#
# $$\nabla^2 L = \underbrace{\tfrac1n\textstyle\sum_i J_i^\top H_i J_i}_{G\text{, Gauss–Newton}}
# \;+\; \tfrac1n\sum_i\sum_k (p_i - e_{y_i})_k\, \nabla^2 z_k(x_i) .$$
#
# $J_i = \partial z(x_i)/\partial\theta$ is the Jacobian of the logits, and
# $H_i = \mathrm{diag}(p_i) - p_i p_i^\top$ the Hessian of cross-entropy *in the logits*. The second
# term carries the residuals $p - e_y$, which vanish as the network fits its data.
#
# **Predict.** $G$ is a sum of terms $J^\top H J$ with $H$ positive semidefinite. Can it have negative
# eigenvalues? Can the Hessian?

# %%
ex.predicted_negative.ask()

# %% [markdown]
# On a network small enough, both can be written out: pictures shrunk to 7 × 7, one hidden layer of 8
# units, 490 parameters.

# %%
small = torch.nn.functional.avg_pool2d(inputs, 4).double()
tiny = cc.mlp(input_shape=(1, 7, 7), hidden=(8,), seed=0).to(device).double()
optimizer = torch.optim.Adam(tiny.parameters(), lr=1e-2)
for _ in range(300):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(tiny(small), target).backward()
    optimizer.step()

gauss_newton = curvature.GaussNewton(tiny, small)
hessian = curvature.Hessian(tiny, small, target)
spectra = {
    "Gauss–Newton": torch.linalg.eigvalsh(gauss_newton.to_dense()),
    "Hessian": torch.linalg.eigvalsh(hessian.to_dense()),
}

# %%
fig, (ax,) = plots.figure(1, width=6.4)
plots.spectrum(spectra, ax=ax)
ax.set_title("The top eigenvalues agree; only the Hessian has negative ones")
plots.show(
    fig,
    alt="Eigenvalues of the Gauss-Newton matrix and of the Hessian, sorted. The largest nearly "
    "coincide; the Hessian drops below zero at the end, the Gauss-Newton matrix does not.",
)

# %%
top = {name: values[-1].item() for name, values in spectra.items()}
claim("the Gauss-Newton matrix has no negative eigenvalue, beyond rounding",
      spectra["Gauss–Newton"][0] > -1e-10)  # fmt: skip
negative = (spectra["Hessian"] < -1e-6).sum()
claim("the Hessian has: more than 40 of its 490 are below -0.000001", negative > 40, n=negative)
claim("their largest eigenvalues differ by less than a quarter",
      abs(top["Hessian"] - top["Gauss–Newton"]) < 0.25 * top["Hessian"], **top)  # fmt: skip
below_zero = spectra["Gauss–Newton"][0] < -1e-6
ex.predicted_negative.compare(
    ("both" if below_zero else "only the Hessian") if negative
    else ("only G" if below_zero else "neither has any")
)  # fmt: skip

# %% [markdown]
# $v^\top J^\top H J v = (Jv)^\top H\,(Jv) \ge 0$: $G$ cannot **[here]**. From here on, **sharpness** means
# $\lambda_{\max}(G)$: it needs no labels, is never negative, and is tied to the margins through $H$.
#
# ## 2 · The logit Hessian, and how not to compute it
#
# $H = \mathrm{diag}(p) - pp^\top$ is only 10 × 10, but even that need not be formed:
# $Hv = p \circ v - p\,(p^\top v)$.
#
# ### Exercise 1: H·v
#
# *Difficulty 3 of 5 · importance 5 of 5 · about 15 minutes.*


# %%
def my_logit_hessian_product(logits, v):
    """logits (N, K), v (N, K) -> (N, K): the logit Hessian of each sample times its row of v."""
    ### BEGIN SOLUTION
    # {{solution: 03/logit_hessian}}
    ### END SOLUTION


ex.logit_hessian.check(my_logit_hessian_product)
my_logit_hessian_product = ex.logit_hessian.mine(my_logit_hessian_product)

# %% [markdown]
# The formula is right, and in 32 bits it is useless just where we need it. When the network is sure,
# $p$ is nearly one-hot: both terms are nearly equal at the top class and their difference is all
# rounding error. The cure costs one subtraction. $H\mathbf 1 = 0$, so shifting $v$ by its entry at
# the top class changes nothing exactly, and leaves nothing to cancel.
#
# **Predict.** At a margin of 15 logits the network is $1 - 3\cdot10^{-7}$ sure. How large is the
# relative error of the plain formula?

# %%
ex.predicted_rounding.ask()

# %%
margins = torch.arange(0, 41, 2.5)
generator = torch.Generator().manual_seed(0)
noise = torch.randn(200, 10, generator=generator)
vectors = torch.randn(200, 10, generator=generator)


def relative_error(product, margin):
    """Median error of a product in float32 against the shifted form in float64."""
    logits = noise.clone()
    logits[:, 0] = noise[:, 1:].max(dim=1).values + margin
    exact = curvature.logit_hessian_product(logits.double(), vectors.double())
    error = (product(logits, vectors).double() - exact).norm(dim=1) / exact.norm(dim=1)
    return error.median().item()


def plain(logits, v):
    p = torch.softmax(logits, dim=1)
    return p * v - p * (p * v).sum(dim=1, keepdim=True)


def mine(logits, v):
    return torch.as_tensor(my_logit_hessian_product(logits, v))


errors = {
    "plain": [relative_error(plain, m) for m in margins],
    "yours": [relative_error(mine, m) for m in margins],
}

# %%
fig, (ax,) = plots.figure(1, width=6.4)
plots.float32_error(margins, errors, ax=ax)
ex.predicted_rounding.mark(ax, along="y")
ax.set_title("One subtraction keeps six digits at every margin")
plots.show(
    fig,
    alt="Relative error of the product with the logit Hessian in 32-bit floats against the margin, "
    "logarithmic. The plain formula loses all digits by margin 17; yours, shifted, keeps six.",
)

# %%
claim("the plain formula is off by more than 10 % at every margin above 17",
      all(e > 0.1 for m, e in zip(margins, errors["plain"], strict=True) if m > 17))  # fmt: skip
claim("at a margin of 15 by 1 % to 10 %", 0.01 < errors["plain"][6] < 0.1, error=errors["plain"][6])
claim("yours is good to three digits everywhere", max(errors["yours"]) < 1e-3)
ex.predicted_rounding.compare(errors["plain"][6])

# %% [markdown]
# ## 3 · A product without a matrix
#
# For the course's network, $d = 199\,210$ parameters: $G$ would fill 160 GB. But
# $Gv = \frac1n\sum_i J_i^\top(H_i(J_i v))$ needs only three moves: how the logits change along $v$
# (a Jacobian–vector product), the little Hessian, and back (a vector–Jacobian product).
#
# ### Exercise 2: a Gauss–Newton product
#
# *Difficulty 4 of 5 · importance 5 of 5 · about 20 minutes.*


# %%
def my_gauss_newton_product(logits_of, theta, v):
    """logits_of: theta (d,) -> logits (N, K); theta, v (d,) -> G v (d,) for mean cross-entropy.

    torch.func.jvp(f, (x,), (v,)) returns f(x), J v; torch.func.vjp(f, x) returns f(x), pull,
    where pull(u) is the tuple (Jᵀ u,).
    """
    ### BEGIN SOLUTION
    # {{solution: 03/gauss_newton}}
    ### END SOLUTION


ex.gauss_newton.check(my_gauss_newton_product)
my_gauss_newton_product = ex.gauss_newton.mine(my_gauss_newton_product)

# %%
parameters = dict(tiny.named_parameters())
theta = torch.cat([p.detach().flatten() for p in parameters.values()])


def logits_of(theta):
    pieces = theta.split([p.numel() for p in parameters.values()])
    shaped = [piece.view_as(p) for piece, p in zip(pieces, parameters.values(), strict=True)]
    return torch.func.functional_call(tiny, dict(zip(parameters, shaped, strict=True)), small)


v = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(device)
dense, free = gauss_newton.to_dense() @ v, gauss_newton.matvec(v)
claim("the package's product without a matrix equals the product with it, to ten digits",
      (dense - free).norm() < 1e-10 * dense.norm())  # fmt: skip
claim("yours does on the network of section 1, to three",
      (dense - my_gauss_newton_product(logits_of, theta, v)).norm() < 1e-3 * dense.norm())  # fmt: skip

# %% [markdown]
# ## 4 · The top eigenvalue: power iteration, then Lanczos
#
# Multiply any vector by $G$ again and again, normalise each time: the component along the top
# eigenvector grows fastest and takes over.
#
# ### Exercise 3: power iteration
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 12 minutes.*


# %%
def my_power_iteration(matvec, v, n_iterations):
    """matvec: (d,) -> (d,) symmetric; v (d,) start -> estimate of the top eigenvalue, a scalar."""
    ### BEGIN SOLUTION
    # {{solution: 03/power_iteration}}
    ### END SOLUTION


ex.power_iteration.check(my_power_iteration)
my_power_iteration = ex.power_iteration.mine(my_power_iteration)

# %% [markdown]
# Power iteration forgets: of all the vectors it has seen it keeps the last. **Lanczos** keeps their
# span and takes the best vector in it. Train the real network for a while, then count products until
# the eigenvalue is known to 0.1 %.
#
# **Predict.** By what factor does Lanczos win? And if it starts from the eigenvector found 25 steps of
# training earlier?

# %%
ex.predicted_lanczos.ask()
ex.predicted_warm_start.ask()

# %%
model = cc.mlp(seed=0).to(device)
cc.fit(model, data, optimizer="gd", lr=0.1, steps=150, seed=0)
earlier = curvature.gauss_newton_sharpness(model, inputs)
cc.fit(model, data, optimizer="gd", lr=0.1, steps=25, seed=0)

operator = curvature.GaussNewton(model, inputs)
lanczos = curvature.top_eigenpair(operator, tol=1e-3)


def products(value_after, at_most):
    """How many products it takes until the eigenvalue is right, and stays so, to 0.1 %."""
    wrong = [k for k in range(1, at_most) if abs(value_after(k) / lanczos.value - 1) >= 1e-3]
    return max(wrong, default=0) + 1


def lanczos_after(k, start):
    with warnings.catch_warnings():  # that it was stopped early
        warnings.simplefilter("ignore")
        return curvature.top_eigenpair(operator, v0=start, max_matvecs=k).value


start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(0)).to(device)
cold = products(lambda k: lanczos_after(k, start), 15)
warm = products(lambda k: lanczos_after(k, earlier.vector), 15)

calls = []


def counted(v):
    calls.append(1)
    return operator.matvec(v)


for k in range(1, 30):  # power iteration only climbs: the first right estimate is the answer
    calls.clear()
    if abs(float(my_power_iteration(counted, start, k)) / lanczos.value - 1) < 1e-3:
        break
power = len(calls)

# %%
claim("Lanczos reports a residual below its tolerance", lanczos.converged)
claim("it wins by a factor of 1.5 to 4 over your power iteration from the same start", 1.5 <= power / cold <= 4,
      lanczos=cold, power=power)  # fmt: skip
claim("from the eigenvector of 25 steps before by 2.5 to 10, with six products at most",
      2.5 <= power / warm <= 10 and warm <= min(6, cold - 1), cold=cold, warm=warm)  # fmt: skip
ex.predicted_lanczos.compare(power / cold)
ex.predicted_warm_start.compare(power / warm)

# %% [markdown]
# ## 5 · The edge of stability
#
# Why should anyone who trains networks care about $\lambda_{\max}$? Take the simplest bowl,
# $L(\theta) = \frac\lambda2\theta^2$. A gradient step multiplies $\theta$ by $1-\eta\lambda$.
#
# ### Exercise 4: the largest stable learning rate
#
# *Difficulty 1 of 5 · importance 4 of 5 · about 6 minutes.*
#
# For a quadratic with the given eigenvalues, below which learning rate does gradient descent shrink
# every component?


# %%
def my_stable_learning_rate(eigenvalues):
    """eigenvalues (d,) > 0 of the Hessian of a quadratic -> the largest stable rate, a scalar."""
    ### BEGIN SOLUTION
    # {{solution: 03/stable_rate}}
    ### END SOLUTION


ex.stable_rate.check(my_stable_learning_rate)
my_stable_learning_rate = ex.stable_rate.mine(my_stable_learning_rate)

# %% [markdown]
# A network's loss is no quadratic: its curvature moves. **Predict.** Start gradient descent with
# $\eta = 0.1$ where $\lambda_{\max}\approx 5$, far below $2/\eta = 20$. What will $\lambda_{\max}$ do?

# %%
ex.predicted_climb.ask()

# %%
rate = 0.1
model = cc.mlp(seed=0).to(device)


def two_parts(model, data):
    """The Hessian's top eigenvalue; means over images of ‖J‖² and of the logit Hessian's top one."""
    with torch.no_grad():
        hessians = curvature.logit_hessian(model(inputs).double())
    return {
        "hessian": curvature.top_eigenvalue(curvature.Hessian(model, inputs, target)).value,
        "jacobian": curvature.jacobian_norms(model, inputs).square().mean().item(),
        "logit_hessian": torch.linalg.eigvalsh(hessians)[:, -1].mean().item(),
    }


probes = [cc.LogitProbe(splits=("train",)), cc.SharpnessProbe(), two_parts]
history = cc.fit(
    model, data, optimizer="gd", lr=rate, steps=1500, probes=probes, probe_steps=30, seed=0
)

# %%
# The same run once more, looked at in every step where it first loses its balance.
again = cc.mlp(seed=0).to(device)
bounce = cc.fit(again, data, optimizer="gd", lr=rate, steps=210, probes=probes[:2],
                probe_steps=range(178, 211), seed=0)  # fmt: skip

# %% tags=["drawing"]
steps, sharpness = history.column("step"), history.column("sharpness")
near, swing = bounce.column("step")[1:], bounce.column("sharpness")[1:]
loss = bounce.column("train_loss")[1:]
fig, (left, middle, right) = plots.figure(3, width=3.7)
plots.edge_of_stability(steps, sharpness, rate, ax=left)
left.set_title("Sharpness climbs past 2/η, hovers, falls")
plots.edge_of_stability(near, swing, rate, ax=middle)
middle.set(title="One bounce, step by step: it swings", ylim=(18, None))
plots.trajectory(near, {"loss": loss}, {"loss": plots.TRAIN}, ax=right,
                 ylabel="training loss (nats)")  # fmt: skip
right.set_title("The loss jumps and is caught again")
plots.show(
    fig,
    alt="Left: sharpness against training step climbs from about 5 past the line 2 over the "
    "learning rate, 20, hovers near it for some hundred steps and then falls below. Middle: thirty "
    "steps of it; the sharpness climbs smoothly, then swings from step to step, up and down, and "
    "touches the line. Right: in the same steps the training loss falls, jumps and falls back.",
)

# %%
above = np.flatnonzero(sharpness > 2 / rate)
at_the_edge = slice(above[0], above[-1] + 1)
hessian = history.column("hessian")
claim("the sharpness rises on its own, from far below 2/η to above it",
      sharpness[0] < 1 / rate and len(above) > 0)  # fmt: skip
median = np.median(sharpness[at_the_edge]) * rate / 2
claim("while it is at the edge, its median is up to 60 % above 2/η", 1 < median < 1.6, times=median)
claim("nearly everywhere the Hessian's top eigenvalue is larger still",
      np.mean(hessian > sharpness) > 0.8)  # fmt: skip
claim("from the first such probe to the end, the loss falls to less than a fifth",
      history.column("train_loss")[-1] < history.column("train_loss")[above[0]] / 5)  # fmt: skip
claim("in the bounce the loss jumps by more than a third, and falls back to within a tenth",
      loss.max() > 1.33 * loss[0] and loss[loss.argmax():].min() < 1.1 * loss[:loss.argmax()].min())  # fmt: skip
claim("and takes the sharpness from more than 25 % above 2/η to less than 10 %",
      swing.max() * rate / 2 > 1.25 and swing[swing.argmax():].min() * rate / 2 < 1.1)  # fmt: skip
stable = [
    float(my_stable_learning_rate(torch.tensor([s]))) for s in (sharpness[0], sharpness.max())
]
claim("by your rule η is stable at the start with room for a factor of three, and too large at the peak",
      stable[1] < rate < stable[0] / 3)  # fmt: skip
claim("in the end the sharpness is below half its peak", sharpness[-1] < sharpness.max() / 2)

# %%
survived = history.column("train_loss")[-1] < history.column("train_loss")[0]
ex.predicted_climb.compare(
    ("it rises past 20, then falls" if survived else "it rises past 20, and the loss blows up")
    if len(above)
    else "it rises and stays below 20" if sharpness.max() > 2 * sharpness[0] else "it stays near 5"
)  # fmt: skip

# %% [markdown]
# Gradient descent does not sit where it is comfortably stable. It climbs until steps along the
# steepest direction overshoot, and training then runs *at* that edge (Cohen et al., 2021)
# **[observed]**. Above it a quadratic would blow up. Here the overshooting itself brings the sharpness
# down: as the bounce grows, the cubic term of the loss pushes towards flatter ground, the bounce dies,
# and the climb begins again (self-stabilisation, Damian, Nichani and Lee 2023).
#
# ## 6 · What sharpness is made of
#
# $G$ is a mean of $J_i^\top H_i J_i$: a part that belongs to the network, $J_i$, and a part that
# belongs to the margins, $H_i$. Their sizes can be told apart image by image:
# $\lambda_{\max}(J_i^\top H_i J_i) \le \|J_i\|^2\,\lambda_{\max}(H_i)$, and
# $\lambda_{\max}(H_i) \le 2(1-p_{\max})$ (Lemma B.4 **[paper]**).
#
# **Predict.** Over the run above, which of the two grows, which falls? By what factor does the first
# grow?

# %%
ex.predicted_growth.ask()

# %%
with torch.no_grad():
    logits = model(inputs)
bend = torch.linalg.eigvalsh(curvature.logit_hessian(logits.double()))[:, -1]
race = {
    "mean ‖J‖²": history.column("jacobian") / history.column("jacobian")[0],
    "mean λmax(H)": history.column("logit_hessian") / history.column("logit_hessian")[0],
}

fig, (left, right) = plots.figure(2, width=4.6)
plots.trajectory(steps, race, dict(zip(race, (plots.CURVATURE, plots.MARGIN), strict=True)),
                 ax=left, ylabel="relative to the start", log=True)  # fmt: skip
ex.predicted_growth.mark(left, along="y")
left.set_title("The network's part grows, the margins' falls")
plots.against_margin(cc.true_margin(logits, target), bend, "$\\lambda_{\\max}(H)$", ax=right)
right.set_title("The margins' part: about exp(-m)")
plots.show(
    fig,
    alt="Left: relative to the start and on a logarithmic axis, the mean squared Jacobian norm grows "
    "steeply, then slowly; the mean top eigenvalue of the logit Hessian rises at first and then "
    "falls. Right: that eigenvalue falls exponentially with the margin.",
)
claim("the mean squared Jacobian norm grows more than twentyfold",
      race["mean ‖J‖²"][-1] > 20, times=race["mean ‖J‖²"][-1])  # fmt: skip
ex.predicted_growth.compare(race["mean ‖J‖²"][-1])
claim("meanwhile the mean curvature of the logits falls more than tenfold from its peak",
      race["mean λmax(H)"].max() > 10 * race["mean λmax(H)"][-1],
      times=race["mean λmax(H)"].max() / race["mean λmax(H)"][-1])  # fmt: skip
claim("every logit Hessian obeys Lemma B.4",
      bool((bend <= 2 * (1 - logits.double().softmax(1).amax(1)) * (1 + 1e-9)).all()))  # fmt: skip

# %% [markdown]
# While images are still wrong the Jacobians win and sharpness climbs. Once all are right they hardly
# grow, the margins do, $H$ fades, and the sharpness falls **[observed]**: here calibration enters.
#
# With minibatches the full-batch edge is not where SGD lives. The curvature *each batch sees along
# its own gradient*, the **batch sharpness**, is: the mean over batches of
# $g_B^\top H_B\, g_B / \|g_B\|^2$ (Andreyev and Beneventano, arXiv 2412.20553, who see it hover at
# $2/\eta$). In our recorded SGD runs it mostly stays below:

# %%
over = [
    np.mean(run.history.column("batch_sharpness") > 2 / run.config.lr)
    for run in load_recorded().select(optimizer="sgd").runs
]
claim("in no recorded SGD run is batch sharpness above 2/η at more than half of the probes",
      max(over) < 0.5, most=max(over))  # fmt: skip

# %% [markdown]
# ### Explore
#
# Recorded runs of gradient descent at four learning rates and three seeds. Move the learning rate
# and see the plateau move with $2/\eta$, and the fall begin the earlier the larger the step. (Keyboard:
# Tab to the slider, then the arrow keys.)

# %%
sweep = load_recorded("edge_of_stability")
print("recorded by: calibcourse", sweep.command)
widgets.learning_rate_explorer(sweep)

# %%
plots.show(
    learning_rate_grid(sweep),
    alt="Static copy of the explorer: sharpness against step for four learning rates, three seeds "
    "each. Every run climbs past 2 over its learning rate and later falls below it.",
)

# %% [markdown]
# ## What could be wrong here
#
# - The live run has one seed; the recorded ones show the spread over three. At the largest learning
#   rate the hovering is so wild that "edge" is a generous word.
# - Everything was measured on 1,000 images. On more images $G$ is another matrix.
#
# ## Take away
#
# 1. $G = \frac1n\sum_i J_i^\top H_i J_i$ can be multiplied by without ever being written down; Lanczos
#    with a warm start then needs a handful of products.
# 2. In 32 bits, subtract the top entry first: otherwise the product is noise just where training ends.
# 3. Gradient descent climbs to $\lambda_{\max} = 2/\eta$ and swings above it; curvature is a race
#    between growing Jacobians and fading logit Hessians, which the margins win in the end.
#
# **Further reading.** Cohen et al. 2021, *Gradient descent on neural networks typically occurs at the
# edge of stability* (arXiv 2103.00065). Damian, Nichani, Lee 2023, *Self-stabilization* (arXiv
# 2209.15594). Schraudolph 2002, *Fast curvature matrix–vector products*.
# Martens 2014, *New insights and perspectives on the natural gradient method* (arXiv 1412.1193).
# Morosini et al. 2026, *Too Sharp, Too Sure* (arXiv 2604.20614).
#
# **Next** in the course: *Calibration follows curvature*, both instruments on one run.

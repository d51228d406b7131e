# %% [markdown]
# # 05 · The shared tail bound
#
# *One number made of the margins bounds the calibration error and the curvature. The bound is true,
# and loose by factors of a thousand. You will take it apart inequality by inequality, see where it
# loses what, and replace the worst step by one that holds ECE and curvature between two sides.*
#
# {{header: lessons 02, 03 and 04}}
#
# **You will be able to**
#
# - prove Lemma B.2 in two lines, and compute what it gives away;
# - sharpen a constant from 1/K to one half, and say when the result applies;
# - compute the rungs between $\lambda_{\max}$ and the paper's bound;
# - break a lower bound by dropping one assumption, and explain why test data may go their own way.

# %%
# {{bootstrap}}

# %%
import dataclasses

import numpy as np
import torch

import calibcourse as cc
from calibcourse import curvature, plots, reproduce, widgets
from calibcourse.exercises import claim
from calibcourse.exercises import lesson_05 as ex

device = cc.default_device()
data = cc.load_dataset("fashion_mnist_small").to(device)
data = dataclasses.replace(data, train=data.train.head(1000), test=data.test.head(500))

# %% [markdown]
# First a training run to look at: SGD on 1,000 images, with a probe that computes every bound of this
# lesson on training and on test images.

# %%
model = cc.mlp(seed=0).to(device)
quantities = (cc.calibration_quantities, cc.margin_quantities, cc.bound_quantities)
history = cc.fit(
    model, data, optimizer="sgd", lr=0.1, steps=1800, batch_size=100, seed=0,
    probes=[cc.LogitProbe(*quantities, splits=("train", "test")),
            cc.LadderProbe("train"), cc.LadderProbe("test")],
    probe_steps=sorted({*cc.even_steps(1800, 11), *cc.log_steps(1800, 7)}),
)  # fmt: skip
with torch.no_grad():
    train_logits, test_logits = model(data.train.inputs), model(data.test.inputs)
train_target, test_target = data.train.target, data.test.target

# %% [markdown]
# ## 1 · One image
#
# Calibration compares a confidence $c = p_{\max}$ with an indicator, right or wrong. Per image the
# discrepancy is the **gap** $|\mathbf 1\{\hat y = y\} - c|$.
#
# **Lemma B.2 [paper].** $|\mathbf 1\{\hat y=y\} - c| \le 1 - p_y$.
#
# *Proof.* Right: $c = p_y$, and both sides are equal. Wrong: the gap is $c = p_{\hat y}$, and
# $p_{\hat y} + p_y \le 1$ because they are two classes of one distribution. ∎
#
# **Predict.** What exactly is left over, $1 - p_y$ less the gap?

# %%
ex.predicted_rest.ask()

# %% [markdown]
# ### Exercise 1: B.2 by computing
#
# *Difficulty 2 of 5 · importance 5 of 5 · about 10 minutes.*
#
# Compute the gap, and the rest *as the proof finds it*: zero where right, the mass on neither label
# nor answer where wrong.


# %%
def my_gap_and_rest(logits, target):
    """logits (N, K), target (N,) -> the gap (N,), and what is left of 1 - p_y, (N,)."""
    ### BEGIN SOLUTION
    # {{solution: 05/gap}}
    ### END SOLUTION


ex.gap.check(my_gap_and_rest)
my_gap_and_rest = ex.gap.mine(my_gap_and_rest)

# %% [markdown]
# Two more lemmas speak of one image. You drew the first as a band in lesson 02:
#
# - **B.3 [paper], B.3⁺ [here].** $\sigma(-m) \le 1-p_y \le \sigma(\log(K-1) - m) \le (K-1)e^{-m}$.
# - **B.4 [paper].** $\lambda_{\max}(H) \le 2(1-p_{\max})$. *Proof.* Gershgorin: row $k$ of
#   $\mathrm{diag}(p) - pp^\top$ has diagonal $p_k(1-p_k)$ and the same sum beside it, so
#   $\lambda_{\max} \le 2\max_k p_k(1-p_k)$, which is at most $2(1-p_{\max})$. ∎
#   Stopping before the last step is **B.4⁺ [here]**; from below, the top class's unit vector gives
#   $p_{\max}(1-p_{\max})$.

# %%
gaps = cc.confidence_gap_bounds(test_logits, test_target)
tail = cc.softmax_tail_bounds(test_logits, test_target)
bend = cc.logit_hessian_bounds(test_logits)
margin = cc.true_margin(test_logits, test_target)
correct = margin > 0

# %%
fig, (ax,) = plots.figure(1, width=6.4, height=3.6)
plots.tail_band(margin, tail, ax=ax)
ax.set_title("B.3 on real images: flat where wrong, falling as exp(-m) where right")
plots.show(
    fig,
    alt="Error probability of test images against their margin inside the band of B.3+, which is flat "
    "near one for negative margins and falls exponentially for positive ones. The paper's dashed "
    "upper line keeps rising far above one on the left.",
)

# %%
claim(
    "every test image obeys B.2, B.3, B.3+, B.4 and B.4+", gaps.holds and tail.holds and bend.holds
)
rest = torch.as_tensor(my_gap_and_rest(test_logits.cpu(), test_target.cpu())[1])
right = correct.cpu()
claim("B.2 leaves nothing over on right answers, and on the median wrong one less than 0.05",
      bool((rest[right].abs() < 1e-6).all()) and rest[~right].median() < 0.05,
      rest=rest[~right].median())  # fmt: skip
claim("no lemma but the paper's upper B.3 exceeds 2; that one exceeds 1,000 on some test image",
      bend.paper_upper.max() <= 2 and gaps.upper.max() <= 1 and tail.paper_upper.max() > 1000)  # fmt: skip
left_over = [bool(rest[where].abs().max() > 1e-6) for where in (right, ~right)]
ex.predicted_rest.compare(
    "something everywhere" if left_over[0]
    else "nothing where right, something where wrong" if left_over[1] else "nothing, ever"
)  # fmt: skip

# %% [markdown]
# ### Explore
#
# Drag the logits of one image. Find logits at which the bar of B.3 has no width, at which B.4 is
# exact, and at which the paper's bound is useless. (Keyboard: Tab to a slider, then the arrow keys.)

# %%
widgets.logits_explorer()

# %% tags=["drawing"]
cases = {
    "sure and right": [5.0, -1.0] + [-2.0] * 8,
    "two rivals": [1.0, 1.0] + [-4.0] * 8,
    "no idea": [0.0] * 10,
    "sure and wrong": [-2.0, 5.0] + [-2.0] * 8,
}
plots.show(
    plots.logit_bounds_grid({name: torch.tensor(logits) for name, logits in cases.items()}),
    alt="Static copy of the explorer: probabilities of four images above, values of B.2, B.3 and B.4 "
    "between their bounds below. The paper's upper bound of B.3 lies at one hundredth for the image "
    "that is sure and right, and at ten thousand for the one that is sure and wrong.",
)

# %% [markdown]
# ## 2 · From one image to ECE
#
# **B.1 [paper].** ECE is at most the mean gap, *for any bins*. *Proof.* Inside a bin ECE takes the
# absolute value of a mean, and $|\text{mean}\,a| \le \text{mean}\,|a|$ (Jensen). ∎ Now chain the
# lemmas and average:
#
# $$\mathrm{ECE} \;\le\; \text{mean gap} \;\le\; \text{mean}\,(1-p_y) \;\le\;
# \text{mean}\,\sigma(\log(K-1)-m) \;\le\; (K-1)\,Q. \qquad\textbf{Theorem 4.1 [paper]}$$
#
# If every answer is right ($\gamma = \min m > 0$), the first two steps are equalities: every bin has
# accuracy 1, so $\mathrm{ECE} = 1-\bar c =: u$, the **mean misconfidence**, whatever the bins. Then
# there is a lower bound too. The paper's is $Q/K$ (**Theorem 4.2**). It loses where it need not: its
# left side of B.3 divides the *smallest* $S_y$ by one plus the *largest*. Keep them together:
# $1-p_y \ge e^{-m}/(1+e^{-m}) \ge e^{-m}/(1+e^{-\gamma})$. ∎
#
# ### Exercise 2: one half in place of 1/K
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 12 minutes.*
#
# Average the last display. A bound that is used where its assumption fails is worse than none: return
# nan there.


# %%
def my_ece_lower(margin):
    """margin (N,) true margins -> a constant times Q that ECE is never below; nan if γ <= 0."""
    ### BEGIN SOLUTION
    # {{solution: 05/ece_lower}}
    ### END SOLUTION


ex.ece_lower.check(my_ece_lower)
my_ece_lower = ex.ece_lower.mine(my_ece_lower)

# %% tags=["nbval-ignore-output"]
train_bounds = cc.ece_bounds(train_logits, train_target)
test_bounds = cc.ece_bounds(test_logits, test_target)
print("training images", train_bounds, "\ntest images", test_bounds, sep="\n")

# %%
claim("all training images are right, and the whole chain holds",
      train_bounds.regime == "interpolating" and train_bounds.holds)  # fmt: skip
lower = float(my_ece_lower(cc.true_margin(train_logits, train_target).cpu()))
claim("your lower bound is at least four times the paper's, and below ECE",
      4 * train_bounds.paper_lower < lower < train_bounds.ece)  # fmt: skip
claim("ECE is the same for 1, 7 and 100 bins, up to rounding",
      all(abs(cc.ece_bounds(train_logits, train_target, n).ece / train_bounds.ece - 1) < 1e-9
          for n in (1, 7, 100)))  # fmt: skip
claim("on test data there is no lower bound, and the function says so",
      "needs γ > 0" in test_bounds.missing["lower"])  # fmt: skip
claim("there the paper's upper bound is above 1,000, and says nothing; ECE is below 1/2",
      test_bounds.paper_upper > 1000 and test_bounds.ece < 0.5)  # fmt: skip
claim("more than nine tenths of the test images' Q belong to their worst 5 %",
      cc.margin_moment_share(margin, 0.05) > 0.9, share=cc.margin_moment_share(margin, 0.05))  # fmt: skip

# %% [markdown]
# So on test data $(K-1)Q$ is a statement about the few images that are most confidently wrong
# **[observed]**.
# $1-p_y$ stops at 1 for them; $e^{-m}$ does not. Stop the chain one step earlier and the explosion is
# gone.
#
# ## 3 · From one image to curvature
#
# $G = \frac1n\sum_i J_i^\top H_i J_i$. Each step up is one line:
#
# | rung | bound on $\lambda_{\max}(G)$ | why |
# |---|---|---|
# | u1 | mean $\lambda_{\max}(J_i^\top H_i J_i)$ | $\lambda_{\max}$ is a maximum of linear functions, so convex |
# | u2 | mean $\lVert J_i\rVert^2\lambda_{\max}(H_i)$ | $\lVert J v\rVert \le \lVert J\rVert\,\lVert v\rVert$ |
# | u3 | $C_J^2\cdot$ mean $\lambda_{\max}(H_i)$ | $C_J = \max_i \lVert J_i\rVert$ |
# | u4 | $2C_J^2\, u$ | B.4 |
# | u5 | $2C_J^2\cdot$ mean $(1-p_y)$ | $p_y \le p_{\max}$ |
# | u6 | $2C_J^2 (K-1)Q$ | B.3: **Theorem 4.1 [paper]** |
#
# The paper states the last line; the rungs between are **[here]**. All are computable, because
# $\lVert J\rVert^2$ is the top eigenvalue of the $K\times K$ matrix $JJ^\top$: no $d \times d$ matrix
# is formed.
#
# **Predict.** Which of the six steps loses most?

# %%
ex.predicted_step.ask()

# %% [markdown]
# ### Exercise 3: three rungs
#
# *Difficulty 4 of 5 · importance 4 of 5 · about 20 minutes.*


# %%
def my_rungs(grams, hessians):
    """grams (N, K, K) = J Jᵀ and hessians (N, K, K) of N images -> u1, u2, u3."""
    ### BEGIN SOLUTION
    # {{solution: 05/rungs}}
    ### END SOLUTION


ex.rungs.check(my_rungs)
my_rungs = ex.rungs.mine(my_rungs)

# %%
ladder = cc.curvature_ladder(model, data.train.inputs, train_target)
grams = curvature.jacobian_grams(model, data.train.inputs).double()
hessians = curvature.logit_hessian(train_logits.double())
claim("the whole ladder holds on the 1,000 training images", ladder.holds)
yours = [float(rung) for rung in my_rungs(grams.cpu(), hessians.cpu())]
claim("your three rungs are the package's, to three digits",
      np.allclose(yours, [ladder.u1, ladder.u2, ladder.u3], rtol=1e-3))  # fmt: skip

# %%
fig, (left, right) = plots.figure(2, width=5.2, height=4.2)
plots.ladder(history, "train", ax=left)
left.set_title("Training images: bounds fall together")
plots.ladder(history, "test", ax=right)
right.set_title("Test images: the paper's runs away")
plots.show(
    fig,
    alt="Logarithm of every rung against training step. Left, on training images: the curvature in "
    "the middle, upper rungs u1 to u5 close above it, u6 highest, lower rungs l1 to l4 below; "
    "all fall once the images are fitted. Right, on test images: the same up to u5, but the "
    "paper's dashed line climbs away from all others throughout.",
)

# %%
last = {split: np.diff([history.column(f"{split}_log_u{k}")[-1] for k in range(7)]) / np.log(10)
        for split in ("train", "test")}  # fmt: skip
claim("at the end, on test images, the step to u6 loses a factor above 10,000, all others below 1,000",
      last["test"][5] > 4 and last["test"][:5].sum() < 3, decades=last["test"])  # fmt: skip
claim("on training images it loses a factor of 3 to 30", 0.5 < last["train"][5] < 1.5,
      decades=last["train"])  # fmt: skip
claim("u1, which never looks at C_J, is within a factor of 30 of the curvature throughout",
      bool((history.column("train_log_u1") - history.column("train_log_u0")
            < torch.tensor(30.0).log().item()).all()))  # fmt: skip
ex.predicted_step.compare(f"u{1 + last['test'].argmax()}")

# %% [markdown]
# ## 4 · From below, and what it needs
#
# Deleting rows and columns of a positive semidefinite matrix never raises its top eigenvalue. Delete
# all parameters but the **output bias** $b$: $\partial z/\partial b = I$, so what remains of $G$ is
# the mean of $H_i$ itself. Hence **[here]**
#
# $$\lambda_{\max}(G) \;\ge\; \underbrace{\lambda_{\max}(\text{mean } H_i)}_{l_2} \;\ge\;
# \underbrace{\tfrac{1}{K-1}\operatorname{tr}(\text{mean } H_i)}_{l_3} \;\ge\;
# \underbrace{\tfrac{u}{K-1}}_{l_4}$$
#
# because $H_i\mathbf 1 = 0$ leaves at most $K-1$ non-zero eigenvalues, and
# $\operatorname{tr} H = 1-\lVert p\rVert^2 \ge 1-p_{\max}$. Keeping the whole last layer gives the
# tighter $l_1$. With u4, for every network with a trainable output bias, at every moment of training
# and without a label **[here]**:
#
# $$\frac{u}{K-1} \;\le\; \lambda_{\max}(G) \;\le\; 2C_J^2\,u .$$
#
# ### Exercise 4: a network that escapes
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 12 minutes.*
#
# Without an output bias nothing of this is promised. Here is a last layer without one. Which hidden
# features make its curvature smaller than $u/(K-1)$?


# %%
def my_small_features(weight):
    """weight (K, width) of a last layer without bias -> features (N, width) that break l4."""
    ### BEGIN SOLUTION
    # {{solution: 05/escape}}
    ### END SOLUTION


ex.escape.check(my_small_features)
my_small_features = ex.escape.mine(my_small_features)

# %%
generator = torch.Generator().manual_seed(0)
without, with_bias = torch.nn.Linear(20, 10, bias=False), torch.nn.Linear(20, 10)
with torch.no_grad():
    without.weight.normal_(generator=generator)
    features = torch.as_tensor(my_small_features(without.weight.clone()), dtype=torch.float32)
    labels = torch.randint(10, (len(features),), generator=generator)
    with_bias.weight.copy_(without.weight)
    with_bias.bias.zero_()  # the same function, one more parameter

escaped = cc.curvature_ladder(without, features, labels)
held = cc.curvature_ladder(with_bias, features, labels)
promised = cc.mean_misconfidence(without(features)).item() / 9
print("l4 without a bias:", escaped.missing["l4"])
claim("without a bias, on your features, the curvature is below u/(K-1)",
      escaped.u0 < promised, curvature=escaped.u0, promised=promised)  # fmt: skip
claim("the same function with a bias of zeros obeys l4", held.holds and held.u0 >= promised)

# %% [markdown]
# ## 5 · Why training couples and test data need not
#
# Where all answers are right, $u = \mathrm{ECE}$, and the last display holds ECE itself between two
# multiples of the curvature. In general, for any bins **[here]**:
#
# $$|u-\mathrm{err}| \;\le\; \mathrm{ECE} \;\le\; u+\mathrm{err} .$$
#
# *Proof.* Left: accuracy less mean confidence is a weighted sum of the bins' differences, so Jensen
# again. Right: the gap is $1-c$ where right and at most 1 where wrong. ∎ With section 4,
#
# $$\frac{\lambda_{\max}}{2C_J^2} - \mathrm{err} \;\le\; \mathrm{ECE} \;\le\; (K-1)\,\lambda_{\max} + \mathrm{err}.$$
#
# ECE and curvature are coupled *up to the error rate*. **Predict** the picture on each split: where
# does this band close, to less than a tenth of the ECE?

# %%
ex.predicted_band.ask()

# %%
fig, (left, right) = plots.figure(2, width=4.8, height=3.8)
plots.sandwich(history, "train", ax=left)
left.set_title("Training: the error ends, the band closes")
plots.sandwich(history, "test", ax=right)
right.set_title("Test: the error stays, the band too")
for ax, place in ((left, (0.5, 0.45)), (right, "center right")):
    ax.legend(frameon=False, fontsize=8, loc=place)
plots.show(
    fig,
    alt="ECE against training step, logarithmic, inside a band from |u - err| to u + err and dashed "
    "bounds by curvature. Left, training images: the error rate drops to zero, the band closes on "
    "ECE, and ECE falls between the two dashed lines. Right, test images: the error rate stays, "
    "the band stays wide, and ECE rises along its lower edge.",
)

# %%
closed = {}
for split in ("train", "test"):
    u, err = (1 - history.column(f"{split}_{name}") for name in ("confidence", "accuracy"))
    ece = history.column(f"{split}_ece")
    claim(f"{split}: ECE lies in the band at every probe",
          bool(((abs(u - err) <= ece + 1e-6) & (ece <= u + err + 1e-6)).all()))  # fmt: skip
    closed[split] = bool(2 * min(u[-1], err[-1]) < ece[-1] / 10)
claim("at the end the training error is 0, the test error above 15 %",
      history.rows[-1]["train_accuracy"] == 1 and history.rows[-1]["test_accuracy"] < 0.85)  # fmt: skip
first = next(row for row in history.rows if row["train_gamma"] > 0)
claim("from the first probe without a training mistake on, training ECE more than halves",
      history.rows[-1]["train_ece"] < first["train_ece"] / 2)  # fmt: skip
claim("and test ECE does not fall", history.rows[-1]["test_ece"] > 0.95 * first["test_ece"])
claim("over the run, u on test images halves at least, and their curvature at least doubles",
      u[-1] < u[0] / 2 and history.rows[-1]["test_log_u0"] > history.rows[0]["test_log_u0"] + 0.7)  # fmt: skip
ex.predicted_band.compare(
    ("on both splits" if closed["test"] else "on training images only") if closed["train"]
    else "on test images only" if closed["test"] else "on neither"
)  # fmt: skip

# %% [markdown]
# On test data ECE runs along $|u-\mathrm{err}|$: nearly every bin is over-confident, so nothing
# cancels **[observed]**. What ECE measures there is how far $u$ has fallen *below* an error rate that
# no longer moves. And $u$ itself need not follow the curvature either: the sandwich of section 4 has
# room for a factor $2C_J^2(K-1)$, and on test images $u$ fell while their curvature rose **[observed]**.
#
# ## 6 · The bill, for every optimizer
#
# Now the recorded runs of lesson 04. Each row of a run belongs to a phase: **rising**, before the
# sharpness peaks; **fitting**, from the peak on while some training image is wrong;
# **interpolating**, while none is. Slack is $\log_{10}$ of the factor by which a bound misses: 0 is
# tight, 3 a factor of a thousand.

# %%
sweep = reproduce.load_recorded()
entries = reproduce.slack_table(sweep)
bars = {
    f"{split}, {phase}": reproduce.median_slack(entries, split, phase)
    for split in ("train", "test")
    for phase in ("rising", "fitting", "interpolating")
}
ax = plots.slack_bars(bars)
ax.set_title("On test images, past the peak, the step from u5 to u6 loses more than all others")
plots.show(
    ax,
    alt="Stacked bars of the slack of each rung, for three phases on training and on test images, on "
    "one scale. The pieces of u1 to u5 together are much alike in all six. The piece of u6 grows from "
    "phase to phase on test images until it is longer than all others together; on training images "
    "and while sharpness rises it is not. Below the curvature, l1 is the nearest.",
)
ladder_names = ("l4", "l3", "l2", "l1", "u0", "u1", "u2", "u3", "u4", "u5", "u6")
ladders = {
    split: np.concatenate([
        np.stack([run.history.column(f"{split}_log_{name}") for name in ladder_names], axis=1)
        for run in sweep.runs
    ])
    for split in ("train", "test")
}  # fmt: skip
rounding = 1e-4  # the record keeps five digits
claim("the ladder stands in its order at every probe of every recorded run",
      all((np.diff(rungs) > -rounding)[~np.isnan(rungs).any(1)].all() for rungs in ladders.values()))  # fmt: skip
largest_step = {name: values["u6"] - values["u5"] > values["u5"] for name, values in bars.items()}
claim("the step from u5 to u6 loses more than all before it on test images past the peak, and only there",
      [name for name, largest in largest_step.items() if largest]
      == ["test, fitting", "test, interpolating"])  # fmt: skip

# %%
print(reproduce.slack_summary(entries))
print("all of it: reproduce.slack_table_text(sweep, split), split 'train' or 'test'")
seen = [entry.median for entry in entries if entry.bound == "direct_lower" and entry.n_runs]
claim("for every optimizer, phase and split, |u - err| is in the median at least 80 % of ECE",
      max(seen) < 0.1, worst=max(seen))  # fmt: skip

# %% [markdown]
# What is comparable? u6, u4 and u1 bound the same number; u4 needs no labels, u1 needs every
# Jacobian. $(K-1)Q$ and the sharper column use the margins alone, the mean of $1-p_y$ all logits (it
# is a step of the paper's own proof). The paper has no lower bound on the curvature, and its lower
# bound on ECE needs $\gamma > 0$, as ours does; $|u-\mathrm{err}|$ needs nothing. Where $\gamma>0$,
# the paper's route through $Q$ gives $\lambda_{\max}\le 2C_J^2K(K-1)\,\mathrm{ECE}$, ours
# $2C_J^2\,\mathrm{ECE}$: a factor of ninety, always.
#
# ## 7 · How wide is the sandwich?
#
# $u/(K-1) \le \lambda_{\max} \le 2C_J^2u$ holds for every one of these runs. **Predict.** By which
# factor do its two sides differ? Does every run inside it show ECE and curvature together?

# %%
ex.predicted_width.ask()

# %%
width = (ladders["train"][:, 8] - ladders["train"][:, 0]) / np.log(10)  # u4 over l4
width = width[~np.isnan(width)]
print(
    f"u4 is 10^{width.min():.1f} to 10^{width.max():.1f} times l4, median 10^{np.median(width):.1f}"
)
together = {
    kind: np.array([
        reproduce.correlation(run.history, "train_ece", steps=run.config.even_steps)
        for run in sweep.runs if (run.config.optimizer == "bulk_sgd") == (kind == "BulkSGD")
    ])
    for kind in ("BulkSGD", "the others")
}  # fmt: skip
for kind, r in together.items():
    print(f"{kind}: training ECE against sharpness, r from {r.min():+.2f} to {r.max():+.2f}, "
          f"median {np.median(r):+.2f}, {len(r)} runs")  # fmt: skip
claim("the sides of the sandwich differ by more than a thousand at every probe", width.min() > 3)
ex.predicted_width.compare(10 ** np.median(width))
claim("at least one BulkSGD run in four correlates negatively, in the same sandwich",
      np.mean(together["BulkSGD"] < 0) >= 0.25)  # fmt: skip

# %% [markdown]
# A bound that holds is no mechanism **[observed]**. BulkSGD obeys every line of this lesson, and in
# some of its runs ECE and curvature move against each other. The bounds say where both *end*, at
# nothing, once the margins grow. How they travel is a matter of data.
#
# ## What could be wrong here
#
# **A gradient norm is no Lipschitz constant.** The robust bounds (B.5 **[paper]**) use
# $m_\varepsilon \ge m - \varepsilon L$ with $L$ valid on the *whole ball*. It is tempting to put in
# $\lVert\nabla_x m\rVert_1$, measured at the image.
#
# **Train mode is no function.** With BatchNorm in train mode the logits of an image depend on its
# batch: no $J_i$ exists, and the functions refuse.

# %%
epsilon = 8 / 255
attacked = cc.robust_margin(model, data.test.inputs, test_target, epsilon).margin
slope = cc.input_margin_gradient(model, data.test.inputs, test_target).flatten(1).norm(p=1, dim=1)
refuted = attacked < margin - epsilon * slope - 1e-3
claim("an attack refutes the 'bound' m - ε‖∇m‖ for more than ten test images", refuted.sum() > 10,
      refuted=refuted.sum())  # fmt: skip

normed = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(784, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 10)
).to(device)
few = data.train.head(50)
try:
    cc.curvature_ladder(normed.train(), few.inputs, few.target)
except ValueError as error:
    print("refused:", error)
claim("in eval mode the same network has a ladder",
      cc.curvature_ladder(normed.eval(), few.inputs, few.target).holds)  # fmt: skip

# %% [markdown]
# - Test curvature is $\lambda_{\max}$ of $G$ on 500 *test* images, not the sharpness on training
#   images of lesson 04. Recorded ECE on test data is over 5,000 images.
# - $C_J$ is a maximum over the images measured; one more image can raise it.
# - The live run has one seed; the tables show the range over learning rates and three seeds.
#
# ## Take away
#
# 1. **Where every image is right, ECE is the mean misconfidence $u$, and
#    $u/(K-1) \le \lambda_{\max} \le 2C_J^2u$ holds it to the curvature from both sides.**
# 2. **On test data the error rate stands between the two, and $Q$ speaks of the few worst images:
#    nothing forces ECE and curvature together.**
#
# **Further reading.** Morosini et al. 2026, *Too Sharp, Too Sure* (arXiv 2604.20614), Appendix B.
# Horn and Johnson, *Matrix Analysis*, on Gershgorin's circles and interlacing. The proofs of every
# [here] are in the package's `THEORY.md`, sections 2 to 4.
#
# **Next** in the course: *Flat minima or flat directions?*, what SAM, Muon and BulkSGD do to all this.

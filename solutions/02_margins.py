# %% [markdown]
# # 02 · Margins
#
# *Confidence saturates: 0.99999 and 0.9999999 look alike. The logits behind it do not. Here you
# measure by how much a network is right, bound its error probability by that number, and watch a
# comfortable margin vanish under a change of three per cent in each pixel.*
#
# {{header: lesson 01}}
#
# **You will be able to**
#
# - compute the true margin of an image, and say what its sign means;
# - keep $Q = \mathbb{E}[e^{-m}]$ on a logarithmic scale, and find out who dominates it;
# - bound $1 - p_y$ from both sides by the margin alone;
# - take a projected gradient step, and use it to find out how robust a margin is.

# %%
# {{bootstrap}}

# %%
from types import SimpleNamespace

import torch

import calibcourse as cc
from calibcourse import plots, widgets
from calibcourse.exercises import claim
from calibcourse.exercises import lesson_02 as ex

device = cc.default_device()
data = cc.load_dataset("fashion_mnist_small").to(device)
model = cc.mlp(seed=0).to(device)
history = cc.fit(model, data, optimizer="adamw", lr=1e-3, steps=1200, batch_size=128, seed=0)
model.eval()

with torch.no_grad():
    train_logits, test_logits = model(data.train.inputs), model(data.test.inputs)
train_target, test_target = data.train.target, data.test.target

# %% [markdown]
# ## 1 · By how much is it right?
#
# The **true margin** of an image $x$ with label $y$ is the lead of the true class over its strongest
# rival, measured in logits:
#
# $$m(x, y) = z_y(x) - \max_{j \neq y} z_j(x) .$$
#
# It is positive exactly where the network is right (and ties aside, negative where it is wrong).
# The **predicted margin** $\hat m(x) = z_{\hat y} - \max_{j\neq\hat y} z_j \ge 0$ needs no label: it
# says how decided the network is, right or wrong.
#
# Logits have no natural unit, and adding a constant to all of them changes nothing; a *difference*
# of two logits does have a meaning. It is the logarithm of the odds between the two classes: a
# margin of 5 means that the network holds the true class for $e^5 \approx 150$ times as likely as the
# runner-up.
#
# **Predict.** The network of lesson 01 gets nearly every training image right and five test images
# out of six. Sketch the two histograms of $m$. Is the most wrong test image wrong by fewer or by more
# logits than the median training image is right?

# %%
ex.predicted_worst.ask()

# %% [markdown]
# ### Exercise 1: the true margin
#
# *Difficulty 2 of 5 · importance 5 of 5 · about 8 minutes.*


# %%
def my_margin(logits, target):
    """logits (N, K), target (N,) int64 -> true margins (N,)."""
    ### BEGIN SOLUTION
    # {{solution: 02/margin}}
    ### END SOLUTION


ex.margin.check(my_margin)
my_margin = ex.margin.mine(my_margin)

# %%
train_margin, test_margin = (
    torch.as_tensor(my_margin(z.cpu(), y.cpu()), dtype=z.dtype, device=device)
    for z, y in ((train_logits, train_target), (test_logits, test_target))
)

# %%
fig, (ax,) = plots.figure(1, width=6.4)
plots.margin_histogram({"training images": train_margin, "test images": test_margin}, ax=ax)
ax.set_title("Nearly all training margins are positive; test margins have a tail")
plots.show(
    fig,
    alt="Histograms of true margins in logits. Nearly all training images lie right of zero; test "
    "images are spread wider, with a tail of negative margins on the left.",
)

# %%
accuracy = cc.accuracy(test_logits, test_target)
claim("a positive margin and a right answer are the same thing",
      abs((test_margin > 0).double().mean() - accuracy) < 1e-3)  # fmt: skip
claim("of the training margins more than 95 % are positive, of the test margins 75 % to 90 %",
      (train_margin > 0).double().mean() > 0.95 and 0.75 < accuracy < 0.9)  # fmt: skip
claim("the worst test image is wrong by more logits than the median training image is right",
      -test_margin.min() > train_margin.median(),
      worst=test_margin.min(), median=train_margin.median())  # fmt: skip
ex.predicted_worst.compare(
    "by more" if -test_margin.min() > train_margin.median()
    else "by fewer logits than the median training image is right"
)  # fmt: skip

# %% [markdown]
# ## 2 · The margin bounds the error probability
#
# Why care about logits when calibration is about probabilities? Because the margin nearly decides
# the probability. Write $S_y = \sum_{j\neq y} e^{z_j - z_y}$; then exactly $1 - p_y = S_y/(1+S_y)$.
# The strongest rival contributes $e^{-m}$ to $S_y$, and each of the $K-1$ rivals at most that, so
#
# $$e^{-m} \;\le\; S_y \;\le\; (K-1)\,e^{-m} ,$$
#
# and because $s \mapsto s/(1+s)$ increases,
#
# $$\frac{e^{-m}}{1+e^{-m}} \;\le\; 1 - p_y \;\le\; \frac{(K-1)e^{-m}}{1+(K-1)e^{-m}} \qquad\textbf{[here]}$$
#
# The paper states it with $e^{-m}/(1+(K-1)e^{-m})$ on the left and without the denominator on the right
# (Lemma B.3 **[paper]**). For $m \ge 0$ our left side is at least $e^{-m}/2$, whatever $K$; the
# paper's is $e^{-m}/K$. With two classes both sides are equal to the middle.
#
# ### Exercise 2: the band
#
# *Difficulty 2 of 5 · importance 4 of 5 · about 8 minutes.*


# %%
def my_band(margin, n_classes):
    """margin (N,) -> the lower and the upper bound on 1 - p_y, each (N,), as in the last display."""
    ### BEGIN SOLUTION
    # {{solution: 02/band}}
    ### END SOLUTION


ex.band.check(my_band)
my_band = ex.band.mine(my_band)

# %%
bounds = cc.softmax_tail_bounds(test_logits, test_target)
lower, upper = map(torch.as_tensor, my_band(test_margin.cpu(), 10))
yours = SimpleNamespace(lower=lower, upper=upper, value=bounds.value.cpu(),
                        paper_lower=bounds.paper_lower, paper_upper=bounds.paper_upper)  # fmt: skip
fig, (ax,) = plots.figure(1, width=6.4, height=3.8)
plots.tail_band(test_margin, yours, ax=ax)
ax.set_title("Every image lies inside the band its margin allows")
plots.show(
    fig,
    alt="Error probability 1 - p_y of test images against their margin, logarithmic vertical axis. All "
    "points lie in a narrow band that falls as exp(-m) and flattens at one for negative margins; "
    "the paper's band, dashed, is wider.",
)
claim("each of the 5,000 test images lies in your band, up to rounding",
      bool(((lower * 0.999 <= yours.value) & (yours.value <= upper * 1.001)).all()))  # fmt: skip
claim("the package's, which keeps logarithms, holds too, and is never below the paper's",
      bounds.holds and bool((bounds.lower >= bounds.paper_lower).all()))  # fmt: skip

# %% [markdown]
# ## 3 · One number for the tail: Q
#
# Averaging the band over a data set leaves one functional of the margins,
#
# $$Q = \frac1n\sum_i e^{-m_i} .$$
#
# $Q$ bounds both the calibration error and the curvature (Theorem 4.1 **[paper]**); for now, look at the
# number itself. One image with $m = -100$ would make it $e^{100}/n$, more than a 32-bit float can
# hold, and one with $m=-20$ outweighs a hundred million images at $m = 0$.
#
# **Predict.** What share of the test set's $Q$ belongs to its worst 1 %, fifty images?

# %%
ex.predicted_share.ask()

# %% [markdown]
# ### Exercise 3: log Q without overflow
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 10 minutes.*


# %%
def my_log_q(margin):
    """margin (N,) -> log of the mean of exp(-margin), a scalar, also for margins of -1000."""
    ### BEGIN SOLUTION
    # {{solution: 02/log_q}}
    ### END SOLUTION


ex.log_q.check(my_log_q)
my_log_q = ex.log_q.mine(my_log_q)

# %% tags=["nbval-ignore-output"]
for name, margin in [("training", train_margin), ("test", test_margin)]:
    print(f"{name:>9}: log Q = {float(my_log_q(margin.cpu())):7.2f}, of which the worst 1 % of "
          f"images hold {cc.margin_moment_share(margin, 0.01):.1%}")  # fmt: skip

# %%
claim("the worst 1 % of the test images hold more than 90 % of its Q",
      cc.margin_moment_share(test_margin, 0.01) > 0.9)  # fmt: skip
claim("log Q is negative on the training images and positive on the test images",
      cc.log_margin_moment(train_margin) < 0 < cc.log_margin_moment(test_margin))  # fmt: skip
ex.predicted_share.compare(cc.margin_moment_share(test_margin, 0.01))

# %% [markdown]
# $Q$ is an average in name only: it is a spotlight on the worst images **[observed]**. A loss or a
# bound built on it listens to these few, which is its strength (they make the network over-confident)
# and its weakness (some are simply labelled wrong). Here they are.

# %% tags=["drawing", "nbval-ignore-output"]
worst = test_margin.topk(10, largest=False).indices
captions = [
    f"margin {test_margin[i]:.1f}\nsays {data.classes[test_logits[i].argmax()]}\n"
    f"label: {data.classes[test_target[i]]}"
    for i in worst
]
plots.show(
    plots.image_grid(data.test.inputs[worst], captions),
    alt="The ten test images with the most negative margins, each with the network's answer and "
    "the true label.",
)

# %% [markdown]
# ## 4 · Robust margins
#
# A margin says how far ahead the true class is *at* this image. How far ahead does it stay if the
# image changes a little? The **robust margin** is the worst case over a small ball,
#
# $$m_\varepsilon(x, y) = \min_{\|\delta\|\le\varepsilon} m(x+\delta, y) \;\le\; m(x, y).$$
#
# Nobody can compute it exactly for a deep network. An attack walks downhill from $x$ and returns the
# lowest margin it met: an *upper bound* on $m_\varepsilon$. The usual walk is projected gradient
# descent (PGD): step along the sign of the gradient, go back into the ball, go back into $[0, 1]$.
#
# ### Exercise 4: one step
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 10 minutes.*


# %%
def my_pgd_step(point, gradient, clean, step_size, epsilon):
    """One L-infinity step that *lowers* the margin: all tensors (N, C, H, W), pixels in [0, 1].

    point: where the walk is; gradient: of the margin at point; clean: the centre of the ball.
    """
    ### BEGIN SOLUTION
    # {{solution: 02/pgd_step}}
    ### END SOLUTION


ex.pgd_step.check(my_pgd_step)
my_pgd_step = ex.pgd_step.mine(my_pgd_step)

# %% [markdown]
# How good is such an attack? For a *linear* classifier the answer is known in closed form,
# $\min_{j\ne y}\,(z_y - z_j - \varepsilon\|w_y - w_j\|_1)$ in the $L_\infty$ ball, so there it can be
# graded. We train one, and let both walk, the package's attack and ten of your steps.

# %%
cc.set_seed(0)
linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).to(device)
cc.fit(linear, data, optimizer="adamw", lr=1e-3, steps=400, batch_size=128, seed=0)

few = data.test.head(500)
epsilon = 4 / 255
weight, bias = linear[1].weight.detach(), linear[1].bias.detach()
with torch.no_grad():
    clean = cc.true_margin(linear(few.inputs), few.target)
exact = cc.linear_robust_margin(weight, bias, few.inputs, few.target, epsilon)
found = cc.robust_margin(linear, few.inputs, few.target, epsilon, clip=None).margin

claim("the attack never reports a margin below the exact one", bool((found > exact - 1e-4).all()))
claim("nor one above the clean margin", bool((found <= clean).all()))
claim("it finds at least 95 % of the possible drop, for every image",
      bool((found - exact <= 0.05 * (clean - exact).max()).all()),
      worst=(found - exact).max(), largest_drop=(clean - exact).max())  # fmt: skip

point = few.inputs.clone()
for _ in range(10):
    point.requires_grad_()
    (gradient,) = torch.autograd.grad(cc.true_margin(linear(point), few.target).sum(), point)
    point = torch.as_tensor(my_pgd_step(point.detach(), gradient, few.inputs, epsilon / 4, epsilon))
with torch.no_grad():
    walked = cc.true_margin(linear(point), few.target)
packages = cc.robust_margin(linear, few.inputs, few.target, epsilon).margin  # stays in [0, 1] too
claim("ten of your steps find at least 90 % of what the package's attack finds, on average",
      (clean - walked).mean() > 0.9 * (clean - packages).mean())  # fmt: skip

# %% [markdown]
# ## 5 · Large margins can be fragile
#
# Back to the network. $\varepsilon = 8/255$ is a change of at most 3 % of the grey scale in each
# pixel: a faint speckle, if you look for it.
#
# **Predict.** Among test images with a margin of at least 5 (right, with $p_y > 0.94$), how many
# can be turned into mistakes by changing no pixel by more than $\varepsilon$?

# %%
ex.predicted_turned.ask()

# %%
clean = test_margin[:500]
robust = cc.robust_margin(model, few.inputs, few.target, epsilon=8 / 255)
comfortable = clean >= 5
turned = (robust.margin[comfortable] < 0).double().mean().item()

# %%
fig, (left, right) = plots.figure(2, width=4.4)
plots.margin_histogram({"clean": clean, "attacked, ε = 8/255": robust.margin}, ax=left)
left.set_title("The whole distribution moves left")
plots.margin_scatter(clean, robust.margin, ax=right)
right.set_title("Black: right, and turned into a mistake")
plots.show(
    fig,
    alt="Left: histograms of clean and robust margins; the robust ones are shifted left, many below "
    "zero. Right: robust against clean margin, all points below the diagonal; images with a "
    "positive clean and a negative robust margin are black, and many.",
)

# %%
claim("about one in five of the comfortable margins turns negative: 15 % to 30 %",
      0.15 < turned < 0.3, share=turned)  # fmt: skip
claim("no robust margin is above its clean margin", bool((robust.margin <= clean).all()))
claim("log Q grows by more than two", cc.log_margin_moment(robust.margin)
      > cc.log_margin_moment(clean) + 2)  # fmt: skip
ex.predicted_turned.compare(turned)

# %% [markdown]
# A large clean margin is thus no guarantee **[observed]**. Yet it is a good *sign* of which images
# flip. A better one is the margin over its slope, $m/\|\nabla_x m\|_1$: the radius of the ball in
# which a margin that is linear in the pixels would be used up.

# %%
points = few.inputs.clone().requires_grad_()
(slope,) = torch.autograd.grad(cc.true_margin(model(points), few.target).sum(), points)
radius = clean / slope.flatten(1).abs().sum(1)
right = clean > 0
flipped = (robust.margin < 0)[right]


def chance_to_rank(score):
    """How often an image that stays right has the higher score than one that flips (AUC)."""
    stays, flips = score[right][~flipped], score[right][flipped]
    return (stays[:, None] > flips).double().mean().item()


claim("the clean margin ranks an image that stays right above one that flips nine times in ten",
      chance_to_rank(clean) > 0.9, auc=chance_to_rank(clean))  # fmt: skip
claim("the normalised margin does so more often", chance_to_rank(radius) > chance_to_rank(clean),
      auc=chance_to_rank(radius))  # fmt: skip
claim("and says of nine images in ten whether they flip",
      ((radius[right] < 8 / 255) == flipped).double().mean() > 0.9)  # fmt: skip

example = torch.where(comfortable & (robust.margin < 0), clean, -torch.inf).argmax()
before, after = few.inputs[example], robust.adversarial_inputs[example]
with torch.no_grad():
    said = [data.classes[model(x[None]).argmax()] for x in (before, after)]
plots.show(
    plots.image_grid(
        torch.stack([before, 0.5 + 10 * (after - before), after]),
        [f"says {said[0]}", "what is added, × 10", f"says {said[1]}"],
    ),
    alt="A test image that is right, the change that the attack adds, enlarged ten times, and the "
    "attacked image, which is taken for another class: a faint speckle on the same garment.",
)

# %% [markdown]
# Since $m_\varepsilon \le m$, every *upper* bound of section 2 stays true with the robust margin in its
# place, only weaker (Lemma B.5 **[paper]**). The lower bound does not: it speaks of the image itself.
# A loss that asks for *robust* margins pushes on the whole neighbourhood instead of on one point.

# %%
attacked = torch.exp(-robust.margin).double()
p = torch.softmax(test_logits[:500].double(), dim=1)
error_probability = 1 - p.gather(1, few.target[:, None])[:, 0]
claim("with robust margins the upper bound holds for each image, the lower for none",
      bool((error_probability <= 9 * attacked / (1 + 9 * attacked)).all())
      and bool((error_probability < attacked / (1 + attacked)).all()))  # fmt: skip

# %% [markdown]
# ### Explore
#
# Move $\varepsilon$ from 0 to 16/255. The histogram slides; below it, the first images that flip and
# what the network now says they are. (Keyboard: Tab to the slider, then the arrow keys.)

# %%
explorer_images = data.test.head(200)
widgets.epsilon_explorer(model, explorer_images, data.classes)

# %% tags=["nbval-ignore-output"]
plots.show(
    plots.epsilon_grid(model, explorer_images, data.classes),
    alt="Static copy of the explorer: margin histograms at radii 0, 2, 4, 8 and 16 of 255 slide to "
    "the left; below each, an image that flips at that radius, with a faint speckle on it.",
)

# %% [markdown]
# ## What could be wrong here
#
# - Every robust margin of the deep network is an *upper* bound: a better attack could find lower
#   ones. The package's `multi_targeted=True` tries every rival class in turn. A certificate, a
#   *lower* bound, would need a Lipschitz constant of $m$ on the whole ball; the length of
#   $\nabla_x m$ at one point is not one, unless the margin is linear there.
# - The choice of ball matters. The $L_2$ ball of the same radius is far smaller (784 pixels):

# %%
small_ball = cc.robust_margin(model, few.inputs, few.target, epsilon=8 / 255, norm="l2").margin
large_ball = cc.robust_margin(model, few.inputs, few.target, epsilon=8 / 255 * 28, norm="l2").margin
claim("an L2 ball of radius 8/255 hardly moves the median margin",
      (clean - small_ball).median() < 0.1 * (clean - robust.margin).median())  # fmt: skip
claim("the L2 ball around the whole L-infinity ball moves it further",
      (clean - large_ball).median() > (clean - robust.margin).median())  # fmt: skip

# %% [markdown]
# - One network, one seed. Two others, trained alike:

# %% tags=["nbval-ignore-output"]
shares = []
for seed in (1, 2):
    other = cc.mlp(seed=seed).to(device)
    cc.fit(other, data, optimizer="adamw", lr=1e-3, steps=1200, batch_size=128, seed=seed)
    attacked = cc.robust_margin(other.eval(), few.inputs, few.target, epsilon=8 / 255).margin
    with torch.no_grad():
        before = cc.true_margin(other(few.inputs), few.target)
    shares.append((attacked[before >= 5] < 0).double().mean().item())
    print(f"seed {seed}: {shares[-1]:.0%} of the comfortable margins turn negative")

# %%
claim("the other seeds' comfortable margins are fragile too", min(shares) > 0.1)

# %% [markdown]
# ## Take away
#
# 1. The margin is the confidence before it saturates: $1 - p_y$ lies between
#    $e^{-m}/(1+e^{-m})$ and $(K-1)e^{-m}/(1+(K-1)e^{-m})$.
# 2. $Q = \mathbb E[e^{-m}]$ is ruled by the few worst images; keep $\log Q$.
# 3. Large clean margins can be fragile. An attack measures an upper bound on the robust margin.
#
# **Further reading.** Madry et al. 2018, *Towards deep learning models resistant to adversarial
# attacks* (arXiv 1706.06083). Bartlett, Foster, Telgarsky 2017, *Spectrally-normalized margin bounds*
# (arXiv 1706.08498). Morosini et al. 2026, *Too Sharp, Too Sure* (arXiv 2604.20614), Lemmas B.3, B.5.
#
# **Next:** lesson 03, *Gauss–Newton curvature*: the other instrument.

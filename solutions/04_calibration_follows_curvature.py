# %% [markdown]
# # 04 · Calibration follows curvature
#
# *Hold two instruments to one run: calibration error and sharpness. The paper reports that they rise
# and fall together. Sixty recorded runs show which half of that you can rely on, which half turns
# round on our data, and how easily a correlation along a trajectory deceives.*
#
# {{header: lessons 01 and 03}}
#
# **You will be able to**
#
# - compute a correlation along a run, and name the choices it depends on;
# - explain by two numbers, doubt and error, why training and test ECE part;
# - find the phases of a run, by the clock of calibration and by that of curvature;
# - tell a coupling from a shape that all runs share.

# %%
# {{bootstrap}}

# %%
import dataclasses

import numpy as np
from IPython.display import Markdown, display

import calibcourse as cc
from calibcourse import plots, reproduce, widgets
from calibcourse.exercises import claim
from calibcourse.exercises import lesson_04 as ex

device = cc.default_device()
data = cc.load_dataset("fashion_mnist_small").to(device)
data = dataclasses.replace(data, train=data.train.head(1000), test=data.test.head(2000))

# %% [markdown]
# ## 1 · Two instruments, one run
#
# Gradient descent at learning rate 0.2 on 1,000 images, as in lesson 03, now with ECE measured at
# every probe, on the training images and on 2,000 test images.
#
# **Predict.** The sharpness will climb, hover and fall. Sketch both ECEs under it. Which ends high?

# %%
model = cc.mlp(seed=0).to(device)
history = cc.fit(
    model,
    data,
    optimizer="gd",
    lr=0.2,
    steps=800,
    probes=[cc.LogitProbe(splits=("train", "test")), cc.SharpnessProbe()],
    probe_steps=sorted({*cc.even_steps(800, 21), *cc.log_steps(800, 9)}),
    seed=0,
)
steps, sharpness = history.column("step"), history.column("sharpness")

# %%
fig, (left, right) = plots.figure(2, width=4.8)
plots.trajectory(steps, {"sharpness": sharpness}, {"sharpness": plots.CURVATURE}, ax=left,
                 ylabel="$\\lambda_{\\max}$")  # fmt: skip
left.set_title("Sharpness climbs, hovers and falls")
eces = {name: history.column(f"{name}_ece") for name in ("train", "test")}
plots.trajectory(steps, eces, {"train": plots.TRAIN, "test": plots.TEST}, ax=right, ylabel="ECE")
right.set_title("Training ECE falls with it; test ECE does not")
plots.show(
    fig,
    alt="Left: sharpness against step climbs, hovers and falls. Right: training and test ECE jump "
    "up together in the first steps and fall. Then training ECE goes on to zero, while test ECE "
    "climbs again to the end of the run.",
)
gap = history.column("train_confidence") - history.column("train_accuracy")
claim("the sharpness more than doubles, and ends below half its peak",
      sharpness.max() > 2 * sharpness[0] and sharpness[-1] < sharpness.max() / 2)  # fmt: skip
claim("training ECE ends below a tenth of its peak, test ECE at more than five times training ECE",
      eces["train"][-1] < eces["train"].max() / 10 and eces["test"][-1] > 5 * eces["train"][-1])  # fmt: skip
claim("on its training images the network is hardly ever over-confident", np.mean(gap > 0) < 0.2)

# %% [markdown]
# The last line deserves a second look. The high *training* ECE of the first steps looks like a network
# too sure of itself. It is the opposite: the network is right far more often than it dares to claim.
# On training images ECE measures **under**-confidence nearly to the end; "too sure" is a matter of
# held-out images. ECE has no sign, so keep an eye on confidence − accuracy.
#
# ## 2 · One number for "together"
#
# The paper's Table 1 is made of Pearson correlations between sharpness and calibration error, over
# the probes of a run. Simple enough, but a record has gaps, and its probes stand both at even steps
# and at even logarithms of steps.
#
# ### Exercise 1: correlation along a run
#
# *Difficulty 2 of 5 · importance 4 of 5 · about 10 minutes.*


# %%
def my_correlation(step, x, y, chosen):
    """step (T,), x (T,), y (T,), NaN where not measured; chosen: steps to use -> Pearson's r.

    A row counts if its step is chosen and both x and y were measured.
    """
    ### BEGIN SOLUTION
    # {{solution: 04/correlation}}
    ### END SOLUTION


ex.correlation.check(my_correlation)
my_correlation = ex.correlation.mine(my_correlation)

# %% [markdown]
# The package's version, `reproduce.correlation`, does the same and knows Spearman's too.
#
# ## 3 · Sixty recorded runs
#
# One run proves little. The record holds five optimizers at four learning rates with three seeds each,
# all trained until every training image is right and the sharpness decays.

# %%
sweep = reproduce.load_recorded()
print("recorded by: calibcourse", sweep.command)
optimizers = ("gd", "sgd", "adamw", "muon", "sam")
five = dataclasses.replace(
    sweep, runs=tuple(run for name in optimizers for run in sweep.select(optimizer=name).runs)
)
fig = reproduce.trajectories_figure(five, ("sharpness", "train_ece", "test_ece"))
for ax, lowest in zip(fig.axes[::5], (1e-2, 1e-4, 5e-3), strict=True):
    ax.set_ylim(bottom=lowest)  # where Muon falls farther, it leaves the picture
plots.show(
    fig,
    alt="Fifteen panels: sharpness, training ECE and test ECE against step for GD, SGD, AdamW, Muon "
    "and SAM, one line per learning rate, all axes logarithmic. Sharpness rises and falls. Training "
    "ECE rises in the first steps and then falls. Test ECE rises, dips and rises to the end.",
)

# %% [markdown]
# **First, where we disagree.** The paper reports that test ECE follows the sharpness under GD, SGD
# and SAM, with correlations above 0.95 (CIFAR-10). In our runs the sign is the opposite: test ECE
# rises while the sharpness falls. On the training side we agree in sign, with a wider spread.
#
# Here is Table 1, ours over the paper's. As there, ± is the standard deviation over learning rates
# (each the mean of its seeds); the second table adds what the paper does not give.

# %% tags=["nbval-ignore-output"]
display(Markdown(reproduce.table_1_text(five)))
for entry in reproduce.table_1(five):
    if entry.column.endswith("_ece"):
        print(f"{entry.column:>9} {entry.optimizer:>5}: {entry}; over seeds ± {entry.std_seeds:.2f};"
              f" {entry.n_runs} runs from {entry.lowest:+.2f} to {entry.highest:+.2f}")  # fmt: skip

# %%
r = {column: reproduce.correlations(five, column) for column in ("train_ece", "test_ece")}
fig, axes = plots.figure(2, width=5.4, height=3.6)
for ax, column, color in zip(axes, r, (plots.TRAIN, plots.TEST), strict=True):
    name = column.replace("_ece", " ECE, one dot per run")
    published = reproduce.published(column)
    plots.correlation_dots({name: r[column]}, {name: color}, published, ax=ax)
axes[0].set_title("Training: mostly positive, and it depends on the learning rate")
axes[1].set_title("Test: negative here, strongly positive in the paper")
plots.show(
    fig,
    alt="Correlations of ECE with sharpness, one dot per run, by optimizer and learning rate, beside "
    "the paper's means. Training: mostly positive, as the paper's, with a wide spread over learning "
    "rates; seeds lie close together. Test: negative for all five, where the paper has values "
    "near one for GD, SGD and SAM and near zero for AdamW and Muon.",
)
flat = {c: np.concatenate([v for by_lr in r[c].values() for v in by_lr.values()]) for c in r}
entries = [entry for entry in reproduce.table_1(five) if entry.column == "train_ece"]
claim("the mean training correlation is positive for each of the five optimizers",
      all(entry.mean > 0 for entry in entries))  # fmt: skip
claim("training ECE and sharpness correlate positively in at least four runs of five",
      np.mean(flat["train_ece"] > 0) >= 0.8)  # fmt: skip
claim("test ECE and sharpness correlate negatively in at least nine runs of ten",
      np.mean(flat["test_ece"] < 0) >= 0.9)  # fmt: skip
claim("averaged over optimizers, the learning rate moves it more than twice as much as the seed",
      np.mean([e.std for e in entries]) > 2 * np.mean([e.std_seeds for e in entries]))  # fmt: skip

# %% [markdown]
# ## 4 · Why training and test part
#
# Two numbers settle most of it: mean misconfidence $u = 1 - \bar c$, the network's doubt, and its
# error rate $\mathrm{err}$. For any bins whatever (THEORY.md 4.3 **[here]**),
#
# $$|u - \mathrm{err}| \;\le\; \mathrm{ECE} \;\le\; u + \mathrm{err} .$$
#
# ### Exercise 2: two numbers bound the ECE
#
# *Difficulty 2 of 5 · importance 5 of 5 · about 8 minutes.*


# %%
def my_ece_bounds(confidence, accuracy):
    """mean confidence (T,) and accuracy (T,) along a run -> lower (T,) and upper (T,) bound."""
    ### BEGIN SOLUTION
    # {{solution: 04/ece_bounds}}
    ### END SOLUTION


ex.ece_bounds.check(my_ece_bounds)
my_ece_bounds = ex.ece_bounds.mine(my_ece_bounds)

# %%
example = sweep.select(optimizer="gd", lr=0.1, seed=0).runs[0].history
fig, axes = plots.figure(2, width=4.8)
for ax, split in zip(axes, ("train", "test"), strict=True):
    plots.doubt_and_error(example, split, ax=ax)
axes[0].set_title("Training: the error dies, the doubt is left")
axes[1].set_title("Test: the doubt dies, the error is left")
plots.show(
    fig,
    alt="Misconfidence, error rate and ECE against step for training and test images; the area "
    "between misconfidence and error rate is shaded. Training: doubt stays above error and both go "
    "to zero. Test: doubt falls through the error rate, which stays level; the gap opens again.",
)


def every_probe(name):
    return np.concatenate([run.history.column(name) for run in five.runs])


rounding = 2e-5  # the record keeps five digits
for split in ("train", "test"):
    u, err = 1 - every_probe(f"{split}_confidence"), 1 - every_probe(f"{split}_accuracy")
    ece = every_probe(f"{split}_ece")
    claim(f"{split}: both bounds hold at every probe of every run",
          ((abs(u - err) <= ece + rounding) & (ece <= u + err + rounding)).all())  # fmt: skip
    claim(f"{split}: ECE is within 0.01 of |u − err| at nine probes of ten",
          np.mean(ece - abs(u - err) < 0.01) > 0.9)  # fmt: skip
last = [run.history.rows[-1] for run in five.runs]
claim("every run ends right on all training images, and over-confident on test images",
      all(row["train_accuracy"] == 1 and row["test_confidence"] > row["test_accuracy"]
          for row in last))  # fmt: skip

# %% [markdown]
# So ECE is nearly $|u - \mathrm{err}|$, and curvature speaks of $u$ alone: both come from
# $H = \mathrm{diag}(p) - pp^\top$, which fades as the network grows sure (lesson 05 makes this
# $u/(K-1) \le \lambda_{\max} \le 2C_J^2 u$). Late in a run,
#
# - on training images err is 0: ECE $= u$, and falls *with* the sharpness;
# - on test images err stays: ECE $\approx \mathrm{err} - u$, and rises *as* $u$ and the sharpness fall.
#
# Same mechanism, opposite sign **[observed]**. Nothing forces test ECE up or down with curvature once
# the error rate is larger than the doubt.
#
# ## 5 · When do they move together?
#
# A run has two clocks. By calibration's, the network is under-confident on test images until
# `sure_from`. By curvature's, sharpness is at least half its peak from `steep_from` to
# `steep_until`: before is the climb, between them the plateau, after it the decay.
#
# ### Exercise 3: find the phases
#
# *Difficulty 3 of 5 · importance 3 of 5 · about 12 minutes.*
#
# `sure_from` is the first probed step from which on confidence is never below accuracy again. Take
# for granted that the last probe is sure.


# %%
def my_phases(step, sharpness, confidence, accuracy):
    """Four arrays (T,) along a run -> sure_from, steep_from, steep_until: three training steps."""
    ### BEGIN SOLUTION
    # {{solution: 04/phases}}
    ### END SOLUTION


ex.phases.check(my_phases)
my_phases = ex.phases.mine(my_phases)

# %%
fig, axes = plots.figure(2, width=4.8)
reproduce.phase_chart(example, reproduce.phases(example), axes)
axes[0].set_title("GD at 0.1: climb, plateau (shaded), decay")
axes[1].set_title("In doubt first; on test images too sure later")
plots.show(
    fig,
    alt="Left: sharpness against step, its plateau shaded. Right: confidence minus accuracy. On "
    "training images it is negative nearly throughout and returns to zero; on test images it turns "
    "positive at a dashed line, near the start of the plateau, and stays so.",
)


# %% [markdown]
# **Predict.** Correlate within the phases. In which of them do training ECE and sharpness go
# together: up to the end of the plateau, in the decay, or both?


# %%
def windows(run):
    step, phases = run.history.column("step"), reproduce.phases(run.history)
    peak = step[run.history.column("sharpness").argmax()]
    return {
        "start to plateau's end": step[step <= phases.steep_until],
        "sure, up to the peak": step[(step >= phases.sure_from) & (step <= peak)],
        "decay": step[step >= phases.steep_until],
    }


def within(column, name):
    """Optimizer -> correlations in one window, of the runs that have five probes there."""
    values = {}
    for run in five.runs:
        chosen = windows(run)[name]
        value = reproduce.correlation(run.history, column, steps=chosen)
        values.setdefault(run.config.label, []).extend([value] if len(chosen) >= 5 else [])
    return values


phase_r = {
    f"{split} ECE": {name: within(f"{split}_ece", name) for name in windows(five.runs[0])}
    for split in ("train", "test")
}

# %%
fig, (ax,) = plots.figure(1, width=8.4, height=3.6)
plots.correlation_dots(phase_r, {"train ECE": plots.TRAIN, "test ECE": plots.TEST}, ax=ax)
ax.set(title="They do not rise together; they fall together",
       xlabel="in each group, from left to right: GD, SGD, AdamW, Muon, SAM")  # fmt: skip
plots.show(
    fig,
    alt="Correlations with sharpness within three windows, one dot per run. From the start to the end "
    "of the plateau they scatter, mostly below zero. From the sure turn to the peak, test ECE is "
    "mostly positive. In the decay, training ECE lies near plus one and test ECE near minus one.",
)
pooled = {
    (split, name): np.concatenate(list(phase_r[split][name].values()))
    for split in phase_r for name in phase_r[split]
}  # fmt: skip
start, climb, decay = windows(five.runs[0])
claim("in the decay, training ECE follows the sharpness in every run",
      (pooled["train ECE", decay] > 0.5).all())  # fmt: skip
claim("up to the end of the plateau, it goes the other way in most",
      np.mean(pooled["train ECE", start] < 0) > 0.6)  # fmt: skip
claim("in the decay, test ECE rises as the sharpness falls, in at least nine runs of ten",
      np.mean(pooled["test ECE", decay] < 0) >= 0.9)  # fmt: skip
claim("between the sure turn and the peak, test ECE rises with the sharpness in most",
      np.mean(pooled["test ECE", climb] > 0) > 0.6)  # fmt: skip

# %% [markdown]
# At first the sharpness climbs *although* the doubt shrinks: the Jacobians grow faster. Only in the
# decay does $H$ rule both. A correlation over the whole run mixes the two regimes, with weights that
# depend on the length of the run and on where its probes stand:

# %%
choices = {
    "all, even": (1.0, "even"), "first quarter, even": (0.25, "even"), "all, log": (1.0, "log"),
}  # fmt: skip
medians = {
    name: np.median([
        reproduce.correlation(
            run.history, "train_ece", steps=reproduce.probes_within(run, *choice)
        )
        for run in five.runs
    ])
    for name, choice in choices.items()
}  # fmt: skip
growth = []
for run in five.runs:
    peak = run.history.column("sharpness").argmax()
    doubt = 1 - run.history.column("train_confidence")[[0, peak]]
    bound = np.exp(run.history.column("train_log_u4")[[0, peak]])  # u4 = 2 C_J² u
    growth.append((doubt[1] / doubt[0], bound[1] / bound[0] * doubt[0] / doubt[1]))
claim("from start to peak, the doubt falls in every run", all(doubt < 1 for doubt, _ in growth))
claim("meanwhile the largest squared Jacobian norm more than doubles, in nineteen runs of twenty",
      np.mean([norm > 2 for _, norm in growth]) >= 0.95)  # fmt: skip
claim("stop at a quarter of the run, and the median correlation is smaller",
      medians["first quarter, even"] < medians["all, even"], **medians)  # fmt: skip
claim("sample the whole run in logarithms of steps, and it loses more than half",
      medians["all, log"] < medians["all, even"] / 2, **medians)  # fmt: skip

# %% [markdown]
# The window from the sure turn to the peak is of interest for another reason: there *our* test ECE has
# the paper's sign. Probes that weigh this window heavily would show a positive test correlation.
# Whether this explains the difference we cannot tell: in the same window our training ECE mostly goes
# the other way, and the paper's training correlation is positive too.
#
# ### Explore
#
# Choose a run, how much of it you use, and how it is sampled. Can you make the training correlation
# negative? The test correlation positive? (Keyboard: Tab to a slider, then the arrow keys.)

# %%
widgets.window_explorer(five)

# %%
run = sweep.select(optimizer="gd", lr=0.1, seed=0).runs[0]
panels = {}
for title, choice in choices.items():
    used = reproduce.probes_within(run, *choice)
    panels[title] = (
        used,
        {column: reproduce.correlation(run.history, column, steps=used) for column in r},
    )
plots.show(
    plots.window_grid(run.history, panels),
    alt="Static copy of the explorer for gradient descent at learning rate 0.1. Three columns: all "
    "even probes, the first quarter, and logarithmic probes. Above the run with the probes used, "
    "below ECE against sharpness; the correlations differ in size and in sign.",
)

# %% [markdown]
# ## 6 · A shared shape is not yet a coupling
#
# Forty probes of a smooth curve are not forty observations. Two humps at about the same time correlate,
# whatever made them. A fair question: how well does a run's sharpness correlate with the ECE of *another* run,
# with another optimizer, which it cannot have influenced?


# %%
def pairings(transform):
    """Correlation of the sharpness of run i with the training ECE of run j: (n, n)."""
    sharp, ece = (
        np.stack([transform(reproduce.at_even_steps(run, name)) for run in five.runs])
        for name in ("sharpness", "train_ece")
    )
    return np.corrcoef(sharp, ece)[: len(sharp), len(sharp) :]


def changes(values):
    """From probe to probe, of the logarithm; the first jump, which dwarfs the rest, left out."""
    return np.diff(np.log(values[2:]))


labels = [run.config.label for run in five.runs]
others = np.not_equal.outer(labels, labels)
raw, differenced = pairings(lambda values: values), pairings(changes)

# %%
t = np.arange(41)
caffeine, daylight = t * np.exp(-t / 8), np.exp(-(((t - 10) / 9) ** 2))
claim("two humps that have nothing to do with each other correlate above 0.8",
      np.corrcoef(caffeine, daylight)[0, 1] > 0.8)  # fmt: skip
fig, (left, right) = plots.figure(2, width=4.9, height=4.2)
plots.pairing_matrix(raw, labels, ax=left)
left.set_title("As measured: anybody's ECE will do")
plots.pairing_matrix(differenced, labels, ax=right)
right.set_title("Changes: one's own stands out")
for ax in (left, right):
    ax.set(xlabel="training ECE of this run", ylabel="sharpness of this run")
plots.show(
    fig,
    alt="Two matrices of correlations between the sharpness of every run and the training ECE of "
    "every run. As measured, most entries are red, on the diagonal and off it. For the changes from "
    "probe to probe, entries off the diagonal are of either sign, and most of the diagonal is red.",
)
own, borrowed = (np.median(raw.diagonal()), np.median(raw[others]))
claim("as measured, the median over own and over borrowed ECE differs by less than 0.3",
      own - borrowed < 0.3, own=own, borrowed=borrowed)  # fmt: skip
own, borrowed = (np.median(differenced.diagonal()), np.median(differenced[others]))
claim("for changes from probe to probe, the own median is higher by more than 0.3",
      own - borrowed > 0.3, own=own, borrowed=borrowed)  # fmt: skip

# %% [markdown]
# Most of Table 1's height is a shape that all runs share: up, and later down. The *changes* from one
# probe to the next tell more. Those of a run's own two instruments agree, with others' they do not:
# that is evidence, weakest for GD and SGD. So is a comparison in which each run counts once:

# %%
half = {
    column: {
        label: [reproduce.at_even_steps(run, column)[20] for run in five.runs
                if run.config.label == label]
        for label in dict.fromkeys(labels)
    }
    for column in ("sharpness", "train_ece", "test_ece")
}  # fmt: skip
fig, (ax,) = plots.figure(1, width=6.6, height=3.8)
errors = {"train ECE": half["train_ece"], "test ECE": half["test_ece"]}
plots.across_runs(half["sharpness"], errors, ax=ax)
ax.set_title("Half-way through: one dot per run")
plots.show(
    fig,
    alt="ECE against sharpness at half of each run, both logarithmic, one dot per run. Training ECE "
    "rises along a straight line with the sharpness, for all optimizers together; test ECE is high "
    "everywhere and does not.",
)
sharp_rank, train_rank, test_rank = (
    np.concatenate(list(groups.values())).argsort().argsort() for groups in half.values()
)
claim("over the runs, sharpness and training ECE have a rank correlation above 0.9",
      np.corrcoef(sharp_rank, train_rank)[0, 1] > 0.9)  # fmt: skip
claim("sharpness and test ECE have a negative one", np.corrcoef(sharp_rank, test_rank)[0, 1] < 0)

# %% [markdown]
# ## 7 · Could it be the bins?
#
# With $r_i = 1\{\text{right}\} - c_i$, the kernel calibration error compares all pairs of images, and no
# bins:
#
# $$\mathrm{KCE}^2 = \frac1{N^2}\sum_{i,j} r_i\, r_j\, e^{-|c_i - c_j|/h} .$$
#
# ### Exercise 4: KCE
#
# *Difficulty 3 of 5 · importance 3 of 5 · about 12 minutes.*


# %%
def my_kce(confidence, correct, bandwidth=0.4):
    """confidence (N,), correct (N,) bool -> the kernel calibration error, a scalar."""
    ### BEGIN SOLUTION
    # {{solution: 04/kce}}
    ### END SOLUTION


ex.kce.check(my_kce)
my_kce = ex.kce.mine(my_kce)

# %%
differences, ratios = [], []
for run in five.runs:
    column = run.history.column
    fitted = column("train_accuracy") == 1
    ratios += list(column("train_kce")[fitted] / column("train_ece")[fitted])
    for split in ("train", "test"):
        ece_r, kce_r = (
            reproduce.correlation(run.history, f"{split}_{error}", steps=run.config.even_steps)
            for error in ("ece", "kce")
        )
        differences.append(abs(ece_r - kce_r))
claim("ECE and KCE correlate alike with sharpness: apart by less than 0.05 in the median, 0.3 at most",
      np.median(differences) < 0.05 and max(differences) < 0.3)  # fmt: skip
claim("once every training image is right, KCE lies between 0.8 and 1 times ECE",
      min(ratios) > 0.8 and max(ratios) < 1 + rounding)  # fmt: skip

# %% [markdown]
# It cannot be otherwise there: with every answer right all gaps have one sign, every binning gives
# ECE $= u$ exactly, and the kernel, near 1 for confidences crowded near 1, gives almost the same.
#
# ## What could be wrong here
#
# - One data set, one small network, 1,000 training images. The paper's is CIFAR-10, where a perceptron
#   errs far more often, and we do not know at which steps it was probed.
# - Learning rates were chosen, not drawn: ± over them describes four choices, it is no confidence
#   interval. Seeds spread little, so three suffice to see the sign.
# - Changes from probe to probe are one way to detrend among many; a stiffer one leaves GD and SGD with
#   nothing. The half-way picture has a common cause, how far training has come. That is the mechanism
#   rather than a flaw, yet no proof that flattening a network would calibrate it (lesson 06).
# - ECE on 1,000 images is biased upwards (lesson 01), at worst where it is smallest.
#
# ## Take away
#
# 1. In the decay, training ECE and sharpness fall together in every run: both are made of the doubt $u$.
#    Before it they mostly do not.
# 2. ECE is nearly $|u - \mathrm{err}|$. On training images err dies and ECE is doubt; on test images err
#    stays, and ECE becomes over-confidence, which grows as curvature fades.
# 3. A correlation along a run depends on where it starts, stops and is sampled. Ask what a borrowed
#    curve would give.
#
# **Further reading.** Morosini et al. 2026, *Too Sharp, Too Sure* (arXiv 2604.20614), Figure 1 and
# Table 1. Cohen et al. 2021 (arXiv 2103.00065). Yule 1926, *Why do we sometimes get nonsense-correlations
# between time-series?* Kumar, Sarawagi and Jain 2018, *Trainable calibration measures for neural
# networks* (ICML).
#
# **Next** in the course: *The shared tail bound*, why $u$ holds both in its grip.

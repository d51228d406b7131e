# %% [markdown]
# # 00 · Start here
#
# *A small network trains in front of you. You watch it become right, then sure, then too sure, on
# three instruments that this course teaches you to build.*
#
# {{header: Python, and having trained a network once}}
#
# **You will be able to**
#
# - say what each of the three instruments shows: reliability, margins, sharpness;
# - answer an exercise, read what its check tells you, and ask for a hint;
# - find your way through the course.

# %%
# {{bootstrap}}

# %%
import dataclasses

import torch

import calibcourse as cc
from calibcourse import plots
from calibcourse.exercises import claim
from calibcourse.exercises import lesson_00 as ex

device = cc.default_device()
data = cc.load_dataset("fashion_mnist_small").to(device)
data

# %% [markdown]
# ## 1 · The pictures
#
# All lessons use real images: Fashion-MNIST, ten kinds of clothing in 28 × 28 grey pixels. The
# official test file comes with the course, so nothing is downloaded. Half of it serves for
# training and validation, half for testing: 4,500, 500 and 5,000 images, always the same ones.

# %% tags=["drawing"]
first_of_each = [int((data.test.target == k).nonzero()[0]) for k in range(10)]
plots.show(
    plots.image_grid(data.test.inputs[first_of_each], data.classes),
    alt="One test image of each of the ten classes, from T-shirt to ankle boot.",
)

# %% [markdown]
# ## 2 · Watch a network become too sure
#
# The experiment: 1,000 training images, a network of two hidden layers with 200 units each, plain
# stochastic gradient descent (SGD) on the cross-entropy, 100 images in every step. While it runs,
# three instruments look on.
#
# 1. **Reliability** (left): for *test* images, how often is the network right when it says it is
#    70 %, 80 %, 90 % sure? On the dashed line it means what it says.
# 2. **Margins** (middle): for each *training* image, how far is the logit of the true class ahead
#    of its strongest rival? Negative means wrong.
# 3. **Sharpness** (right): how steeply does the loss curve in its steepest direction? This is
#    $\lambda_{\max}$, the largest eigenvalue of the Gauss–Newton matrix.
#
# **Predict** before you run the cell. (a) Will the sharpness rise, fall, or both? (b) The margins
# move right as training goes on. What does that do to the *test* images' reliability diagram?
#
# Say also how sure you are. Your answers stay on this machine, and lesson 09 ends with how well *you*
# are calibrated. An answer counts if you keep it before its result is shown.

# %%
ex.predicted_sharpness.ask()
ex.predicted_bars.ask()

# %%
data = dataclasses.replace(data, train=data.train.head(1000))
model = cc.mlp(seed=0).to(device)
logits, sharpness = cc.LogitProbe(splits=("train", "test")), cc.SharpnessProbe()
moments = cc.even_steps(1500, 25)
live = plots.LiveFigure(
    plots.three_instruments,
    alt="Three panels that move while the network trains: reliability diagram of the test images, "
    "histogram of the training images' margins, sharpness against training step.",
    name="instruments",
)
frames = []


def watch(model, data):
    """Read all instruments at one moment of training, and draw them."""
    row = logits(model, data) | sharpness(model, data)
    with torch.no_grad():
        curve = cc.reliability_curve(model(data.test.inputs), data.test.target)
        margins = cc.true_margin(model(data.train.inputs), data.train.target)
    frames.append((curve, margins, row["sharpness"]))
    steps = moments[: len(frames)]
    live.update(curve, margins, steps, [sharp for _, _, sharp in frames])
    return row


# %% tags=["nbval-ignore-output"]
history = cc.fit(
    model, data, lr=0.1, steps=1500, batch_size=100, probes=[watch], probe_steps=moments
)

# %% [markdown]
# The same run as four snapshots, for a reader who has not run the cell:

# %%
plots.show(
    plots.snapshots([frames[i] for i in (1, 4, 10, 24)], [moments[i] for i in (1, 4, 10, 24)]),
    alt="Four moments of the run, from early to late. Top: the test images' reliability diagram "
    "sinks below the diagonal. Bottom: the training images' margins move right.",
)

# %% [markdown]
# ## 3 · What you saw
#
# A figure persuades; a number can be checked. Throughout the course a line that starts with ✓ is a
# *claim*: the code has tested it on the run above, and stops with the numbers if it fails.

# %%
sharp = history.column("sharpness")
test_ece, train_ece = history.column("test_ece"), history.column("train_ece")
over_confidence = history.column("test_confidence") - history.column("test_accuracy")

claim("(a) both: the sharpness first rose, to at least twice its starting value",
      sharp.max() > 2 * sharp[0], start=sharp[0], peak=sharp.max())  # fmt: skip
claim("and then fell below half its peak", sharp[-1] < sharp.max() / 2,
      peak=sharp.max(), end=sharp[-1])  # fmt: skip
claim("the network ends up right on every training image",
      history.column("train_accuracy")[-1] == 1)  # fmt: skip
claim("(b) on test images it ends up surer than right, by more than five points: the bars sink",
      over_confidence[-1] > 0.05, over_confidence=over_confidence[-1])  # fmt: skip
claim("but at the first snapshot it was less sure than right", over_confidence[1] < 0,
      over_confidence=over_confidence[1])  # fmt: skip
rose, fell = sharp.max() > 2 * sharp[0], sharp[-1] < sharp.max() / 2
ex.predicted_sharpness.compare(
    ("it rises, then falls" if fell else "it rises") if rose else "it falls"
)
ex.predicted_bars.compare(
    "below the line: too sure" if over_confidence[-1] > 0.02
    else "above the line: too modest" if over_confidence[-1] < -0.02 else "on the line"
)  # fmt: skip

# %%
fig, (left, right) = plots.figure(2, width=4.6)
plots.trajectory(moments, {"sharpness": sharp}, {"sharpness": plots.CURVATURE}, ax=left,
                 ylabel="$\\lambda_{\\max}$")  # fmt: skip
left.set_title("Sharpness rises, then falls")
plots.trajectory(moments, {"train": train_ece, "test": test_ece},
                 {"train": plots.TRAIN, "test": plots.TEST}, ax=right, ylabel="ECE")  # fmt: skip
right.set_title("Training error peaks earlier, then falls with it")
plots.show(
    fig,
    alt="Left: sharpness against training step rises, with spikes, and falls. Right: the calibration "
    "error of training images peaks early and falls to nearly zero; that of test images ends high.",
)

# %%
peak, nearly_right = train_ece[1:].argmax() + 1, (history.column("train_accuracy") > 0.99).argmax()
claim("training calibration error is highest before the sharpness is", peak < sharp.argmax())
claim("once 99 % of the training images are right, both fall: each to below three quarters",
      sharp[-1] < 0.75 * sharp[nearly_right] and train_ece[-1] < 0.75 * train_ece[nearly_right])  # fmt: skip

# %% [markdown]
# As the margins grow, the probabilities of the training images go to 0 or 1, where softmax is flat:
# the curvature fades *and* the confidence comes to agree with the accuracy. That the two go together,
# and why, is the claim of the paper this course follows, *Too Sharp, Too Sure* (arXiv 2604.20614).
# You saw it once nearly every training image was right, not before **[observed]**; and the test side
# went the other way. Lesson 04 shows that this is a matter of phase: on CIFAR-10 it follows the
# sharpness up to its peak, as the paper reports, and turns against it afterwards. Every lesson labels
# its statements: [paper] proved there, [here] proved in this course, [observed] only seen.
#
# ## 4 · How an exercise works
#
# A network is *over-confident* by the difference between how sure it is on average and how often it
# is right. Replace the dots below with your own line, run the cell, and read what the check says.
# Make a mistake on purpose first: swap the two averages.
#
# *Difficulty 1 of 5 · importance 4 of 5 · about 5 minutes.*


# %%
def my_over_confidence(confidence, correct):
    """confidence (N,) in [0, 1], correct (N,) bool -> mean confidence minus accuracy, a scalar."""
    ### BEGIN SOLUTION
    # {{solution: 00/over_confidence}}
    ### END SOLUTION


ex.over_confidence.check(my_over_confidence)
my_over_confidence = ex.over_confidence.mine(my_over_confidence)

# %%
with torch.no_grad():
    confidence, correct = cc.confidence_and_correct(model(data.test.inputs), data.test.target)
yours = float(my_over_confidence(confidence.cpu(), correct.cpu()))
claim(
    "by your function, too, the run above ends more than five points over-confident", yours > 0.05
)

# %% [markdown]
# Stuck? `ex.over_confidence.hint()` gives a first hint, the next call a stronger one, and
# `ex.over_confidence.solution()` shows ours. An unsolved exercise blocks nothing: what follows goes on
# with your function if it is correct, else with ours (`mine` chooses). Your results stay in a file on
# this machine; this cell shows them, and so does `calibcourse progress` in a terminal:

# %% tags=["nbval-ignore-output"]
from calibcourse.course import cards

cards.progress()

# %% [markdown]
# ## 5 · Finding your way
#
# {{map}}
#
# - **Something does not work?** `cards.doctor()` in a cell, or `calibcourse doctor` in a terminal,
#   checks Python, PyTorch, memory and data, with one remedy for each finding.
# - **You have a GPU?** It is used where PyTorch finds it. Long experiments were recorded once;
#   `CALIBCOURSE_PROFILE=full` runs the paper's own protocol instead.
# - **You teach this?** The notebooks are tested with nbval; the README says how to run that in your
#   own CI and how to publish your own copy.
#
# ## What could be wrong here
#
# One run, one seed, 1,000 images, one learning rate: an illustration. How high the sharpness climbs
# depends on the learning rate $\eta$ (lesson 03 shows why it likes to sit near $2/\eta$), and how
# closely calibration follows depends on the optimizer and on where you look.
#
# ## Take away
#
# 1. Right, sure, and *rightly* sure are three different things, and each can be measured.
# 2. On the training images, calibration error and curvature fade together once nearly all are right.
# 3. On new images nothing forces them to.
#
# **Next:** lesson 01, *Confidence and ECE*.

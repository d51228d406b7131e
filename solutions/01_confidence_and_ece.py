# %% [markdown]
# # 01 · Confidence and ECE
#
# *A network that is right five times out of six can claim to be sure of nearly every picture. In
# this lesson you measure that gap, find out when the measurement misleads, and close it with a
# single number.*
#
# {{header: Python and a first course in PyTorch}}
#
# **You will be able to**
#
# - sort predictions into bins and read a reliability diagram;
# - compute the expected calibration error (ECE) yourself, and say what a value of it does *not* tell;
# - separate true miscalibration from the noise and bias of its estimate;
# - repair over-confidence after training by fitting one temperature.

# %%
# {{bootstrap}}

# %%
import torch

import calibcourse as cc
from calibcourse import plots, widgets
from calibcourse.exercises import claim
from calibcourse.exercises import lesson_01 as ex

device = cc.default_device()
data = cc.load_dataset("fashion_mnist_small").to(device)
data

# %% [markdown]
# ## 1 · Right, and how sure?
#
# Ten kinds of clothing, 28 × 28 pixels, 4,500 training images. The network is small: two hidden
# layers of 200 units, trained with AdamW on the cross-entropy until it gets (nearly) every training
# image right. Nothing about this recipe is unusual.
#
# For an image $x$ the network returns ten *logits* $z(x)$. Softmax turns them into probabilities
# $p$; the prediction $\hat y$ is the largest of them, and its probability
# $c(x) = p_{\hat y}$ is the **confidence**.
#
# **Predict.** On 5,000 images it has never seen, about what share will it get right? And what will
# its *average confidence* be?

# %%
ex.predicted_accuracy.ask()
ex.predicted_confidence.ask()

# %%
model = cc.mlp(seed=0).to(device)
history = cc.fit(model, data, optimizer="adamw", lr=1e-3, steps=1500, batch_size=128, seed=0)

with torch.no_grad():
    train_logits = model(data.train.inputs)
    validation_logits = model(data.validation.inputs)
    test_logits = model(data.test.inputs)
test_target = data.test.target

# %% tags=["nbval-ignore-output"]
for name, logits, target in [
    ("training", train_logits, data.train.target),
    ("test", test_logits, test_target),
]:
    accuracy, confidence = cc.accuracy(logits, target), cc.mean_confidence(logits)
    print(f"{name:>8} images: accuracy {accuracy:.1%}, mean confidence {confidence:.1%}")

confidence, correct = cc.confidence_and_correct(test_logits, test_target)
surest_mistakes = torch.where(correct, -1.0, confidence).topk(10).indices
captions = [
    f"says {data.classes[test_logits[i].argmax()]}\n{confidence[i]:.2%} sure\n"
    f"label: {data.classes[test_target[i]]}"
    for i in surest_mistakes
]
plots.show(
    plots.image_grid(data.test.inputs[surest_mistakes], captions),
    alt="Ten test images with the network's wrong answer, its confidence and the true label.",
)

# %%
test_accuracy = cc.accuracy(test_logits, test_target).item()
test_confidence = cc.mean_confidence(test_logits).item()
claim("the network gets more than three test images in four right", test_accuracy > 0.75,
      accuracy=test_accuracy)  # fmt: skip
claim("on test images it is surer than it is right, by at least five points",
      test_confidence - test_accuracy > 0.05,
      confidence=test_confidence, accuracy=test_accuracy)  # fmt: skip
ex.predicted_accuracy.compare(test_accuracy)
ex.predicted_confidence.compare(test_confidence)

# %% [markdown]
# Some of these mistakes a person would make too. But a person would hesitate. The network does not:
# nothing in its training ever rewarded it for saying "I cannot tell".

# %% [markdown]
# ## 2 · Does "90 % sure" mean right nine times in ten?
#
# That is the definition of **calibration**: among all images on which the network says 90 %, it
# should be right on 90 %. No single image can show it; you need groups. So sort the images by
# confidence into bins $(0, \frac1M], (\frac1M, \frac2M], \dots$ and compare, bin by bin, how sure
# the network was on average with how often it was right.
#
# ### Exercise 1: the bins
#
# *Difficulty 2 of 5 · importance 4 of 5 · about 12 minutes.*
#
# Two edge rules make it exact: each bin is open on the left and *closed on the right*, so a
# confidence of exactly 1 belongs to the last bin; a confidence of 0 is counted in the first. An
# empty bin reports 0 for both averages.


# %%
def my_bins(confidence, correct, n_bins):
    """confidence (N,), correct (N,) bool -> count, mean confidence, accuracy of each bin."""
    ### BEGIN SOLUTION
    # {{solution: 01/bins}}
    ### END SOLUTION


ex.bins.check(my_bins)
my_bins = ex.bins.mine(my_bins)

# %% [markdown]
# The picture is made of *your* bins if they are right, else of ours (`ex.bins.mine` chooses; the
# package's version is `reliability_curve`). The dots sit at each bin's average confidence and actual
# accuracy, with a 95 % interval; on the dashed line a network means what it says.

# %%
fig, (left, right) = plots.figure(2, width=4.4, height=4.2)
plots.confidence_histogram(confidence, correct, ax=left)
left.set_title("Wrong answers pile up at full confidence")
count, says, is_right = map(torch.as_tensor, my_bins(confidence.cpu(), correct.cpu(), 15))
curve = cc.metrics.ReliabilityCurve(
    torch.linspace(0, 1, 16), count, says, is_right, says - is_right
)
plots.reliability_diagram(curve, ax=right)
right.set_title("Every well-filled bin lies below the line")
plots.show(
    fig,
    alt="Left: histogram of confidence for right and wrong test images; both peak near 1. "
    "Right: reliability diagram; accuracy lies below confidence in the well-filled bins.",
)

# %% [markdown]
# ## 3 · One number: the expected calibration error
#
# Weigh each bin's gap by the share of images in it and add up:
#
# $$\mathrm{ECE}_M = \sum_{b=1}^{M} \frac{n_b}{n}\,\bigl|\mathrm{acc}_b - \mathrm{conf}_b\bigr| .$$
#
# It is measured in probability: an ECE of 0.10 says that stated and actual chances differ by ten
# percentage points on average. The *maximum* calibration error (MCE) keeps only the worst bin.
#
# **Predict.** Which of the two can be ruined by a bin that holds a single image?

# %%
ex.predicted_ruin.ask()

# %% [markdown]
# ### Exercise 2: ECE from logits
#
# *Difficulty 3 of 5 · importance 5 of 5 · about 15 minutes.*


# %%
def my_ece(logits, target, n_bins=15):
    """logits (N, K), target (N,) int64 -> the expected calibration error, a scalar tensor."""
    ### BEGIN SOLUTION
    # {{solution: 01/ece}}
    ### END SOLUTION


ex.ece.check(my_ece)
my_ece = ex.ece.mine(my_ece)

# %% tags=["nbval-ignore-output"]
for name, logits, target in [
    ("training", train_logits, data.train.target),
    ("test", test_logits, test_target),
]:
    ece = float(my_ece(logits.cpu(), target.cpu(), 15))
    mce = cc.maximum_calibration_error(logits, target)
    print(f"{name:>8}: ECE {ece:.3f}   MCE {mce:.3f}")

# %%
train_ece = float(my_ece(train_logits.cpu(), data.train.target.cpu(), 15))
test_ece = float(my_ece(test_logits.cpu(), test_target.cpu(), 15))
claim("on its training images the same network is well calibrated: ECE below 0.03",
      train_ece < 0.03, train_ece=train_ece)  # fmt: skip
claim("its test ECE is at least three times its training ECE",
      test_ece > 3 * train_ece, train_ece=train_ece, test_ece=test_ece)  # fmt: skip
worst = (is_right - says).abs().argmax()
claim("the MCE can be ruined: here it is above 0.3, from a bin with fewer than 10 of 5,000 images",
      (is_right - says).abs().max() > 0.3 and count[worst] < 10, images=count[worst])  # fmt: skip
weighed = count[worst] / count.sum() * (is_right - says).abs()[worst]  # its part of the ECE
ex.predicted_ruin.compare("only the MCE" if weighed < 0.1 * test_ece else "both")

# %% [markdown]
# On the training images the network claims near certainty and is right: no gap. The claim of
# certainty carries over to new images; the accuracy does not **[observed]**. How the training side gets there,
# step by step, and why curvature goes with it, is what the rest of the course is about.
#
# ## 4 · A perfect score for a useless model
#
# ECE asks only whether confidence and accuracy *agree*. A forecaster who says "30 % chance of rain"
# every day in a place where it rains on 30 % of days is perfectly calibrated and no help at all.
#
# ### Exercise 3: build that forecaster
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 10 minutes.*
#
# Write logits that are *the same for every image*, never look at a pixel, and still have ECE 0 on
# the labels you are given.


# %%
def my_useless_logits(target, n_classes):
    """target (N,) int64 -> logits (N, n_classes) with equal rows and ECE 0 on these labels."""
    ### BEGIN SOLUTION
    # {{solution: 01/useless}}
    ### END SOLUTION


ex.useless.check(my_useless_logits)
my_useless_logits = ex.useless.mine(my_useless_logits)

# %%
useless_logits = torch.as_tensor(my_useless_logits(test_target.cpu(), 10)).to(device)
useless_ece = cc.expected_calibration_error(useless_logits, test_target).item()
claim("your forecaster has an ECE of zero, to three digits", useless_ece < 5e-4, ece=useless_ece)
claim("and is right on about one image in ten",
      abs(cc.accuracy(useless_logits, test_target).item() - 0.1) < 0.02)  # fmt: skip

# %% [markdown]
# So never read ECE alone. Put beside it the **accuracy**, and the two *proper scores* that a
# forecaster cannot game, because the true probabilities minimise both: the negative log-likelihood
# (NLL, in nats) and the Brier score.

# %% tags=["nbval-ignore-output"]
print(f"{'':>14}{'accuracy':>10}{'ECE':>8}{'NLL':>8}{'Brier':>8}")
for name, logits in [("the network", test_logits), ("forecaster", useless_logits)]:
    row = [
        cc.accuracy(logits, test_target),
        cc.expected_calibration_error(logits, test_target),
        cc.negative_log_likelihood(logits, test_target),
        cc.brier_score(logits, test_target),
    ]
    print(f"{name:>14}{row[0]:>10.1%}{row[1]:>8.3f}{row[2]:>8.3f}{row[3]:>8.3f}")

# %% [markdown]
# ## 5 · How far can you trust the estimate?
#
# Here is an experiment that real data never allow. Soften the network's probabilities, by dividing
# its logits by 3, and *draw the labels from them*. By construction they are perfectly calibrated.
#
# **Predict.** What is its ECE, measured on 1,000 images with 15 bins?

# %%
ex.predicted_noise.ask()

# %%
probabilities = torch.softmax(test_logits.cpu().double() / 3, dim=1)
generator = torch.Generator().manual_seed(0)
sizes = (100, 300, 1000, 3000)


def ece_when_calibrated(n_samples, n_bins, n_repeats=30):
    """ECE over repeated draws of labels from the probabilities themselves: (n_repeats,)."""
    values = []
    for _ in range(n_repeats):
        chosen = torch.randperm(len(probabilities), generator=generator)[:n_samples]
        labels = torch.multinomial(probabilities[chosen], 1, generator=generator)[:, 0]
        values.append(cc.expected_calibration_error(probabilities[chosen].log(), labels, n_bins))
    return torch.stack(values)


measured = {m: torch.stack([ece_when_calibrated(n, m) for n in sizes]) for m in (5, 15, 50)}

fig, (ax,) = plots.figure(1, width=5.2, height=3.4)
plots.estimates_by_size(sizes, measured, ax=ax)
ex.predicted_noise.mark(ax, along="y")
ax.set_title("Perfectly calibrated, and yet ECE > 0")
plots.show(
    fig,
    alt="ECE of a perfectly calibrated model against sample size on log axes, for 5, 15 and 50 "
    "bins: all lines fall with the sample size, and more bins give a higher line.",
)

# %%
means = torch.stack([values.mean(1) for values in measured.values()])  # (bins, sizes)
claim("a perfectly calibrated model has a positive ECE in every draw",
      all((values > 0).all() for values in measured.values()))  # fmt: skip
claim("with 1,000 images and 15 bins it is about 0.03: between 0.02 and 0.04 on average",
      0.02 < means[1, 2] < 0.04, ece=means[1, 2])  # fmt: skip
ex.predicted_noise.compare(means[1, 2])
claim("thirty times the samples cut that bias at least threefold",
      means[1, -1] < means[1, 0] / 3, smallest=means[1, 0], largest=means[1, -1])  # fmt: skip
claim("more bins, more bias, at every sample size", bool((means.diff(dim=0) > 0).all()))
shares = [values.mean(1) / (m / torch.tensor(sizes)).sqrt() for m, values in measured.items()]
claim("in every case the bias is between 0.2 and 0.35 of the square root of bins over samples",
      all(((share > 0.2) & (share < 0.35)).all() for share in shares))  # fmt: skip
chosen = [torch.randperm(len(test_target), generator=generator)[:300] for _ in range(100)]
subsampled = [cc.expected_calibration_error(test_logits[i], test_target[i]) for i in chosen]
claim("the network itself, plainly miscalibrated, is misjudged by less than a tenth with 300 images",
      abs(torch.stack(subsampled).mean().item() / test_ece - 1) < 0.1)  # fmt: skip

# %% [markdown]
# The absolute value is the culprit: noise in a bin pushes its gap away from zero in either
# direction, and both count as error. The bias shrinks in proportion to $\sqrt{M/n}$ (the straight
# lines on log axes), and is a quarter of it here **[observed]**: most bins are nearly empty or nearly
# certain. A network whose gaps are all of one sign, like ours at $T = 1$, has almost none. Four checks
# guard against reading noise as miscalibration:
#
# - **the noise floor**: draw right or wrong from the network's own confidences, as above but with
#   nothing softened, and see which ECE chance alone makes of them;
# - **an interval**: resample the images with replacement (the *bootstrap*) and look at the spread;
# - **other bins**: the same number of images in each bin (*equal mass*) instead of equal widths;
# - **no bins**: the kernel calibration error (KCE) compares every pair of images, weighted by how
#   close their confidences are, and needs no edges at all. It is on a scale of its own; what it can
#   confirm is the *order* of two models.

# %% tags=["nbval-ignore-output"]
interval = cc.bootstrap_interval(cc.expected_calibration_error, test_logits, test_target)
floor = cc.noise_floor(confidence)
print("ECE, 15 bins of equal width:", interval)
print("calibrated, it would be:    ", floor)
for n_bins in (5, 15, 50):
    width = cc.expected_calibration_error(test_logits, test_target, n_bins)
    mass = cc.expected_calibration_error(test_logits, test_target, n_bins, binning="equal_mass")
    print(f"{n_bins:>3} bins: equal width {width:.4f}, equal mass {mass:.4f}")
print(f"KCE: training {cc.kernel_calibration_error(train_logits, data.train.target):.4f}, "
      f"test {cc.kernel_calibration_error(test_logits, test_target):.4f}")  # fmt: skip

# %%
claim("the interval of the test ECE stays clear of what a calibrated model would show by chance",
      interval.low > 2 * floor.high, low=interval.low, by_chance=floor.high)  # fmt: skip
claim("the kernel error, without bins, agrees that the test side is worse",
      cc.kernel_calibration_error(test_logits, test_target)
      > 2 * cc.kernel_calibration_error(train_logits, data.train.target))  # fmt: skip

# %% [markdown]
# ## 6 · The usual repair: one temperature
#
# Divide all logits by a number $T > 0$. The largest stays the largest, so no prediction changes,
# while $T > 1$ makes every prediction less sure. $T$ is fitted on held-out images by minimising the
# NLL, which is convex in $1/T$ (Guo et al., 2017).
#
# **Predict.** Will $T$ be above or below 1? And what would you get by fitting it on the *training*
# images instead?

# %%
ex.predicted_temperature.ask()
ex.predicted_training_temperature.ask()

# %% [markdown]
# ### Exercise 4: fit the temperature
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 15 minutes.*


# %%
def my_temperature(logits, target):
    """logits (N, K), target (N,) int64 -> the T > 0 that minimises the NLL of logits / T."""
    ### BEGIN SOLUTION
    # {{solution: 01/temperature}}
    ### END SOLUTION


ex.temperature.check(my_temperature)
my_temperature = ex.temperature.mine(my_temperature)

# %%
temperature = float(my_temperature(validation_logits.cpu(), data.validation.target.cpu()))
repaired_logits = test_logits / temperature  # the package's way: `cc.TemperatureScaling`
repaired_ece = cc.expected_calibration_error(repaired_logits, test_target).item()
claim("the fitted temperature is about 2, above 1: the network was too sure",
      1.6 < temperature < 2.8, temperature=temperature)  # fmt: skip
claim("it removes at least two thirds of the test ECE", repaired_ece < test_ece / 3,
      before=test_ece, after=repaired_ece)  # fmt: skip
claim("and changes not one prediction",
      bool((repaired_logits.argmax(1) == test_logits.argmax(1)).all()))  # fmt: skip
on_training = cc.TemperatureScaling().fit(train_logits, data.train.target)
harmed_ece = cc.expected_calibration_error(on_training.transform(test_logits), test_target).item()
claim("fitted on the training images it is below 1, and makes the test ECE worse",
      on_training.temperature < 1 and harmed_ece > test_ece, before=test_ece, after=harmed_ece)  # fmt: skip
ex.predicted_temperature.compare("above 1" if temperature > 1 else "below 1")
ex.predicted_training_temperature.compare("above 1" if on_training.temperature > 1 else "below 1")

by_class = cc.class_over_confidence(repaired_logits, test_target)
claim("yet some predicted class is still too sure by over five points, another in doubt",
      bool((by_class.low > 0).any() and (by_class.high < 0).any())
      and by_class.over_confidence.max() > 0.05)  # fmt: skip
claim("and more classes stand out than chance would allow",
      len(by_class.outside) > by_class.at_most_by_chance)  # fmt: skip

# %%
fig, (left, right) = plots.figure(2, width=4.4, height=4.4)
plots.tempered_reliability(test_logits, test_target, 1.0, ax=left)
plots.tempered_reliability(test_logits, test_target, temperature, ax=right)
plots.show(
    fig,
    alt="Reliability diagrams of the test images before and after temperature scaling: before, "
    "accuracy is below confidence; after, the bins lie close to the diagonal.",
)

# %% [markdown]
# Repaired on average, that is **[observed]**. `print(by_class)` names the classes that the average hides.
#
# ### Explore
#
# Move the temperature below 1 and above 3. Then change only the number of bins, at $T = 1$ and at
# $T = 2.5$. With one bin, ECE becomes $|\text{accuracy} - \text{mean confidence}|$. At $T = 1$ that
# changes nothing, since every bin errs on the same side; at 2.5 some do on one and some on the other,
# and cancel. (Keyboard: Tab to a slider, then the arrow keys.)

# %%
widgets.temperature_explorer(test_logits, test_target)

# %%
plots.show(
    plots.temperature_grid(test_logits, test_target),
    alt="Static copy of the explorer: reliability diagrams at temperatures 0.5, 1, 2 and 4 with 5 "
    "and with 15 bins. Low temperatures leave accuracy far below confidence, high ones above it.",
)
one, fifteen = ([cc.expected_calibration_error(test_logits / t, test_target, m) for t in (1, 2.5)]
                for m in (1, 15))  # fmt: skip
claim("at T = 1, one bin or fifteen makes less than a hundredth of a difference",
      abs(one[0] - fifteen[0]) < 0.01 * fifteen[0])  # fmt: skip
claim("at T = 2.5, one bin shows less than seven tenths of the error",
      one[1] < 0.7 * fifteen[1], one_bin=one[1], fifteen_bins=fifteen[1])  # fmt: skip

# %% [markdown]
# ## What could be wrong here
#
# One network from one seed is an anecdote. Three more, each with its own initial weights and order
# of images:

# %% tags=["nbval-ignore-output"]
rows = []
for seed in (1, 2, 3):
    other = cc.mlp(seed=seed).to(device)
    cc.fit(other, data, optimizer="adamw", lr=1e-3, steps=1500, batch_size=128, seed=seed)
    with torch.no_grad():
        z, z_validation = other(data.test.inputs), other(data.validation.inputs)
    fitted = cc.TemperatureScaling().fit(z_validation, data.validation.target)
    after = fitted.transform(z)
    rows.append(
        [cc.expected_calibration_error(logits, test_target).item() for logits in (z, after)]
    )
    print(
        f"seed {seed}: ECE {rows[-1][0]:.3f}, with T = {fitted.temperature:.2f}: {rows[-1][1]:.3f}"
    )

# %%
claim("each of the three other seeds is over-confident too", all(row[0] > 0.05 for row in rows))
claim("and each is repaired by its own temperature", all(row[1] < row[0] / 2 for row in rows))

# %% [markdown]
# Other limits, honestly:
#
# - All of this holds for images *like those the temperature was fitted on*. Rotate them, or add
#   noise, and the repair is off again.
# - The test set has 5,000 images, and the interval of section 5 is as wide as it is. Compare two
#   models on the same images, by the interval of their *difference*.
# - "Confidence" here means the top class only, and ECE averages over classes. A network can be
#   calibrated there, and wrong about the other nine probabilities, or class by class.
# - A temperature treats the symptom. It does not tell *why* the network became too sure, nor does it
#   change anything about how fragile its decisions are. The next lessons do.
#
# ## Take away
#
# 1. Calibrated means: among predictions made with confidence $c$, a share $c$ is right. Networks
#    trained to fit their data are calibrated on that data and too sure elsewhere.
# 2. ECE is a binned estimate. For a calibrated network it is biased upwards, in proportion to
#    $\sqrt{M/n}$; and it is blind to usefulness. Report the number of bins, an interval, the accuracy
#    and a proper score with it.
# 3. One temperature, fitted on held-out images, repairs most of it without changing a prediction.
#
# **Further reading.** Guo et al. 2017, *On calibration of modern neural networks*
# (arXiv 1706.04599). Kumar, Liang, Ma 2019, *Verified uncertainty calibration* (arXiv 1909.10155),
# on the bias of binning. Kumar, Sarawagi, Jain 2018, *Trainable calibration measures for neural
# networks* (ICML), on the kernel error. Morosini et al. 2026, *Too Sharp, Too Sure*
# (arXiv 2604.20614), which this course follows.
#
# **Next:** lesson 02, *Margins*: what the logits know that the confidence hides.

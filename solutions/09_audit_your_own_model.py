# %% [markdown]
# # 09 · Audit your own model
#
# *Somebody sends you a file of logits and asks: can I trust its confidence? Three such files lie in
# this course. Two of them have the same ECE to within a thousandth, and one of these two would fail you
# where it matters. You find out which, say what cannot be said, and take the tools home.*
#
# {{header: lesson 01; for section 6 also lesson 02}}
#
# **You will be able to**
#
# - read a stranger's file safely, and know which damage no reader can see;
# - tell a tie from a difference, and find the class that an average hides;
# - split data so that a temperature is judged by what it has not seen;
# - write a verdict of five lines, with what may *not* be concluded.

# %%
# {{bootstrap}}

# %%
import tempfile
from pathlib import Path

import numpy as np
import torch

import calibcourse as cc
from calibcourse import plots, widgets
from calibcourse.audit import audit, compare_audits, read_logits
from calibcourse.cases import CASES, case_file, record
from calibcourse.exercises import calibration_in_words, claim, my_predictions
from calibcourse.exercises import lesson_09 as ex
from calibcourse.metrics import debiased_ece
from calibcourse.probes import logits_of

data = cc.load_dataset("fashion_mnist_small")
cases = {name: read_logits(case_file(name))[0] for name in CASES}
target = read_logits(case_file("case_a"))[1]
{name: tuple(logits.shape) for name, logits in cases.items()}

# %% [markdown]
# Three networks, the same 2,500 test images of Fashion-MNIST in the same order. To audit a model of
# your own instead, put its file's path in place of `case_file(...)`.
#
# ## 1 · What can be wrong with a file?
#
# A reader that guesses is worse than none: probabilities taken for logits reverse every finding, for
# softmax flattens them. So `read_logits` executes nothing, checks sizes before it takes memory, and
# refuses where the numbers leave a doubt.
#
# **Predict.** Five damages: probabilities stored as `logits`; classes counted from 1; the labels of
# another order; a pickled object in place of numbers; two classes with their labels exchanged. Which
# are refused? Which does only the audit notice, and which nobody?

# %%
ex.predicted_noticed.ask()
ex.predicted_unnoticed.ask()

# %%
sound, folder = cases["case_c"], Path(tempfile.mkdtemp())
swapped = target.clone()
swapped[target == 5], swapped[target == 7] = 7, 5  # sandals and sneakers
damages = {
    "probabilities": (sound.softmax(1).numpy(), target.numpy()),
    "counted from 1": (sound.numpy(), target.numpy() + 1),
    "another order": (sound.numpy(), target.roll(1).numpy()),
    "a pickle": (np.array([{"run": "me"}] * 2500, dtype=object), target.numpy()),
    "two exchanged": (sound.numpy(), swapped.numpy()),
}
fate = {}
for name, (scores, labels) in damages.items():
    np.savez(folder / "model.npz", logits=scores, target=labels)
    try:
        found = audit(*read_logits(folder / "model.npz"), n_resamples=50)
        fate[name] = "asked about" if found.near_chance else "audited"
        print(f"{name:15} {fate[name]}: {found.findings()[0][:72]} …")
    except ValueError as refusal:
        fate[name] = "refused"
        print(f"{name:15} refused: …{str(refusal).split('model.npz')[1][:74]} …")
claim("three are refused, one is asked about, and one passes for a miscalibrated model",
      list(fate.values()) == ["refused", "refused", "asked about", "refused", "audited"])  # fmt: skip
damage = {what: name for name, what in fate.items()}
ex.predicted_noticed.compare(damage["asked about"])
ex.predicted_unnoticed.compare(damage["audited"])

# %% [markdown]
# The last one is yours to notice: no number in a file tells that two classes have changed names. Look
# at the accuracy of each class before anything else.
#
# ## 2 · What a stranger sees
#
# A report usually has one line per model. Here it is, with the picture that usually goes with it.

# %%
print(f"{'':8} accuracy  confidence    ECE  NLL (nats)")
for name, logits in cases.items():
    print(f"{name:8} {cc.accuracy(logits, target):8.3f} {cc.mean_confidence(logits):11.3f}"
          f" {cc.expected_calibration_error(logits, target):6.4f}"
          f" {cc.negative_log_likelihood(logits, target):11.3f}")  # fmt: skip

# %% tags=["drawing"]
fig, axes = plots.figure(3, width=3.6, height=3.6)
for ax, (name, logits) in zip(axes, cases.items(), strict=True):
    floor = cc.noise_floor(cc.confidence_and_correct(logits, target)[0])
    plots.reliability_diagram(
        cc.reliability_curve(logits, target), ax=ax, legend=name == "case_a", floor=floor
    )
    ax.set_title(name)
plots.show(
    fig,
    alt="Reliability diagrams of the three cases. Bars of case_b lie far below the diagonal, those of "
    f"case_a and case_c close to it. {plots.NOISE_BAND_ALT}",
)

# %%
ece = {name: float(cc.expected_calibration_error(z, target)) for name, z in cases.items()}
claim("the ECEs of case_a and case_c differ by less than 0.001",
      abs(ece["case_a"] - ece["case_c"]) < 0.001)  # fmt: skip
claim("the most accurate of the three is the one with the largest ECE",
      max(cases, key=lambda name: cc.accuracy(cases[name], target)) == max(ece, key=ece.get))  # fmt: skip

# %% [markdown]
# **Your verdict, first version.** Double-click here and write five lines for each case, *before* you go
# on: (1) how accurate, on what; (2) too sure or not sure enough, by how much, how certainly; (3) better
# or worse than which other, or a tie; (4) whom the average wrongs; (5) what would repair it, and what
# you may not conclude.
#
# | | case_a | case_b | case_c |
# |---|---|---|---|
# | 1 | | | |
# | 2 | | | |
# | 3 | | | |
# | 4 | | | |
# | 5 | | | |
#
# ## 3 · A tie or a difference?
#
# ECE is above 0 for a calibrated network too: its **noise floor** (lesson 01). Two numbers inside their
# floors tie, whatever their digits say. Outside, resample the *images* and look at the difference: both
# networks share the luck of the draw, so it cancels.
#
# **Predict.** case_a against case_c, case_b against case_c: a tie or a difference?

# %%
ex.predicted_a_and_c.ask()
ex.predicted_b_and_c.ask()

# %% [markdown]
# ### Exercise 1: the verdict
#
# *Difficulty 3 of 5 · importance 5 of 5 · about 12 minutes.*
#
# A tie (0) if both ECEs lie in their noise, or if the 95 % interval of the difference, that is
# difference ± 1.96 standard deviations over the resamples, holds 0. Else 1 where the first network's
# ECE is larger, -1 where the second's is.


# %%
def my_verdict(in_noise, difference, resampled):
    """in_noise (2,) bool, of both networks; difference: a float, debiased ECE, first less second;
    resampled (R, 2): debiased ECE of both on R resamples of the images -> 0, 1 or -1."""
    ### BEGIN SOLUTION
    # {{solution: 09/verdict}}
    ### END SOLUTION


ex.verdict.check(my_verdict)
my_verdict = ex.verdict.mine(my_verdict)

# %%
scores = {name: cc.confidence_and_correct(logits, target) for name, logits in cases.items()}
rows = torch.randint(2500, (200, 2500), generator=torch.Generator().manual_seed(0))
verdicts = {}
for pair in [("case_a", "case_c"), ("case_b", "case_c")]:
    floors = [cc.noise_floor(scores[name][0]).high for name in pair]
    in_noise = torch.tensor([ece[name] <= high for name, high in zip(pair, floors, strict=True)])
    whole = [float(debiased_ece(*scores[name])) for name in pair]
    resampled = torch.tensor(
        [[float(debiased_ece(c[r], right[r])) for c, right in map(scores.get, pair)] for r in rows]
    )
    verdicts[pair] = int(my_verdict(in_noise, whole[0] - whole[1], resampled))
    print(f"{pair[0]} against {pair[1]}: difference {whole[0] - whole[1]:+.3f}, "
          f"in the noise: {in_noise.tolist()}, verdict {verdicts[pair]}")  # fmt: skip
claim("case_a and case_c tie, case_b differs from case_c", list(verdicts.values()) == [0, 1])
ex.predicted_a_and_c.compare("a difference" if verdicts["case_a", "case_c"] else "a tie")
ex.predicted_b_and_c.compare("a difference" if verdicts["case_b", "case_c"] else "a tie")
compared = compare_audits(cases["case_a"], cases["case_c"], target)
print("\ncase_a less case_c, by the package:", compared, sep="\n")
claim("the package says so too, and that case_c has the lower log-loss",
      compared.verdict("debiased ECE") == "tie"
      and compared.verdict("negative log-likelihood") == "first is larger")  # fmt: skip

# %% [markdown]
# In ECE a tie; the negative log-likelihood, a proper score, sees a difference **[observed]**. Something
# is wrong with case_a that averages over confidence do not show.
#
# ## 4 · The class that the average hides
#
# ECE pools all classes. If a network doubts its shirts and trusts its coats too much, the two can cancel
# in every bin. So ask each class by itself: *when the network says it*, how sure is it, and how often
# right? With ten classes one stands out by chance now and then; how many would, is drawn from calibrated
# networks.
#
# **Predict.** In how many of the ten classes is case_a off? And case_c?

# %%
ex.predicted_off_a.ask()
ex.predicted_off_c.ask()

# %% [markdown]
# ### Exercise 2: find it
#
# *Difficulty 3 of 5 · importance 4 of 5 · about 15 minutes.*
#
# If each of a class's predictions is right with its own confidence $c$, the sum of confidence minus
# right-or-wrong has mean 0 and variance $\sum c(1-c)$. Return the class whose sum is farthest from 0 in
# such standard deviations, and its over-confidence.


# %%
def my_hidden_class(logits, target):
    """logits (N, K), target (N,) -> (a predicted class, its mean confidence - accuracy)."""
    ### BEGIN SOLUTION
    # {{solution: 09/hidden_class}}
    ### END SOLUTION


ex.hidden_class.check(my_hidden_class)
my_hidden_class = ex.hidden_class.mine(my_hidden_class)

# %%
by_class = {name: cc.class_over_confidence(logits, target) for name, logits in cases.items()}
fig, axes = plots.figure(2, width=4.8, height=3.8)
for ax, name in zip(axes, ("case_a", "case_c"), strict=True):
    plots.class_gaps(by_class[name], data.classes, ax=ax)
    ax.set(title=f"{name}: {ax.get_title()}", xlim=(-0.5, 0.25))
    hidden, gap = my_hidden_class(cases[name], target)
    print(f"{name}: {data.classes[int(hidden)]} stands out most, confidence - accuracy {gap:+.3f}")
plots.show(
    fig,
    alt="Over-confidence of each predicted class with its interval. case_a: shirts far below 0, "
    "T-shirts and others above. case_c: all close to 0, bags just outside.",
)
hidden, gap = my_hidden_class(cases["case_a"], target)
claim("in case_a it is the shirt, which is right far more often than it says",
      data.classes[int(hidden)] == "Shirt" and gap < -0.3, gap=gap)  # fmt: skip
claim("case_a has more classes off than chance explains, case_c has not",
      len(by_class["case_a"].outside) > by_class["case_a"].at_most_by_chance
      and len(by_class["case_c"].outside) <= by_class["case_c"].at_most_by_chance)  # fmt: skip
missed = (cases["case_a"].argmax(1)[target == 6] != 6).double().mean().item()
claim("three shirts in four are called something else", missed > 3 / 4, missed=missed)
claim("T-shirts and coats, which most of them are taken for, it says too surely",
      bool((by_class["case_a"].low[[0, 4]] > 0).all()))  # fmt: skip
ex.predicted_off_a.compare(len(by_class["case_a"].outside))
ex.predicted_off_c.compare(len(by_class["case_c"].outside))

# %% [markdown]
# **[observed]** A stranger with case_a's one line would send it to work. It fails whoever buys shirts, and
# knows nothing of it: most shirts are called something else, too surely. And
# case_c's bag is no finding: one class of ten is what chance brings now and then.
#
# ### Explore
#
# Choose a case and move the temperature. Is there one at which case_a has no class off? At which case_b
# has none? (Keyboard: Tab to a slider, then the arrow keys.)

# %%
widgets.case_explorer(cases, target, data.classes)

# %%
plots.show(
    plots.case_grid(cases, target, data.classes),
    alt="Static copy of the explorer: class by class over-confidence of the three cases at "
    "temperatures 1 and 2.2. At 1 those of case_c lie at 0, at 2.2 nearly all of case_b.",
)
tried = [0.8, 1.0, 1.5, 2.2]
off = {name: [cc.class_over_confidence(cases[name] / t, target) for t in tried]
       for name in ("case_a", "case_b")}  # fmt: skip
claim("at four temperatures from 0.8 to 2.2, at least six classes of case_a are off",
      all(len(found.outside) >= 6 for found in off["case_a"]))  # fmt: skip
claim("and of case_b at each of them more than chance explains",
      all(len(found.outside) > found.at_most_by_chance for found in off["case_b"]))  # fmt: skip

# %% [markdown]
# ## 5 · Your own loop, and a temperature judged fairly
#
# Two ways to call the package from your own training. First a plain PyTorch loop: all that the audit
# wants is logits and labels.

# %%
model = cc.small_cnn(seed=5)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
order = torch.Generator().manual_seed(5)
for _ in range(20):
    for batch in torch.randperm(len(data.train), generator=order).split(128):
        optimizer.zero_grad()
        logits = model(data.train.inputs[batch])
        torch.nn.functional.cross_entropy(logits, data.train.target[batch]).backward()
        optimizer.step()

model.eval()
test = data.test.head(2500)
found = audit(logits_of(model, test.inputs), test.target)  # or numpy.savez, and the command line
claim("a loop of one's own: it is too sure, and the audit says so", found.over_confidence.low > 0)

# %% [markdown]
# Second, `fit` with a probe of your own: any function (model, data) → dict of numbers.


# %% tags=["nbval-ignore-output"]
def classes_off(model, data):
    logits = logits_of(model, data.validation.inputs)
    by_class = cc.class_over_confidence(logits, data.validation.target)
    return {"off": len(by_class.outside), "off_by_chance": by_class.at_most_by_chance}


history = cc.fit(cc.small_cnn(seed=6), data, optimizer="adamw", lr=1e-3, steps=600, batch_size=128,
                 probes=[classes_off], probe_steps=[150, 300, 600], seed=6)  # fmt: skip
for row in history.rows:
    print(f"step {row['step']:4.0f}: {row['off']:.0f} classes off, "
          f"by chance at most {row['off_by_chance']:.0f}")  # fmt: skip

# %% [markdown]
# One temperature costs nothing and repairs much. But who judges it? Not the images that chose it, and
# not those the network learnt from; nor their *sisters*: the next frame, the same patient, another photo
# of the same garment.
#
# **Predict.** You fit T on the training photos of the loop above. Above or below 1?

# %%
ex.predicted_leaked.ask()

# %% [markdown]
# ### Exercise 3: a split without leakage
#
# *Difficulty 2 of 5 · importance 5 of 5 · about 10 minutes.*
#
# `group` numbers the garments. Leave out every garment of which any photo was trained on. Of the others,
# even numbers fit the temperature, odd ones report.


# %%
def my_split(trained_on, group):
    """trained_on (N,) bool, group (N,) int64 -> two masks (N,) bool: photos that fit, that report."""
    ### BEGIN SOLUTION
    # {{solution: 09/split}}
    ### END SOLUTION


ex.split.check(my_split)
my_split = ex.split.mine(my_split)

# %%
# Two photos of each test garment, the second a little darker.
photos = torch.cat([data.train.inputs, test.inputs, 0.9 * test.inputs])
labels = torch.cat([data.train.target, test.target, test.target])
group = torch.cat([torch.arange(7000), torch.arange(4500, 7000)])
trained_on = group < 4500
log = logits_of(model, photos)
chosen = [torch.as_tensor(mask).bool() for mask in my_split(trained_on, group)]
temperatures, left = {}, {}
for name, rows in {"training photos": trained_on, "your split": chosen[0]}.items():
    scaling = cc.TemperatureScaling().fit(log[rows], labels[rows])
    temperatures[name] = scaling.temperature
    left[name] = cc.expected_calibration_error(scaling.transform(log[chosen[1]]), labels[chosen[1]])
before = cc.expected_calibration_error(log[chosen[1]], labels[chosen[1]])
claim("fitted on training photos, T is below 1: there the network is not sure enough",
      temperatures["training photos"] < 1)  # fmt: skip
claim("on new garments that temperature makes the ECE worse, and that of the split better",
      left["your split"] < before < left["training photos"],
      before=before, after=list(left.values()))  # fmt: skip
ex.predicted_leaked.compare("above 1" if temperatures["training photos"] > 1 else "below 1")

# %% tags=["nbval-ignore-output"]
print(f"on new garments ECE {before:.3f}")
for name, temperature in temperatures.items():
    print(f"T = {temperature:.2f}, from {name}: ECE {left[name]:.3f}")

# %%
audits = {name: audit(logits, target) for name, logits in cases.items()}
for name, each in audits.items():
    share = each.repaired
    print(f"{name}: T = {each.temperature:.2f} repairs {share.estimate:+.0%} of the ECE, "
          f"95 % in [{share.low:+.0%}, {share.high:+.0%}]")  # fmt: skip
claim("case_b: a temperature repairs more than half; case_a and case_c: no share can be told from none",
      audits["case_b"].repaired.low > 0.5
      and all(audits[name].repaired.low < 0 < audits[name].repaired.high for name in ("case_a", "case_c")))  # fmt: skip

# %% [markdown]
# The audit judges a temperature by halves: each half of the file is read with the other's. A single
# number can hardly over-fit, so leakage between its halves would do little; with a slope and a shift per
# class it would do more. What ruins the fit are training photos **[observed]**.
#
# ## 6 · What may not be concluded
#
# ### Exercise 4: what is missing?
#
# *Difficulty 2 of 5 · importance 5 of 5 · about 10 minutes.*
#
# You have the three files and nothing else: one network each, 2,500 test photos of one kind. What does
# each sentence lack? **0** nothing, the file shows it · **1** more photos of this kind · **2** photos of
# the other kind · **3** the network itself · **4** further training runs.
#
# 1. On photos like these, network B is surer than it is right.
# 2. Networks A and C are equally well calibrated on average.
# 3. B's decisions withstand small changes of the image better than C's, for its margins are larger.
# 4. When A says "shirt", it is right more often than it claims.
# 5. C will be calibrated on the photos of another shop.
# 6. Whoever trains by C's recipe gets a calibrated network.
# 7. Every class of C is calibrated.
# 8. The temperature found here mends B on its customers' own snapshots.
# 9. B lies in a sharper minimum than C.
# 10. C is better calibrated than B *because* its training was stopped early.


# %%
def my_missing():
    """-> ten codes, 0 to 4, for sentences 1 to 10."""
    ### BEGIN SOLUTION
    # {{solution: 09/missing}}
    ### END SOLUTION


ex.missing.check(my_missing)
my_missing = ex.missing.mine(my_missing)

# %% [markdown]
# Your own network is here, so two of these gaps can be closed for it.
#
# **Predict.** Its temperature was fitted on upright photos. What is left of the repair when they are
# turned by 20 degrees? And of the images it gets right, how many are lost if no pixel moves by more than
# 8/255?

# %%
ex.predicted_turned.ask()
ex.predicted_lost.ask()

# %%
judges = chosen[1][4500:7000]  # among the photos as they were taken
errors = {}
for name, inputs in {
    "upright": test.inputs,
    "turned": cc.shifted(test.inputs, "rotation", 20),
}.items():
    scaled = logits_of(model, inputs[judges]) / temperatures["your split"]
    errors[name] = cc.expected_calibration_error(scaled, test.target[judges]).item()
few = test.head(300)
right = logits_of(model, few.inputs).argmax(1) == few.target
robust = cc.robust_margin(model, few.inputs[right], few.target[right], 8 / 255, steps=10).margin
lost = (robust < 0).double().mean().item()
claim("the repaired network's ECE on turned photos is at least five times that on upright ones",
      errors["turned"] > 5 * errors["upright"], **errors)  # fmt: skip
claim("more than a quarter of its right answers is lost within 8/255", lost > 0.25, lost=lost)
ex.predicted_turned.compare(errors["turned"] / errors["upright"])
ex.predicted_lost.compare(lost)

# %% tags=["nbval-ignore-output"]
print(
    f"repaired ECE: {errors['upright']:.3f} on upright photos, {errors['turned']:.3f} on turned ones"
)
print(f"right answers lost within 8/255: {lost:.0%}")

# %% [markdown]
# ## 7 · The one-page report
#
# What `calibcourse audit FILE` prints. Compare it with your table, and correct the table.

# %%
for name, each in audits.items():
    print(f"--- {name}\n{each}\n")
said = {name: " ".join(each.findings()) for name, each in audits.items()}
claim("of case_a and case_c alike it says that no miscalibration is seen",
      all("No miscalibration seen" in said[name] for name in ("case_a", "case_c")))  # fmt: skip
claim("only of case_a it adds that classes are off, and the shirt, class 6, most of all",
      "7 classes are off by more than chance explains (at most 1); most of all: 6" in said["case_a"]
      and "classes are off" not in said["case_c"])  # fmt: skip

# %% [markdown]
# **The rubric.** One point per line and case, fifteen in all.
#
# | line | full mark for | the trap |
# |---|---|---|
# | 1 | accuracy with its interval, the number and kind of images | "83 % accurate" of which photos? |
# | 2 | direction and size with an interval; "none seen" where it holds 0 | A and C: "calibrated" |
# | 3 | the noise floor, then a paired interval; ties called ties | ranking A and C by the fourth digit |
# | 4 | A's shirts, with the number of classes that chance explains; C's one class is chance | blaming C's one class |
# | 5 | B: a temperature, share and interval; A: none helps; no word on other photos, robustness, recipe | "T = 2.2 mends B" anywhere |
#
# How they were made, and what the same recipes gave with other seeds:

# %%
about = record()
print("made by:", about["command"], "on", about["date"])
for name, case in about["cases"].items():
    print(f"\n{name}, {case['kind']}: {case['how']}")
    for run in case["seeds"]:
        mark = "  ← the file" if run["seed"] == case["seed"] else ""
        print(f"  seed {run['seed']}: ECE {run['ece']:.3f}, noise to {run['floor_high']:.3f}, "
              f"{run['classes_off']} classes off, {run['classes_off_by_chance']} by chance{mark}")  # fmt: skip
runs = {name: case["seeds"] for name, case in about["cases"].items()}
claim("with every seed case_a's recipe hides at least four classes behind an ECE in the noise",
      all(r["ece"] <= r["floor_high"] and r["classes_off"] >= 4 for r in runs["case_a"]))  # fmt: skip
claim("case_c's recipe leaves one to three classes off: the file is its best seed",
      {r["classes_off"] for r in runs["case_c"]} == {1, 2, 3}
      and runs["case_c"][about["cases"]["case_c"]["seed"]]["classes_off"] == 1)  # fmt: skip

# %% [markdown]
# ## 8 · And you?
#
# All along you said how sure you were. Your predictions are 0/1 answers with a confidence, like a
# network's: here is your own reliability diagram, by the same functions. Answers that came after their
# result are left out.

# %% tags=["nbval-ignore-output"]
sure, was_right = my_predictions()
print(calibration_in_words(sure, was_right))
if len(sure) >= 10:
    plots.show(
        plots.reliability_of_predictions(sure, was_right),
        alt="Your reliability diagram: how often your predictions were right against how sure you "
        "were, with the number of them in each bin and a grey band for a calibrated person.",
    )

# %% [markdown]
# ## What could be wrong here
#
# - The cases are specimens, chosen to teach. How often such things happen, they cannot tell.
# - case_c was mended by twenty numbers fitted on 2,500 further photos: soundness has a price in data.
# - "By chance" means calibrated networks with these confidences; the 95 % are for one audit, not for
#   the worst of ten that you ran.
# - Sorted by *predicted* class; within a class, sleeves, sizes or skin tones can hide the same way.
# - The command's exit status is 1 for case_a as for case_b: it judges the classes too. Which of the
#   two it was, the findings say.
#
# ## Take away: a checklist
#
# 1. Logits, not probabilities; labels in the same order, classes numbered alike; images the model never
#    saw, nor their sisters.
# 2. Accuracy and a proper score beside every ECE.
# 3. The noise floor first: inside it, say "none seen with N images".
# 4. Two models: the same images, the paired difference, ties called ties.
# 5. Every class by itself, and how many chance explains.
# 6. A temperature: fitted on one part, judged on another, its share with an interval.
# 7. Write what you may not conclude: other photos, robustness, curvature, the recipe.
# 8. In a loop: a probe in `fit`, or `audit(logits, target)` after yours; for others, the file.
#
# **Further reading.** Gupta and Ramdas 2022, *Top-label calibration* (arXiv 2107.08353). Kull et al.
# 2019, *Beyond temperature scaling* (arXiv 1910.12656). Bröcker and Smith 2007, *Increasing the
# reliability of reliability diagrams*. Ovadia et al. 2019, *Can you trust your model's uncertainty?*
# (arXiv 1906.02530), on shift.
#
# **Next:** a file of your own, and `calibcourse audit`.

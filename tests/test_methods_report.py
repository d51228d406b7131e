"""The comparison's tables to the letter, of made-up runs whose numbers are counted by hand."""

import pytest

from calibcourse.data.shift import STRENGTHS
from calibcourse.history import History
from calibcourse.reproduce import (
    Run,
    Sweep,
    accuracy_and_ece_text,
    every_quantity_text,
    plan,
    remedies_text,
    verdict_text,
)
from calibcourse.reproduce.methods_report import comparison_text
from calibcourse.reproduce.outcomes import Difference, Verdict

METHODS = ("CE", "Flat", "Rob", "CalMO", "label smoothing", "focal")


def made(configs, final, best=None, seconds=0.001) -> Sweep:
    """Runs whose last row, and row of the lowest validation loss, are functions of their config."""
    runs = []
    for config in configs:
        rows = [
            {"step": step, "validation_loss": loss} | read(config)
            for step, loss, read in ((1, 1.0, best or final), (2, 2.0, final))
        ]
        provenance = {"seconds": 1.0, "seconds_per_step": seconds * (1 + config.seed)}
        runs.append(Run(config, History(rows), provenance))
    return Sweep(tuple(runs))


def test_accuracy_and_ece_by_both_rules_above_the_papers():
    ece = {"CE": 0.1, "label smoothing": 0.06, "CalMO": 0.03}

    def final(config):
        more = 0.02 * config.seed  # two seeds 0.02 apart: standard deviation 0.02 / √2 = 0.0141
        return {
            "test_accuracy": 0.8 + more,
            "test_ece": ece[config.label] + more,
            "test_scaled_accuracy": 0.8 + more,
            "test_scaled_ece": 0.02,
        }

    def best(config):
        return {name: value - 0.01 for name, value in final(config).items()}

    spread = "81.0 ± 1.4, {} ± 0.014".format
    earlier = "80.0 ± 1.4, {} ± 0.014".format
    cells = [
        ["test: accuracy, ECE", "CE", "label smoothing", "CalMO", "CE + temperature"],
        ["---"] * 5,
        ["SGD, final step", *map(spread, ("0.110", "0.070", "0.040")), "81.0 ± 1.4, 0.020 ± 0.000"],
        [
            "SGD, best validation step",
            *map(earlier, ("0.100", "0.060", "0.030")),
            "80.0 ± 1.4, 0.010 ± 0.000",
        ],
        [
            "*SGD, the paper's*",  # its Tables 2 and A2; it has no temperature
            "75.2 ± 1.2, 0.081 ± 0.021",
            "81.0 ± 1.0, 0.082 ± 0.009",
            "80.1 ± 1.4, 0.056 ± 0.001",
            "",
        ],
    ]
    sweep = made(plan("shift", seeds=[0, 1]), final, best)
    assert parsed(accuracy_and_ece_text(sweep, "shift")) == cells


def parsed(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_training_images_stand_beside_the_papers_training_images():
    def final(config):
        if config.label == "CE":
            return {"train_accuracy": 1.0, "train_ece": 0.001}
        return {"train_accuracy": 0.995, "train_ece": 0.0123}

    table = parsed(accuracy_and_ece_text(made(plan("tableA1", seeds=[0]), final), "tableA1"))
    paper = {  # Table A1
        "SGD": ("100.0, 0.000", "100.0, 0.004"),
        "AdamW": ("100.0, 0.000", "100.0, 0.004"),
        "Muon": ("99.5, 0.003 ± 0.001", "99.9, 0.008"),
        "SAM": ("100.0, 0.006 ± 0.002", "100.0, 0.014 ± 0.001"),
    }
    assert table == [["train: accuracy, ECE", "CE", "CalMO"], ["---"] * 3] + [
        row
        for name, theirs in paper.items()
        for row in (
            [f"{name}, final step", "100.0, 0.001", "99.5, 0.012"],
            [f"{name}, best validation step", "100.0, 0.001", "99.5, 0.012"],
            [f"*{name}, the paper's*", *theirs],
        )
    ]


@pytest.mark.parametrize("table", ["grid", "table1"])
def test_tables_without_methods_are_refused(table):
    sweep = made(plan("shift", seeds=[0]), lambda config: {"test_accuracy": 0.8})
    with pytest.raises(ValueError, match=r"^table must be one of methods, .*, tableA2; got"):
        accuracy_and_ece_text(sweep, table)


def test_verdicts_stand_by_claim_and_optimizer():
    change = Difference((-0.1, -0.3), -0.2, -1.4706, 1.0706)
    found = [
        Verdict(claim, optimizer, change, seeds, holds)
        for claim, optimizer, seeds, holds in [
            ("lower", "sgd", 2, True), ("lower", "muon", 1, False),
            ("higher", "sgd", 0, False), ("higher", "muon", 2, True),
        ]
    ]  # fmt: skip
    interval = "-0.200 [-1.471, +1.071]"
    assert verdict_text(found) == (
        "| claim | SGD | Muon |\n"
        "|---|---|---|\n"
        f"| lower | ✓ 2 of 2, {interval} | ✗ 1 of 2, {interval} |\n"
        f"| higher | ✗ 0 of 2, {interval} | ✓ 2 of 2, {interval} |\n"
    )


# Method -> ECE of three seeds at the last step. CalMO's is 0.1 for each.
ECE = {
    "CE": (0.2, 0.2, 0.2),
    "Flat": (0.1, 0.1, 0.1),
    "Rob": (0.05, 0.05, 0.2),
    "CalMO": (0.1, 0.1, 0.1),
    "label smoothing": (0.1, 0.2, 0.3),
    "focal": (0.0, 0.2, 0.1),
}


def test_remedies_are_bold_where_most_seeds_are_as_good_as_calmo():
    """For SGD as in `ECE`; for Muon everything is 0.5, a tie of all with all."""

    def final(config):
        ece = ECE[config.label][config.seed] if config.optimizer == "sgd" else 0.5
        return {"test_ece": ece, "test_scaled_ece": ece / 2}

    def best(config):
        return {"test_ece": 0.75 + 0.1 * (config.label != "CE"), "test_scaled_ece": 0.9}

    configs = [c for c in plan("methods", seeds=[0, 1, 2]) if c.optimizer in ("sgd", "muon")]
    tie = "**0.500 ± 0.000 (3 of 3)**"
    assert parsed(remedies_text(made(configs, final, best), "test_ece")) == [
        ["ECE", "SGD", "Muon"],
        ["---", "---", "---"],
        ["CE", "0.200 ± 0.000 (0 of 3)", tie],
        ["CE, stopped early", "0.750 ± 0.000 (0 of 3)", "0.750 ± 0.000 (0 of 3)"],
        ["CE + temperature", "**0.100 ± 0.000 (3 of 3)**", "**0.250 ± 0.000 (3 of 3)**"],
        ["label smoothing", "0.200 ± 0.100 (1 of 3)", tie],
        ["focal", "**0.100 ± 0.100 (2 of 3)**", tie],
        ["Flat", "**0.100 ± 0.000 (3 of 3)**", tie],
        ["Rob", "**0.100 ± 0.087 (2 of 3)**", tie],
        ["CalMO", "0.100 ± 0.000", "0.500 ± 0.000"],
    ]


def test_half_of_the_seeds_are_not_most_of_them():
    configs = [c for c in plan("methods", seeds=[0, 1]) if c.optimizer in ("sgd", "sam")]
    sweep = made(configs, lambda c: {"test_robust_log_q": -float(c.seed if c.label == "CE" else 1)})
    half = "-0.50 ± 0.71 (1 of 2)"
    # CE's values are 0 and -1 beside CalMO's -1 and -1: lower is better, and a tie is as good.
    assert parsed(remedies_text(sweep, "test_robust_log_q"))[:5] == [
        ["robust log Q", "SGD", "SAM"],
        ["---", "---", "---"],
        ["CE", half, half],
        ["CE, stopped early", half, half],
        ["CE + temperature", "not recorded", "not recorded"],
    ]


@pytest.mark.parametrize("robust_accuracy", [True, False])
def test_every_quantity_of_an_optimizer_with_its_digits_and_its_cost(robust_accuracy):
    def final(config):
        place = METHODS.index(config.label)
        row = {
            "temperature": 2.0,
            "test_robust_margin": 1 + place,
            "test_robust_log_q": -1.5,
        }
        if robust_accuracy:  # younger than the first records
            row["test_robust_accuracy"] = 0.25
        for at, less in (("", 0), ("_scaled", 0.5)):
            for name in ("accuracy", "ece", "kce", "loss", "brier"):
                row[f"test{at}_{name}"] = place + len(name) / 1000 - less
        return row

    def best(config):
        return {name: value + 1 for name, value in final(config).items()}

    configs = [c for c in plan("methods", seeds=[0, 1, 2]) if c.optimizer in ("sgd", "adamw")]
    sweep = made(configs, final, best, seconds=0.0996)
    text = every_quantity_text(sweep.select(seed=2), "adamw")
    # As many thousandths as the letters of "accuracy", "ece", "kce", "loss", "brier".
    thousandths = (8, 3, 3, 4, 5)
    last = ["0.250"] if robust_accuracy else []
    # Three times 99.6 ms for seed 2.
    rows = {
        method: [
            *(f"{place}.00{n}" for n in thousandths),
            f"{1 + place}.00",
            "-1.50",
            *last,
            "298.8",
        ]
        for place, method in enumerate(METHODS)
    }
    tempered = [*(f"-0.{500 - n}" for n in thousandths), "0.50", "not recorded", *last, "298.8"]
    names = ["accuracy", "ECE", "KCE", "NLL", "Brier", "mean robust margin", "robust log Q"]
    names += ["robust accuracy", "ms/step"] if robust_accuracy else ["ms/step"]
    assert parsed(text) == [
        ["AdamW, final step", *names],
        ["---"] * (1 + len(names)),
        *([method, *cells] for method, cells in rows.items()),
        ["CE + temperature", *tempered],
    ]
    # The median of 99.6, 199.2 and 298.8 ms, and the other rule.
    early = parsed(every_quantity_text(sweep, "sgd", "best"))
    assert early[0][0] == "SGD, best validation step" and early[2][-1] == "199.2"
    assert early[2][:2] == ["CE", "1.008 ± 0.000"]


def headings(text: str) -> list[str]:
    """The first line of every table, and every line beside the tables."""
    lines = text.splitlines()
    return [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line and (following.startswith("|---") or not line.startswith("|"))
    ]


def everything(config):
    quantities = ("accuracy", "ece", "kce", "loss", "brier")
    row = {f"test{at}_{name}": 0.5 for name in quantities for at in ("", "_scaled")}
    robust = {"test_robust_margin": 1.0, "test_robust_log_q": -1.0, "test_robust_accuracy": 0.25}
    return row | {"temperature": 2.0} | robust


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_the_methods_report_holds_every_table_in_this_order(seeds):
    four, remedy = "| SGD | AdamW | Muon | SAM |", "mean robust margin"
    names = f"| accuracy | ECE | KCE | NLL | Brier | {remedy} | robust log Q "
    names += "| robust accuracy | ms/step |"
    claims = [f"| claim {four}"] if len(seeds) > 1 else [
        "No interval can be told from a single seed."
    ]  # fmt: skip
    assert headings(comparison_text(made(plan("methods", seeds=seeds), everything), "methods")) == [
        "| test: accuracy, ECE | CE | Flat | Rob | CalMO | label smoothing | focal "
        "| CE + temperature |",
        "CalMO against CE: does the claim hold, for how many seeds, and the mean difference with "
        "its 95 % interval.",
        *claims,
        *(f"| {name} {four}" for name in ("ECE", remedy, "robust log Q", "robust accuracy")),
        *(
            f"| {optimizer}, {rule} {names}"
            for optimizer in ("SGD", "AdamW", "Muon", "SAM")
            for rule in ("final step", "best validation step")
        ),
    ]


def test_the_shift_report_holds_four_quantities_and_the_grid_none():
    def shifted(config):
        names = ("test", *(f"{k}_{s:g}" for k, strengths in STRENGTHS.items() for s in strengths))
        return {
            f"{name}{at}_{quantity}": 0.5
            for name in names
            for at in ("", "_scaled")
            for quantity in ("accuracy", "confidence", "ece", "loss", "noise_floor")
        }

    sweep = made(plan("shift", seeds=[0]), shifted)
    methods = "| CE | CE + temperature | label smoothing | CalMO |"
    assert headings(comparison_text(sweep, "shift")) == [
        "| test: accuracy, ECE | CE | label smoothing | CalMO | CE + temperature |",
        *(f"| {quantity} {methods}" for quantity in ("ECE", "error rate", "doubt u", "NLL")),
    ]
    assert comparison_text(sweep, "grid") == ""
    with pytest.raises(ValueError, match=r"^table must be one of grid, .*; got 'table1'$"):
        comparison_text(sweep, "table1")

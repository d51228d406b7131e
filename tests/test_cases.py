"""The supplied cases: what they were made of, what the audit finds in them, and made again."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import calibcourse as cc
from calibcourse.audit import audit, compare_audits, read_logits
from calibcourse.cases import CASES, case_file, record
from calibcourse.cases.make import N_IMAGES, RECIPES, SEEDS, arrays, digest, vector_scaling
from calibcourse.cli import main

LOGITS = {name: read_logits(case_file(name))[0] for name in CASES}
TARGET = read_logits(case_file("case_a"))[1]


@pytest.fixture(scope="module")
def found():
    return {name: audit(logits, TARGET) for name, logits in LOGITS.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_file_holds_what_its_record_says(name):
    with np.load(case_file(name), allow_pickle=False) as content:
        held = dict(content)
    assert {k: (v.dtype, v.shape) for k, v in held.items()} == {
        "logits": (np.float16, (N_IMAGES, 10)),
        "target": (np.uint8, (N_IMAGES,)),
    }
    about = record()["cases"][name]
    assert digest(held) == about["sha256"]
    assert (about["kind"], about["seed"]) == (RECIPES[name].kind, RECIPES[name].seed)
    assert about["how"] == " ".join(RECIPES[name].make.__doc__.split())
    assert [each["seed"] for each in about["seeds"]] == list(SEEDS)
    assert torch.equal(read_logits(case_file(name))[1], TARGET)
    assert torch.equal(TARGET, cc.load_dataset("fashion_mnist_small").test.target[:N_IMAGES])


def test_all_files_together_are_small():
    assert sum(case_file(name).stat().st_size for name in CASES) < 500_000


@pytest.mark.parametrize("name", CASES)
def test_the_record_has_the_numbers_of_the_file(name, found):
    about = record()["cases"][name]
    mine = next(each for each in about["seeds"] if each["seed"] == about["seed"])
    # float32 softmax of the same logits: another machine rounds otherwise in the seventh digit.
    assert mine["ece"] == pytest.approx(found[name].ece.estimate, abs=1e-5)
    assert mine["accuracy"] == found[name].accuracy.estimate
    assert mine["classes_off"] == len(found[name].classes.outside)


@pytest.mark.parametrize(("name", "status"), [("case_a", 1), ("case_b", 1), ("case_c", 0)])
def test_classes_that_an_average_hides_decide_the_exit_status_too(name, status, capsys):
    assert main(["audit", str(case_file(name)), "--json"]) == status
    said = json.loads(capsys.readouterr().out)
    assert said["miscalibrated"] == (name == "case_b") and said["uneven"] == bool(status)


def test_the_audit_says_of_each_what_it_is(found):
    deceptive, too_sure, sound = (found[name] for name in CASES)
    assert not deceptive.miscalibrated and not sound.miscalibrated and too_sure.miscalibrated
    assert deceptive.classes.outside[0] == 6 and deceptive.classes.over_confidence[6] < -0.3
    assert len(deceptive.classes.outside) > 3 * deceptive.classes.at_most_by_chance
    assert len(sound.classes.outside) <= sound.classes.at_most_by_chance
    assert "classes are off by more than chance" in " ".join(deceptive.findings())
    assert "classes are off" not in " ".join(sound.findings())
    assert too_sure.over_confidence.low > 0.05 and too_sure.temperature > 2
    assert too_sure.repaired.low > 0.5 and deceptive.repaired.low < 0 < deceptive.repaired.high
    compared = compare_audits(LOGITS["case_a"], LOGITS["case_c"], TARGET)
    assert compared.both_in_noise and compared.verdict("debiased ECE") == "tie"


def test_what_the_specimens_show_their_siblings_show_too():
    about = record()["cases"]
    for name, holds in {
        "case_a": lambda s: s["ece"] < s["floor_high"] and s["classes_off"] >= 4,
        "case_b": lambda s: s["ece"] > 5 * s["floor_high"],
        "case_c": lambda s: s["ece"] < s["floor_high"] and s["classes_off"] <= 3,
    }.items():
        assert all(holds(each) for each in about[name]["seeds"]), name


def test_one_case_is_made_again():
    """The shortest: 400 steps. The seed and the data decide it, up to the rounding of a machine."""
    data = cc.load_dataset("fashion_mnist_small")
    again = arrays(RECIPES["case_c"].make(data, RECIPES["case_c"].seed), data.test.target)
    mine, theirs = (z.float().softmax(1) for z in (torch.tensor(again["logits"]), LOGITS["case_c"]))
    # Two seeds differ by 0.05 on average; the order of sums in another number of threads by 1e-3.
    assert (mine - theirs).abs().sum(1).mean() < 0.01
    assert np.array_equal(again["target"], TARGET.numpy())


def test_vector_scaling_finds_a_known_slope_and_shift():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 3, generator=generator)
    slope, shift = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.0, 1.0, -1.0])
    target = torch.multinomial((logits * slope + shift).softmax(1), 1, generator=generator)[:, 0]
    found_slope, found_shift = vector_scaling(logits, target)
    # The standard error of a logistic regression's weights at this size is about 0.02.
    assert (found_slope - slope).abs().max() < 0.1
    assert (found_shift - found_shift[0] - shift).abs().max() < 0.1


def test_an_unknown_case_and_a_missing_folder_are_named():
    with pytest.raises(ValueError, match="name must be one of case_a, case_b, case_c"):
        case_file("case_d")
    told = subprocess.run(
        [sys.executable, "-m", "calibcourse.cases"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 1 and "usage: python -m calibcourse.cases FOLDER" in told.stderr

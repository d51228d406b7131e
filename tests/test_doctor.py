"""The doctor: every finding from made-up measurements, container limits from made-up files."""

import os
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pretend_device import pretend_device

from calibcourse.course import cards
from calibcourse.course import doctor as module
from calibcourse.course.doctor import (
    OK,
    PROBLEM,
    WARN,
    Finding,
    container_memory,
    data_finding,
    device_finding,
    doctor,
    examine,
    memory_finding,
    package_findings,
    progress_finding,
    python_finding,
    torch_finding,
    torchvision_finding,
)

GIB = 2**30
REQUIRED = ["ipywidgets>=7.7", "jupyterlab>=4.2", "numpy>=1.26"]
# What torchvision's metadata says: one release of torch, or since 0.29 a range.
EXACT, RANGE = Requirement("torch==2.13.0"), Requirement("torch>=2.14.0")
INSTALLED = {"ipywidgets": "7.7.1", "jupyterlab": "4.6.6", "numpy": "2.4.6"}


@pytest.mark.parametrize(
    ("finding", "status", "words"),
    [
        (python_finding("3.11.0"), OK, "3.11.0"),
        (python_finding("3.14.0rc1"), OK, "3.14.0rc1"),
        (python_finding("3.9.18"), PROBLEM, "install Python 3.11"),
        (torch_finding("2.13.0+cpu", None), OK, "2.13.0+cpu, built for the CPU"),
        (torch_finding("2.9.0", "12.8"), OK, "built for CUDA 12.8"),
        (torch_finding("2.8.1+cu126", "12.6"), PROBLEM, "torch>=2.9"),
        (torchvision_finding("2.13.0+cpu", "0.28.0+cpu", "", True, EXACT), OK, "0.28.0+cpu"),
        (torchvision_finding("2.15.0", "0.29.2", "", True, RANGE), OK, "0.29.2"),
        (
            torchvision_finding("2.13.0+cpu", "0.28.0+cu130", "", False, EXACT),
            WARN,
            "another build",
        ),
        (torchvision_finding("2.13.1", "0.28.0", "", True, EXACT), WARN, "made for torch==2.13.0"),
        (torchvision_finding("2.13.0", "0.29.2", "", True, RANGE), WARN, "made for torch>=2.14.0"),
        (torchvision_finding("2.13.0", "0.28.0", "no\nlibcudart", False), PROBLEM, "no libcudart"),
        (torchvision_finding("2.13.0", None, "", False), PROBLEM, "not installed"),
        (device_finding(None, "", 2, False), OK, "CPU, 2 threads"),
        (device_finding(None, "", 1, True), WARN, "CPU, 1 thread; torch cannot use"),
        (device_finding("NVIDIA H100", "", 8, True), OK, "NVIDIA H100; CPU, 8 threads"),
        (device_finding("NVIDIA K80", "no kernel\nimage", 8, True), PROBLEM, "no kernel image"),
        (memory_finding(8 * GIB, None), OK, "8.0 GiB free"),
        (memory_finding(24 * GIB, 2 * GIB), OK, "2.0 GiB free in this container"),
        (memory_finding(24 * GIB, GIB), WARN, "1.0 GiB free in this container"),
        (memory_finding(GIB // 4, 2 * GIB), PROBLEM, "0.2 GiB free"),
        (memory_finding(None, 2 * GIB), OK, "in this container"),
        (memory_finding(None, None), WARN, "cannot tell"),
        (data_finding("", {}), OK, "intact"),
        (data_finding("", {"mnist": Path("there")}), OK, "mnist in there"),
        (data_finding("a.gz is corrupt. To restore it: run b", {}), PROBLEM, "fix: run b"),
        (data_finding("a.gz cannot be read", {}), PROBLEM, "a.gz cannot be read"),
    ],
)
def test_findings(finding, status, words):
    assert finding.status == status
    assert words in str(finding)
    assert len(str(finding).splitlines()) == (1 if status == OK else 2)


def test_packages_in_order():
    assert [str(finding).split() for finding in package_findings(REQUIRED, INSTALLED)] == [
        ["ok", "ipywidgets", "7.7.1"],
        ["ok", "jupyterlab", "4.6.6"],
        ["ok", "other", "packages", "numpy", "2.4.6"],
    ]


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("version", [None, "0.5"])
def test_a_package_that_is_missing_or_too_old_is_one_problem(name, version):
    changed = {k: v for k, v in (INSTALLED | {name: version}).items() if v}
    problems = [f for f in package_findings(REQUIRED, changed) if f.status == PROBLEM]
    assert [problem.name for problem in problems] == [name]
    requirement = next(line for line in REQUIRED if line.startswith(name))
    assert problems[0].fix == f"python -m pip install '{requirement}'"


def test_colab_needs_no_jupyterlab():
    without = {name: INSTALLED[name] for name in ("ipywidgets", "numpy")}
    assert {f.status for f in package_findings(REQUIRED, without, on_colab=True)} == {OK}


def test_progress_can_be_kept_where_a_folder_can_be_made(tmp_path):
    path = tmp_path / "not" / "yet" / "progress.json"
    assert progress_finding(path) == Finding("progress", OK, f"kept in {path}")
    assert not path.parent.exists()  # looking changes nothing
    (tmp_path / "not").write_text("a file where a folder is needed")
    (tmp_path / "not").chmod(0o777)
    finding = progress_finding(path)
    assert finding.status == WARN
    assert "CALIBCOURSE_PROGRESS" in finding.fix


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_progress_in_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    assert progress_finding(tmp_path / "progress.json").status == WARN


def test_progress_that_is_not_kept_on_purpose():
    assert progress_finding(Path(os.devnull)).detail.startswith("not kept")


def test_progress_path_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert progress_finding(Path("progress.json")).status == OK


@pytest.mark.parametrize(
    ("status", "detail", "fix"),
    [
        ("fine", "a", ""),
        (OK, "a", "something"),
        (WARN, "a", ""),
        (PROBLEM, "a", "one\ntwo"),
        (OK, "one\ntwo", ""),
    ],
)
def test_a_finding_has_exactly_one_remedy_where_one_is_due(status, detail, fix):
    with pytest.raises(ValueError, match="must be"):
        Finding("name", status, detail, fix)


# --- Container limits ------------------------------------------------------------------------


def write_tree(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def group_v2(folder, limit, usage, inactive=0):
    return {
        f"sys/fs/cgroup/{folder}memory.max": limit,
        f"sys/fs/cgroup/{folder}memory.current": usage,
        f"sys/fs/cgroup/{folder}memory.stat": f"anon 1\ninactive_file {inactive}\nslab 2",
    }


def group_v1(folder, limit, usage, inactive=0):
    stat = f"inactive_file 1\ntotal_inactive_file {inactive}"
    return {
        f"sys/fs/cgroup/memory/{folder}memory.limit_in_bytes": limit,
        f"sys/fs/cgroup/memory/{folder}memory.usage_in_bytes": usage,
        f"sys/fs/cgroup/memory/{folder}memory.stat": stat,
    }


V1_LINES = "9:name=systemd:/x\n4:cpu,memory:/docker/abc\n0::/"
UNLIMITED_V1 = 9223372036854771712  # what version 1 reports for "no limit"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/"}, None),
        ({"proc/self/cgroup": "0::/", **group_v2("", 2000, 500)}, 1500),
        ({"proc/self/cgroup": "0::/", **group_v2("", 2000, 500, inactive=300)}, 1800),
        ({"proc/self/cgroup": "0::/", **group_v2("", "max", 500)}, None),
        ({"proc/self/cgroup": "0::/", **group_v2("", 500, 600)}, 0),
        # A limit on a group above counts, and so does one below it.
        (
            {
                "proc/self/cgroup": "0::/user/job",
                **group_v2("user/", 1000, 900),
                **group_v2("user/job/", 2000, 500),
            },
            100,
        ),
        (
            {
                "proc/self/cgroup": "0::/user/job",
                **group_v2("user/", "max", 900),
                **group_v2("user/job/", 2000, 500),
            },
            1500,
        ),
        # In a container the path is often the host's, which is not mounted.
        ({"proc/self/cgroup": V1_LINES, **group_v1("", 2000, 700, inactive=50)}, 1350),
        (
            {
                "proc/self/cgroup": V1_LINES,
                **group_v1("", UNLIMITED_V1, 700),
                **group_v1("docker/abc/", 2000, 700),
            },
            1300,
        ),
        ({"proc/self/cgroup": "3:cpuset:/", **group_v1("", 2000, 700)}, None),
        ({"proc/self/cgroup": "0::/../..", **group_v2("", 2000, 500)}, 1500),
    ],
)
def test_container_memory(files, expected, tmp_path):
    write_tree(tmp_path, files)
    assert container_memory(tmp_path) == expected


# --- The whole -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "code", "tally"),
    [
        ([OK, OK], 0, "no problems, no warnings"),
        ([OK, WARN], 0, "no problems, 1 warning"),
        ([PROBLEM, WARN, WARN], 1, "1 problem, 2 warnings"),
        ([PROBLEM, PROBLEM], 1, "2 problems, no warnings"),
    ],
)
def test_the_exit_code_tells_problems(statuses, code, tally, monkeypatch, capsys):
    findings = [Finding("it", status, "seen", "" if status == OK else "do") for status in statuses]
    monkeypatch.setattr(module, "examine", lambda: findings)
    assert doctor() == code
    *lines, empty, last = capsys.readouterr().out.splitlines()
    assert lines == [line for finding in findings for line in str(finding).splitlines()]
    assert (empty, last) == ("", tally)


def test_this_machine_is_examined_whole():
    findings = {finding.name: finding for finding in examine()}
    names = ["Python", "torch", "torchvision", "ipywidgets", "jupyterlab", "other packages"]
    assert list(findings) == [*names, "device", "memory", "data", "progress"]
    # The tests need all of these themselves.
    for name in ("Python", "torch", "ipywidgets", "jupyterlab", "other packages", "data"):
        assert findings[name].status == OK, findings[name]
    assert findings["torchvision"].status != PROBLEM
    assert "filelock" in findings["other packages"].detail


@pytest.mark.parametrize(("needed", "status"), [("torch==99.0", WARN), ("torch>=2.9", OK)])
def test_torchvision_itself_says_which_torch_it_needs(monkeypatch, needed, status):
    monkeypatch.setattr(module.metadata, "requires", lambda name: ["numpy", needed])
    version, error, _, needs = module._probe_torchvision()
    assert (
        torchvision_finding(module.torch.__version__, version, error, True, needs).status == status
    )


def test_broken_installations_are_reported_not_raised(monkeypatch):
    def fail(*args):
        raise ValueError("x.gz is corrupt. To restore it: reinstall")

    monkeypatch.setattr(module, "load_dataset", fail)
    monkeypatch.setattr(module, "import_torchvision", fail)
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module.torch.cuda, "get_device_name", lambda index: "broken GPU")
    monkeypatch.setattr(module.torch, "ones", lambda *a, **k: (_ for _ in ()).throw(RuntimeError))
    found = {finding.name: finding.status for finding in examine()}
    assert [found[name] for name in ("torchvision", "device", "data")] == [PROBLEM] * 3


@pytest.mark.parametrize(
    ("statuses", "icon", "tone"),
    [([OK, OK], "✓", "good"), ([OK, WARN], "!", "warn"), ([PROBLEM, WARN, OK], "✗", "bad")],
)
def test_the_card_has_the_words_of_the_command(statuses, icon, tone, monkeypatch, capsys):
    findings = [
        Finding(f"thing {i}", status, f"seen {i}", "" if status == OK else f"do {i}")
        for i, status in enumerate(statuses)
    ]
    monkeypatch.setattr(module, "examine", lambda: findings)
    monkeypatch.setattr(cards, "examine", lambda: findings)
    doctor()
    printed = capsys.readouterr().out
    card = cards.doctor()
    assert (card.icon, card.tone) == (icon, tone)
    assert card.word == printed.splitlines()[-1]
    for word in printed.split():
        assert word in repr(card) or word == OK  # what is fine says so by its mark alone


def test_an_apple_gpu_is_found_and_said_to_have_no_float64():
    with pretend_device("mps", float64=False):
        finding = {finding.name: finding for finding in examine()}["device"]
    assert finding.status == OK and "no float64" in finding.detail

"""The command line: what it prints, its exit status, and that asking costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import calibcourse
from calibcourse import cli
from calibcourse.course import doctor, progress

COMMANDS = (
    "start",
    "update",
    "doctor",
    "progress",
    "class",
    "grade",
    "release",
    "build",
    "publish",
    "site",
    "kit",
)


def test_help_names_every_command_and_variable(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    printed = capsys.readouterr().out
    variables = ("CALIBCOURSE_PROFILE", "CALIBCOURSE_DATA", "CALIBCOURSE_PROGRESS")
    assert all(name in printed for name in COMMANDS + variables)


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "calibcourse", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"calibcourse {calibcourse.__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "calibcourse", "progress", "--csv"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # before a line is there
    assert process.stderr.read() == "" and process.wait() == 0


def test_the_commands_are_imported_only_when_called():
    tree = ast.parse(Path(cli.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        node.module or "calibcourse" if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in imports
    }
    assert {name.partition(".")[0] for name in names} - {"calibcourse"} <= sys.stdlib_module_names
    relative = [node for node in imports if isinstance(node, ast.ImportFrom) and node.level]
    assert [alias.name for node in relative for alias in node.names] == ["__version__"]


@pytest.mark.parametrize(
    "wrong", [[], ["bild"], ["build", "--jobs", "0"], ["build", "--jobs", "x"]]
)
def test_a_wrong_command_is_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(wrong)
    assert "usage: calibcourse" in capsys.readouterr().err


def test_doctor_and_progress_give_their_status(monkeypatch):
    monkeypatch.setattr(doctor, "doctor", lambda: 1)
    assert cli.main(["doctor"]) == 1
    monkeypatch.setattr(progress, "main", lambda csv: 7 if csv else 3)
    assert [cli.main(["progress"]), cli.main(["progress", "--csv"])] == [3, 7]


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    return err


def test_outside_a_course_the_message_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (["build"], ["build", "--check"], ["publish", "--undo"]):
        assert cli.main(command) == 2
        assert "run this in the folder of the course" in one_line(capsys)


def test_build_finds_the_course_from_a_folder_within(course, monkeypatch, capsys):
    monkeypatch.chdir(course / "lessons")
    assert cli.main(["build", "09"]) == 2
    assert one_line(capsys) == ("calibcourse build: no lesson 09: solutions/ has sources for 01\n")
    source = course / "solutions/01_tiny.py"
    source.write_text("# %%\n## BEGIN SOLUTION\n")
    assert cli.main(["build"]) == 2
    assert one_line(capsys).startswith("calibcourse build: 01_tiny.py:2: '## BEGIN SOLUTION'")


def test_check_tells_differences_and_broken_rules(built_course, monkeypatch, capsys):
    monkeypatch.chdir(built_course)
    assert cli.main(["build", "--check"]) == 1
    printed = capsys.readouterr().out
    # A tiny lesson is no lesson; with those two rules aside, all is well.
    assert all("code cells" in line or "words" in line for line in printed.splitlines())
    (built_course / "README.md").write_text("")
    (built_course / "lessons/01_tiny.ipynb").unlink()
    assert cli.main(["build", "--check"]) == 1
    printed = capsys.readouterr().out
    assert "01_tiny.ipynb is missing" in printed and "README.md must hold" in printed


def test_publish_and_undo(built_course, monkeypatch, capsys):
    monkeypatch.chdir(built_course)
    readme = (built_course / "README.md").read_bytes()
    address = ["--repo", "https://github.com/ada/course", "--ref", "main"]
    assert cli.main(["publish", *address]) == 0
    printed = capsys.readouterr().out
    assert "README.md\n" in printed and "git push origin HEAD:main" in printed
    assert printed.index("git add") < printed.index("git commit") < printed.index("git push")
    assert (built_course / "README.md").read_bytes() != readme
    assert cli.main(["publish", "--undo"]) == 0
    assert (built_course / "README.md").read_bytes() == readme
    capsys.readouterr()
    for wrong in ([], address[:2], address[2:], [*address, "--undo"], ["--undo", *address[:2]]):
        assert cli.main(["publish", *wrong]) == 2
        assert "either both --repo URL and --ref REF, or --undo alone" in one_line(capsys)
    assert cli.main(["publish", "--repo", "x", "--ref", "main"]) == 2
    assert "repo must be" in one_line(capsys)

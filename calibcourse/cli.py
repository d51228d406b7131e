"""The command `calibcourse`: one subcommand, one function; what a command needs it imports itself.

To add a command: a function from parsed arguments to an exit status, a parser in `_parser`, and
`set_defaults(run=...)`.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import __version__

_EPILOG = """\
environment:
  CALIBCOURSE_PROFILE   quick (default) or full: the length of experiments in lessons
  CALIBCOURSE_DATA      folder of downloaded data sets; default: .data in the course's folder
  CALIBCOURSE_PROGRESS  file of the exercises' results; default: .calibcourse/progress.json there
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words after `calibcourse`; None takes them from the command line.

    Returns:
        0 when all is well, 1 when a check found something, 2 when the command could not do its
        work; then one line on stderr says why.
    """
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()  # here, where what goes wrong is caught
        return status
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"calibcourse {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    from .audit.cli import add_arguments as add_audit_arguments
    from .reproduce.cli import add_arguments as add_reproduce_arguments

    parser = argparse.ArgumentParser(
        prog="calibcourse",
        description="Too sharp, too sure: tools of the course.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    start = commands.add_parser("start", help="copy the lessons to work/ and open JupyterLab there")
    start.add_argument("number", nargs="?", default="", metavar="NN", help="lesson; default: 00")
    start.add_argument("--no-lab", action="store_true", help="only copy")
    start.set_defaults(run=_start)

    update = commands.add_parser("update", help="bring the course's new version into work/")
    update.add_argument("--no-pull", action="store_true", help="take what is in lessons/ as it is")
    update.set_defaults(run=_update)

    doctor = commands.add_parser("doctor", help="check this computer; one remedy per finding")
    doctor.set_defaults(run=_doctor)

    progress = commands.add_parser("progress", help="print which exercises are solved")
    progress.add_argument("--csv", action="store_true", help="as a table for an instructor")
    progress.set_defaults(run=_progress)

    group = commands.add_parser("class", help="where is a class stuck? from its progress files")
    group.add_argument("files", nargs="+", metavar="FILES", help="progress files, or folders")
    group.add_argument("--html", metavar="PATH", help="write a page: exercises, mistakes, students")
    group.add_argument("--csv", metavar="PATH", help="write a row per student and exercise")
    group.set_defaults(run=_class)

    grade = commands.add_parser("grade", help="check submitted notebooks, safely")
    grade.add_argument("folder", metavar="FOLDER", help="of NAME.ipynb or NAME/*.ipynb")
    grade.add_argument("--csv", metavar="PATH", help="write a row per student and exercise")
    grade.add_argument("--html", metavar="FOLDER", help="write a page per student")
    grade.add_argument("--jobs", type=_positive, metavar="N", help="notebooks at a time (cores)")
    grade.set_defaults(run=_grade)

    release = commands.add_parser("release", help="copy the course for a graded class")
    release.add_argument("--without-solutions", required=True, metavar="DIR", help="a new folder")
    release.set_defaults(run=_release)

    build = commands.add_parser("build", help="write and execute the notebooks from their sources")
    build.add_argument("numbers", nargs="*", metavar="NN", help="lessons; default: all")
    build.add_argument(
        "--check", action="store_true", help="only say what is out of step or breaks a rule"
    )
    build.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="lessons built at a time (1)"
    )
    build.set_defaults(run=_build)

    publish = commands.add_parser(
        "publish", help="stamp badges and the address to install from into notebooks and README"
    )
    publish.add_argument(
        "--repo", metavar="URL", help="https://github.com/OWNER/NAME, or of gitlab.com"
    )
    publish.add_argument("--ref", help="branch, tag or commit")
    publish.add_argument("--undo", action="store_true", help="take the address out again")
    publish.set_defaults(run=_publish)

    site = commands.add_parser("site", help="make a static site of the course")
    site.add_argument("--out", metavar="DIR", default="artefacts/site", help="(%(default)s)")
    site.set_defaults(run=_site)

    kit = commands.add_parser("kit", help="make a page to teach a lesson from")
    kit.add_argument("number", metavar="NN", help="lesson")
    kit.add_argument("--out", metavar="PATH", help="the page (artefacts/kit_NN.html)")
    kit.set_defaults(run=_kit)

    audit = commands.add_parser("audit", help="the calibration of any model, from its logits")
    add_audit_arguments(audit)
    audit.set_defaults(run=_audit)

    reproduce = commands.add_parser("reproduce", help="run the sweep behind a figure or a table")
    add_reproduce_arguments(reproduce)
    reproduce.set_defaults(run=_reproduce)
    return parser


def _start(options: argparse.Namespace) -> int:
    from .course.workspace import start

    return start(_course_folder(), options.number, lab=not options.no_lab)


def _update(options: argparse.Namespace) -> int:
    from .course.workspace import update

    return update(_course_folder(), pull=not options.no_pull)


def _doctor(options: argparse.Namespace) -> int:
    from .course.doctor import doctor

    return doctor()


def _progress(options: argparse.Namespace) -> int:
    from .course.progress import main

    return main(csv=options.csv)


def _class(options: argparse.Namespace) -> int:
    from .course.class_report import class_report

    return class_report(options.files, options.html, options.csv)


def _grade(options: argparse.Namespace) -> int:
    from .course.grade import grade

    return grade(options.folder, options.csv, options.html, options.jobs)


def _release(options: argparse.Namespace) -> int:
    from .course.release import release

    copied = release(_course_folder(), Path(options.without_solutions))
    print(f"{options.without_solutions} holds {', '.join(copied)}; solutions are shut")
    return 0


def _build(options: argparse.Namespace) -> int:
    root = _source_folder()
    if not options.check:
        from .course.build import build

        build(root, options.numbers, options.jobs)
    problems = _problems(root, options.numbers)
    print(*problems or ["in step with the sources, all rules kept"], sep="\n")
    return 1 if problems else 0


def _problems(root: Path, numbers: Sequence[str]) -> list[str]:
    from .course.build import check
    from .course.publish import readme_differs
    from .course.rules import broken_rules

    readme = [] if numbers else readme_differs(root)
    return check(root, numbers) + readme + broken_rules(root, numbers)


def _publish(options: argparse.Namespace) -> int:
    from .course.bootstrap import parse_address
    from .course.publish import first_lesson, publish, unpublish

    root = _source_folder()
    if options.undo and not (options.repo or options.ref):
        changed = unpublish(root)
    elif options.repo and options.ref and not options.undo:
        changed = publish(root, options.repo, options.ref)
    else:
        raise ValueError("either both --repo URL and --ref REF, or --undo alone")
    print(*changed or ["nothing to change"], sep="\n")
    if changed and not options.undo:
        print("\nNext, in this order:")
        print("  git add -A")
        print(f'  git commit -m "Published as {options.ref}"')
        print(f"  git push origin HEAD:{options.ref}")
        print("then the badges in README.md lead there.")
        print("\nFor a JupyterHub with nbgitpuller, its address followed by")
        print(f"  {parse_address(options.repo, options.ref).pull_link(first_lesson(root))}")
    return 0


def _site(options: argparse.Namespace) -> int:
    with _extra("site"):
        from .course.site import site

    site(_source_folder(), Path(options.out))
    return 0


def _kit(options: argparse.Namespace) -> int:
    from ._files import write_atomically

    with _extra("site"):
        from .course.kit import kit

    path = Path(options.out or f"artefacts/kit_{options.number}.html")
    text = kit(_source_folder(), options.number)
    write_atomically(path, text.encode())
    print(f"wrote {path}")
    return 0


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Name the remedy where a package of an optional extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"needs {error.name}, which is not installed: run `pip install -e '.[{name}]'`"
        ) from None


def _audit(options: argparse.Namespace) -> int:
    from .audit.cli import run

    return run(options)


def _reproduce(options: argparse.Namespace) -> int:
    from .reproduce.cli import run

    return run(options)


def _course_folder() -> Path:
    from .exercises.store import course_folder

    folder = course_folder()
    if folder is None:
        raise ValueError(f"run this in the folder of the course; {Path.cwd()} is outside one")
    return folder


def _source_folder() -> Path:
    folder = _course_folder()
    if not (folder / "solutions").is_dir():
        raise ValueError(f"{folder} holds no sources of lessons: it is a copy without solutions")
    return folder


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, got {text!r}")
    return int(text)

"""The sources of the site's pages, and Sphinx, which makes HTML of them.

Sphinx with MyST-NB reads notebooks and Markdown as they are stored, its autodoc and viewcode make
the reference and show the sources, and Furo is a theme that fetches nothing from elsewhere.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Callable
from html import escape
from importlib import import_module, resources
from pathlib import Path
from types import FunctionType

import nbformat
from sphinx.application import Sphinx
from sphinx.util.console import strip_escape_sequences
from sphinx.util.docutils import docutils_namespace, patch_docutils

from ..build import read_notebook
from ..kit import kit
from ..source import SOLUTION, course_map, find_sources, notebook_path
from .explorers import MOVING, film, moving_html
from .font import math_font
from .lessons import FIGURES, lesson_page, without_remote_pictures

EXPLORERS = "explorers"  # the folder of their pictures, within `_static`
MARK = ".buildinfo"  # Sphinx's, by which a site is known
_HERE = "calibcourse.course.site"
_BENCHMARKS = Path(".github/benchmarks.md")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.S)
_TITLE = re.compile(r"(?m)^# # (.+)$")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_NAMES = (
    ('<aside class="sidebar-drawer"', 'aria-label="All pages"'),
    ('<aside class="toc-drawer"', 'aria-label="On this page"'),
    ('<p class="caption" role="heading"', 'aria-level="2"'),
)
_OPTIONS = {
    "extensions": [
        "myst_nb",
        "sphinx.ext.autodoc",
        "sphinx.ext.napoleon",
        "sphinx.ext.viewcode",
        "sphinx.ext.githubpages",
        f"{_HERE}.extension",
    ],
    "html_theme": "furo",
    "html_math_renderer": "mathml",
    "html_css_files": ["site.css"],
    "html_js_files": [("site.js", {"defer": "defer"})],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_copyright": False,
    "pygments_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "myst",
    "myst_enable_extensions": ["dollarmath", "html_image"],
    "default_role": "code",  # docstrings mark code by single backticks
    "autodoc_member_order": "bysource",
    "autodoc_preserve_defaults": True,
    "napoleon_use_ivar": True,
    "add_module_names": False,
    "language": "en",
}


def site(root: Path, out: Path, log: Callable[[str], None] = print) -> None:
    """Write the site of a course.

    Args:
        root: the folder that holds `lessons/` and `solutions/`, built.
        out: a new or empty folder, or an earlier site, which is replaced.
        log: told what Sphinx found amiss, and what was written.

    Raises:
        ValueError: `out` holds something else, or a notebook is missing.
        OSError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / MARK).exists():
        raise ValueError(f"{out} holds something that is no site: choose a new or an empty folder")
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch, "source"), Path(scratch, "site")
        title = write_sources(root, source)
        for line in run_sphinx(source, made, title).splitlines():
            log(line.replace(f"{source}/", ""))
        for page in made.rglob("*.html"):
            _write(page, repaired(page.read_text(encoding="utf-8")))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
    log(f"wrote {out / 'index.html'}")


def write_sources(root: Path, source: Path) -> str:
    """Everything that Sphinx reads, and the title of the course.

    Args:
        root: the folder of the course.
        source: a new folder.
    """
    lessons = find_sources(root)
    for path in lessons:
        _write_lesson(notebook_path(path, SOLUTION), source)
        target = source / "extra" / "teaching" / f"{path.stem}.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(kit(root, path.name[:2]), encoding="utf-8")
    names = [path.stem for path in lessons]
    pages = ["theory"]
    theory = resources.files("calibcourse").joinpath("THEORY.md").read_text(encoding="utf-8")
    _write(source / "theory.md", theory)
    if (page := root / _BENCHMARKS).exists():
        text = _local(page.read_text(encoding="utf-8"), page.parent, source)
        _write(source / "benchmarks.md", text)
        pages.append("benchmarks")
    _write(source / "teaching.md", _teaching(lessons))
    modules = public_modules()
    for module in modules:
        _write(source / "reference" / f"{module}.rst", _reference(module))
    _write(source / "reference/index.md", _reference_index(modules))
    _write(source / "static/math.woff", math_font())
    title, introduction = _introduction(root, source)
    toctrees = (
        _toctree("Lessons", [f"lessons/{name}" for name in names])
        + _toctree("Teaching", ["teaching"])
        + _toctree("Behind it", [*pages, "reference/index"])
    )
    table = course_map(root / SOLUTION).replace("](", "](lessons/")
    _write(
        source / "index.md", f"# {title}\n\n{introduction}\n\n## The lessons\n\n{table}\n{toctrees}"
    )
    return title


def _write_lesson(path: Path, source: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} is missing: run `calibcourse build {path.name[:2]}`")

    def explorer(name: str) -> str | None:
        if name not in MOVING:
            return None
        make, moved = MOVING[name]
        html, pictures = moving_html(*film(make(), moved), f"../_static/{EXPLORERS}")
        for file, png in pictures.items():
            _write(source / "static" / EXPLORERS / file, png)
        return html

    page = lesson_page(read_notebook(path), path.stem, explorer)
    folder = source / "lessons"
    for file, png in page.figures.items():
        _write(folder / FIGURES / file, png)
    _write(folder / path.name, nbformat.writes(page.notebook))


def run_sphinx(source: Path, made: Path, title: str) -> str:
    """Let Sphinx make the pages.

    Returns:
        Its warnings, a line each.
    """
    static = [str(resources.files(_HERE) / "static"), str(source / "static")]
    options = _OPTIONS | {
        "project": title,
        "html_title": title,
        "html_static_path": static,
        "html_favicon": f"{static[0]}/icon.svg",
        "html_extra_path": [str(source / "extra")],
        "exclude_patterns": ["extra", "static"],
    }
    # A file, as Sphinx expects it: settings of the theme are unknown where the others are read.
    _write(source / "conf.py", "".join(f"{key} = {value!r}\n" for key, value in options.items()))
    warnings = io.StringIO()
    with patch_docutils(), docutils_namespace():
        Sphinx(
            srcdir=source,
            confdir=source,
            outdir=made,
            doctreedir=source.parent / "doctrees",
            buildername="html",
            status=None,
            warning=warnings,
        ).build()
    return strip_escape_sequences(warnings.getvalue())


def repaired(page: str) -> str:
    """A page whose landmarks and headings, which Furo and Sphinx leave without, have names."""
    for part, attribute in _NAMES:
        page = page.replace(part, f"{part} {attribute}")
    return page


def public_modules() -> list[str]:
    """The modules of the package from which `import calibcourse` takes its names."""
    return sorted({thing.__module__.split(".")[1] for thing in _public().values()})


def _public() -> dict[str, object]:
    package = import_module("calibcourse")  # what is described, not what is used
    return {name: getattr(package, name) for name in package.__all__}


def _introduction(root: Path, source: Path) -> tuple[str, str]:
    """The README's title, and what stands before its first section."""
    readme = root / "README.md"
    text = _COMMENT.sub("", readme.read_text(encoding="utf-8")).partition("\n## ")[0]
    title, _, rest = text.strip().partition("\n")
    return title.removeprefix("# "), _local(rest.strip(), readme.parent, source)


def _local(text: str, folder: Path, source: Path) -> str:
    """Markdown of the repository for the site: its pictures come along, other links are text."""

    def link(found: re.Match) -> str:
        picture, words, target = found.groups()
        if "://" in target or re.fullmatch(r"lessons/\w+\.ipynb", target):
            return found[0]
        if picture:
            file = Path(FIGURES, Path(target).name)
            _write(source / file, (folder / target).read_bytes())
            return f"![{words}]({file.as_posix()})"
        return words

    return _LINK.sub(link, without_remote_pictures(text))


def _teaching(lessons: list[Path]) -> str:
    titles = (_TITLE.search(path.read_text(encoding="utf-8"))[1] for path in lessons)
    items = "\n".join(
        f'<li><a href="teaching/{path.stem}.html">{escape(title)}</a></li>'
        for path, title in zip(lessons, titles, strict=True)
    )
    return (
        "# Teaching kits\n\nFor each lesson one page to print or to project: a plan of 90 minutes, "
        "the questions to predict, the mistakes of each exercise with the sentence that helps, and "
        "a slide per figure. `calibcourse kit NN` makes the same page.\n\n"
        f"```{{raw}} html\n<ul>\n{items}\n</ul>\n```\n"
    )


def _reference(module: str) -> str:
    name = f"calibcourse.{module}"
    text = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {name}\n   :members:\n"
    for public, thing in _public().items():
        instance = not isinstance(thing, type | FunctionType)
        if instance and thing.__module__ == name:  # its value would be an address in memory
            text += f"\n.. autodata:: {name}.{public}\n   :no-value:\n"
    return text


def _reference_index(modules: list[str]) -> str:
    return (
        "# Reference\n\nWhat `import calibcourse as cc` names, by module. Logits come first"
        " and are always logits. *[source]* beside a name leads to its code.\n\n"
        + _toctree("", modules, hidden=False)
    )


def _toctree(caption: str, pages: list[str], hidden: bool = True) -> str:
    options = [":maxdepth: 1", *([f":caption: {caption}"] if caption else [])]
    options += [":hidden:"] if hidden else []
    return "\n```{toctree}\n" + "\n".join([*options, "", *pages]) + "\n```\n"


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

"""The floors of the package: who imports whom, and the picture of it in the contributors' page.

`python tests/floors.py` draws the picture anew, from `[tool.calibcourse.floors]` in pyproject.toml
and the import statements; tests/test_layers.py holds it to both.
"""

import ast
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / ".github" / "CONTRIBUTING.md"
TOP = {"__init__", "__main__"}  # they stand above every floor
OPEN, CLOSE = "<!-- floors -->\n", "<!-- /floors -->"


def read_floors() -> dict[str, int]:
    """Floor by module or subpackage."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["tool"]["calibcourse"]["floors"]


def targets(node: ast.AST, package: str, inside: Path) -> list[str]:
    """The modules of `package` (first level) that an import statement reaches."""
    if isinstance(node, ast.Import):
        dotted = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        above = list(inside.parts[: len(inside.parts) - node.level])
        prefix = ".".join([package, *above] if node.level else [])
        base = ".".join(part for part in (prefix, node.module) if part)
        dotted = [f"{base}.{alias.name}" for alias in node.names]
    else:
        return []
    names = [name.split(".") for name in dotted]
    return [name[1] if len(name) > 1 else "__init__" for name in names if name[0] == package]


def imports(package: Path) -> dict[str, set[str]]:
    """For each module or subpackage of a package those of the others that it imports."""
    used: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        inside = path.relative_to(package)
        module = inside.parts[0].removesuffix(".py")
        if module not in TOP:
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            found = {target for node in tree for target in targets(node, package.name, inside)}
            used[module] = used.get(module, set()) | found
    return {module: (found & used.keys()) - {module} for module, found in used.items()}


def without_detours(used: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without the imports that follow from others: of a → b, b → c and a → c the last."""

    def below(module: str) -> set[str]:
        return used[module].union(*map(below, used[module]))

    return {
        module: found - set().union(*(below(other) for other in found))
        for module, found in used.items()
    }


def picture(floors: Mapping[str, int], used: Mapping[str, set[str]]) -> str:
    """A Mermaid diagram: the highest floor first, an arrow from a module to one that it imports."""
    lines = ["```mermaid", "flowchart TD"]
    for floor in sorted(set(floors.values()), reverse=True):
        modules = sorted(module for module, its_floor in floors.items() if its_floor == floor)
        lines += [f'  subgraph floor{floor}["{floor}"]', *(f"    {m}" for m in modules), "  end"]
    for module, found in sorted(without_detours(used).items()):
        lines += [f"  {module} --> {other}" for other in sorted(found)]
    return "\n".join([*lines, "```", ""])


def page_with(page: str, drawn: str) -> str:
    """The contributors' page with this picture between its two markers."""
    before, opened, rest = page.partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    if not (opened and closed):
        raise ValueError(f"{PAGE.name} must hold {OPEN.strip()} and, after it, {CLOSE}")
    return f"{before}{OPEN}{drawn}{CLOSE}{after}"


if __name__ == "__main__":
    drawn = picture(read_floors(), imports(ROOT / "calibcourse"))
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), drawn), encoding="utf-8")

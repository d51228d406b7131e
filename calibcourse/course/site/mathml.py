"""The site's formulas are MathML: a renderer for Sphinx."""

from docutils import nodes
from sphinx.application import Sphinx

from ..formulas import mathml


def _inline(translator, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator, node: nodes.math_block) -> None:
    # A long formula is scrolled within its own line, by keyboard too.
    opened = '<div class="formula" role="group" aria-label="formula" tabindex="0">'
    translator.body.append(f"{opened}{mathml(node.astext(), display=True)}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

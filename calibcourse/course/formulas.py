"""TeX to MathML when a page is made: every browser shows it, without a script or a font."""

from html import escape

from latex2mathml.converter import convert


def mathml(tex: str, display: bool = False) -> str:
    """A formula as MathML, which keeps its TeX as an annotation.

    Args:
        tex: between the dollars.
        display: on a line of its own.

    Example:
        >>> "<mi>p</mi>" in mathml("p")
        True
    """
    tex = tex.strip()
    made = convert(tex, display="block" if display else "inline")
    head, _, tail = made.partition("><mrow>")
    content, _, _ = tail.rpartition("</mrow></math>")
    source = f'<annotation encoding="application/x-tex">{escape(tex)}</annotation>'
    return f"{head}><semantics><mrow>{content}</mrow>{source}</semantics></math>"

"""The font of the formulas: a phone may have none with the tables that MathML is laid out by."""

import io
from importlib import resources

from fontTools import subset
from fontTools.ttLib import TTFont

# Letters, digits and signs; Greek; arrows, operators, brackets; the italic, bold, script and
# double-struck alphabets of mathematics, to which MathML maps a variable's plain letter.
_CHARACTERS = (
    (0x20, 0x7E), (0xB1, 0xB7), (0xD7, 0xD7), (0x2C6, 0x2DD), (0x300, 0x33F), (0x391, 0x3F6),
    (0x2010, 0x2044), (0x2113, 0x211D), (0x2190, 0x21D5), (0x2200, 0x22FF), (0x2308, 0x230B),
    (0x23DC, 0x23E1), (0x27E8, 0x27E9), (0x1D400, 0x1D467), (0x1D49C, 0x1D4CF),
    (0x1D538, 0x1D56B), (0x1D6E2, 0x1D71B),
)  # fmt: skip


def math_font() -> bytes:
    """The part of STIX Two Math (SIL Open Font License, in the file itself) that formulas use.

    Returns:
        A WOFF of some 160 kB; the font as it comes with ziamath has 1.5 MB.
    """
    source = resources.files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"
    font = TTFont(io.BytesIO(source.read_bytes()))
    options = subset.Options()
    options.name_IDs = ["*"]  # the licence among them
    options.layout_features = ["ssty"]  # indices are drawn sturdier
    options.hinting = False
    made = subset.Subsetter(options)
    made.populate(unicodes=[c for low, high in _CHARACTERS for c in range(low, high + 1)])
    made.subset(font)
    font.flavor = "woff"
    written = io.BytesIO()
    font.save(written)
    return written.getvalue()

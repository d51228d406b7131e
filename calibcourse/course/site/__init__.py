"""`calibcourse site`: the course as a static site that needs no kernel and asks nobody.

`generate.py` writes the pages' sources and lets Sphinx make HTML of them; `lessons.py` turns a
stored notebook into a page, `explorers.py` an explorer into pictures behind sliders,
and `font.py` cuts the font of the formulas out of a larger one.
"""

from .generate import site

__all__ = ["site"]

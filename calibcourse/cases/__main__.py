"""`python -m calibcourse.cases FOLDER`: make the three files and their record anew."""

import sys
from pathlib import Path

from .make import make

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m calibcourse.cases FOLDER")
    make(Path(sys.argv[1]))

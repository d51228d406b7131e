"""The command `calibcourse audit`."""

import argparse
import json
from pathlib import Path

import torch

from .scores import KINDS

_EPILOG = """\
files:
  .npz          numpy.savez("model.npz", logits=..., target=...): (N, K) and (N,)
  .npy          scores alone, with --labels FILE
  .csv .tsv     a first line of names; the column named target holds the labels
  .pt           a dict of tensors, as torch.save writes it
  .safetensors  tensors by name; needs the package safetensors

exit status:
  0  no miscalibration seen; of two files: they tie
  1  miscalibrated, as a whole or in more classes than chance explains; or accuracy near
     chance; of two files: they differ
  2  the file is refused; one line on stderr says why
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", help="scores and labels of a model")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="a second model's, to compare")
    parser.add_argument("--scores", choices=KINDS, help="what the scores are, where in doubt")
    parser.add_argument("--labels", metavar="FILE", help="a file of the labels alone")
    parser.add_argument("--figure", metavar="PNG", help="also draw reliability and margins")
    parser.add_argument("--html", metavar="PAGE", help="also write one self-contained page")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead")


def run(options: argparse.Namespace) -> int:
    """Read, audit or compare, print; the exit status is that of the help text."""
    from .._files import write_atomically
    from ..plots import png_bytes
    from . import audit, audit_figure, compare_audits, read_logits
    from .page import audit_page

    written = [path for path in (options.figure, options.html) if path]
    if options.other and (written or options.json):
        raise ValueError("--figure, --html and --json take one file")
    logits, target = read_logits(options.file, options.scores, options.labels)
    if options.other:
        second, others = read_logits(options.other, options.scores, options.labels)
        if not torch.equal(target, others):
            raise ValueError("both files must hold the same labels in the same order")
        compared = compare_audits(logits, second, target)
        print(compared)
        return int(compared.differ)

    found = audit(logits, target, progress=True)
    print(json.dumps(found.to_dict()) if options.json else found)
    if written:
        picture = png_bytes(audit_figure(logits, target, found.floor))
        if options.figure:
            write_atomically(options.figure, picture)
        if options.html:
            page = audit_page(Path(options.file).name, found, picture)
            write_atomically(options.html, page.encode())
        if not options.json:
            print(*(f"wrote {path}" for path in written), sep="\n")
    return int(found.miscalibrated or found.uneven or found.near_chance)

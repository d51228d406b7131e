"""The pictures that a notebook holds, with what they say to those who cannot see them."""

import base64

from nbformat import NotebookNode


def pictures(notebook: NotebookNode) -> list[tuple[str, bytes]]:
    """Alternative text, empty where there is none, and PNG of each, in order."""
    return [
        (
            output.get("metadata", {}).get("image/png", {}).get("alt", ""),
            base64.b64decode(output["data"]["image/png"]),
        )
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]

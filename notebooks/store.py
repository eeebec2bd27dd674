"""Runs the scripts as notebooks and stores the notebooks with their output.

`python notebooks/store.py` runs all of them, in some ten minutes on two cores;
`python notebooks/store.py 02_mnist` runs one. Pictures are stored with 256 colors.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
import sys

import jupytext
import nbclient
from nbformat import NotebookNode
from PIL import Image

from alphaopt_jax.plotting import _style as style

_FOLDER = Path(__file__).parent


def store(script: Path) -> None:
    """Runs a script as a notebook, and writes the notebook beside it."""
    notebook = jupytext.read(script)
    # The script imports the package of this checkout, whichever version is installed.
    paths = [str(_FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        coalesce_streams=True,  # Otherwise each state of a progress bar is stored.
        record_timing=False,
        resources={"metadata": {"path": str(_FOLDER)}},
    ).execute(env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))})
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            _make_small(output)
    jupytext.write(notebook, script.with_suffix(".ipynb"))


def _make_small(output: NotebookNode) -> None:
    """Reduces a picture to 256 colors, like the pictures of results."""
    if "image/png" not in output.get("data", {}):
        return
    with Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))) as picture:
        ground = Image.new("RGBA", picture.size, "white")
        image = Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")
    small = io.BytesIO()
    quantized = image.quantize(palette=style.palette(image), dither=Image.Dither.NONE)
    quantized.save(small, format="png", optimize=True)
    output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in _FOLDER.glob("[0-9]*.py")):
        print(f"Running {name} ...", flush=True)
        store(_FOLDER / f"{name}.py")

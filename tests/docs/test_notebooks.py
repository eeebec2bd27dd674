"""Notebooks run from top to bottom at reduced length, and match their scripts."""

import os
import pathlib
import re

import jupytext
import nbclient
import nbformat
import pytest

_FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
_NOTEBOOKS = sorted(_FOLDER.glob("*.ipynb"))
# The others take half a minute or more.
_RUN = [
    pytest.param(path, marks=[] if path.stem == "01_landscapes" else pytest.mark.nightly)
    for path in _NOTEBOOKS
]


def test_there_are_notebooks():
    assert len(_NOTEBOOKS) == 5


@pytest.mark.parametrize("path", _RUN, ids=lambda path: path.stem)
# Deprecations inside the client's libraries are not ours; the kernel is a separate process.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHAOPT_NOTEBOOK_QUICK", "1")
    search_path = [str(_FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, search_path)))
    notebook = nbformat.read(path, as_version=4)
    (tmp_path / "benchmarks").symlink_to(_FOLDER.parent / "benchmarks")  # Some read its results.
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    ).execute()
    pictures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert pictures


@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_matches_its_script(path):
    script = jupytext.read(path.with_suffix(".py"))
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    assert sources == [cell.source for cell in script.cells]


@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_output_has_pictures_no_errors_and_no_local_paths(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    texts = [output.get("text", "") for output in outputs]
    texts += [
        content
        for output in outputs
        for kind, content in output.get("data", {}).items()
        if kind.startswith("text/")
    ]

    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    for text in texts:
        assert not re.search(r"""(?:^|[\s"'(>])(?:/[\w.-]+){2,}""", text), text

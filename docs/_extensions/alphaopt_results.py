"""Writes the pages of results and the gallery from files that are stored in the repository.

`docs/findings/` has the text and summary tables of each benchmark, `benchmarks/results/` the full
page that each benchmark wrote. Notebooks are shown with their stored output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import json
from pathlib import Path
import re
from typing import TYPE_CHECKING, Any

import alphaopt_reference

from benchmarks import readme
from benchmarks.common import results

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_MARKER = re.compile(r"<!-- include-if-present: (?P<file>[\w.]+) -->")
_STORED = "../../benchmarks/results/"  # The results files, seen from a page of findings.
_PICTURES = (".png", ".gif")
_FIRST = (
    "zero_tuning",
    "mnist",
    "ablations",
    "cost",
    "online_learning",
    "robustness",
    "landscapes",
)
_CLAIMS = "claims"


def results_pages(folder: Path = results.RESULTS) -> dict[str, str]:
    """Returns the generated pages, from file names to texts; `index.md` is one of them."""
    texts = {path.name: path.read_text() for path in sorted(folder.glob("*.md"))}
    findings = {path.stem: path.read_text() for path in sorted(readme.FINDINGS.glob("*.md"))}
    order = [name for name in _FIRST if name in findings]
    order += [name for name in findings if name not in (*order, _CLAIMS)]
    lines = [
        "# Results",
        "",
        "Every figure is read from a file that a benchmark wrote. A page of findings has the",
        "conclusions and summary tables; the full page has every figure.",
        "",
        f"All claims and whether they hold: [claims](../findings/{_CLAIMS}.md).",
    ]
    for name in order:
        lines += ["", *_entry(name, findings[name], texts, folder)]
    lines += ["", "## Full pages and records", ""]
    lines += [f"- [{_title(text)}]({name})" for name, text in texts.items()]
    lines += ["", *_toctree(f"../findings/{name}" for name in (*order, _CLAIMS))]
    lines += ["", *_toctree(Path(name).stem for name in texts), ""]
    return {**texts, "index.md": "\n".join(lines)}


def _entry(name: str, finding: str, texts: Mapping[str, str], folder: Path) -> Iterator[str]:
    """A benchmark's heading, its links, and the command, date and hardware of its results file."""
    yield f"## [{_title(finding)}](../findings/{name}.md)"
    path = folder / f"{name}.json"
    if f"{name}.md" not in texts or not path.exists():
        return
    content = json.loads(path.read_text())
    versions = ", ".join(f"{package} {version}" for package, version in content["versions"].items())
    seeds = len(content["seeds"])
    yield ""
    yield (
        f"[Full page]({name}.md). `{content['command']}`, {content['date'][:10]},"
        f" {content['hardware']}; {seeds} seed{'' if seeds == 1 else 's'}; {versions}."
    )


def _title(text: str) -> str:
    """The heading of a page, which is its first line."""
    return text.splitlines()[0].removeprefix("# ").strip()


def _toctree(entries: Iterable[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", "", *entries, "```"]


def gallery_index(paths: list[Path]) -> str:
    """Returns the page that links to the notebooks."""
    lines = [
        "# Notebooks",
        "",
        "Shown with their stored output; a build of these pages does not run them.",
        "",
        "```{toctree}",
        ":maxdepth: 1",
        "",
        *(path.stem for path in paths),
        "```",
        "",
    ]
    return "\n".join(lines)


def notebooks() -> list[Path]:
    """Returns the paths of the notebooks, in order."""
    return sorted((readme.README.parent / "notebooks").glob("*.ipynb"))


def _write_pages(app: Sphinx) -> None:
    folder = results.RESULTS
    pictures = {
        str(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.suffix in _PICTURES and "quick" not in path.parts
    }
    alphaopt_reference.fill(Path(app.srcdir) / "results", {**pictures, **results_pages()})
    alphaopt_reference.fill(
        Path(app.srcdir) / "gallery",
        {"index.md": gallery_index(notebooks()), **{path.name: path for path in notebooks()}},
    )


def include_if_present(text: str, folder: Path = results.RESULTS) -> str:
    """Inserts a stored results page at its marker.

    Args:
      text: A page in a folder beside `results/`.
      folder: Folder of the results files.

    Returns:
      The page with the results, their headings two levels lower, or with a note if there are none.
    """

    def replace(match: re.Match[str]) -> str:
        path = folder / match["file"]
        if not path.exists():
            return "The results of this benchmark are not in the repository yet."
        lower = re.sub("^(?=#+ )", "##", path.read_text(), flags=re.MULTILINE)
        return re.sub(r"\]\((?!https?:|#)", "](../results/", lower)

    return _MARKER.sub(replace, text)


def _on_source_read(app: Sphinx, name: str, source: list[str]) -> None:
    """Inserts stored pages, and links pages of findings to the copies of results in the site."""
    del app
    source[0] = include_if_present(source[0])
    if name.startswith("findings/"):
        source[0] = source[0].replace(f"]({_STORED}", "](../results/")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _on_source_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Makes the pages of results and the gallery from the files that are stored in the repository.

Nothing on them is typed by hand: figures come from `benchmarks/results`, by the same functions that
fill in the README, and notebooks are shown with the output that they are stored with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
_PICTURES = (".png", ".gif")
_FIRST = ("zero_tuning", "mnist", "cost", "online_learning", "landscapes", "l2l")


def results_pages(folder: Path = results.RESULTS) -> dict[str, str]:
    """The pages of results, from their paths to their text; `index.md` is one of them."""
    texts = {path.name: path.read_text() for path in sorted(folder.glob("*.md"))}
    contents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    contents = {name: content for name, content in contents.items() if "command" in content}
    order = [name for name in _FIRST if name in contents]
    order += [name for name in contents if name not in order]
    lines = [
        "# Results",
        "",
        "Every figure is read from a file that a benchmark wrote. The heading of each section",
        "leads to the whole page with its pictures.",
    ]
    for name in order:
        lines += ["", *_section(name, contents[name], texts, folder)]
    lines += ["", "## Claims", "", _summary("claims", folder)]
    records = {name: _title(text) for name, text in texts.items() if Path(name).stem not in order}
    if records:
        lines += ["", "## Records", ""]
        lines += [f"- [{title}]({name})" for name, title in records.items()]
    lines += ["", "```{toctree}", ":hidden:", "", *(Path(name).stem for name in texts), "```", ""]
    return {**texts, "index.md": "\n".join(lines)}


def _section(
    name: str, content: Mapping[str, Any], texts: Mapping[str, str], folder: Path
) -> Iterator[str]:
    title = _title(texts.get(f"{name}.md", name))
    yield f"## [{title}]({name}.md)" if f"{name}.md" in texts else f"## {title}"
    yield ""
    versions = ", ".join(f"{package} {version}" for package, version in content["versions"].items())
    seeds = len(content["seeds"])
    yield (
        f"`{content['command']}`, {content['date'][:10]}, {content['hardware']};"
        f" {seeds} seed{'' if seeds == 1 else 's'}; {versions}."
    )
    for section in _sections_of(name):
        yield ""
        yield _summary(section, folder)


def _title(text: str) -> str:
    """Of a page: its first line."""
    return text.splitlines()[0].removeprefix("# ").strip()


def _sections_of(name: str) -> list[str]:
    """The README's sections about a benchmark."""
    known = re.findall(r"<!-- results: (\w+) -->", readme.README.read_text())
    return [each for each in known if each == name or re.fullmatch(rf"{name}_\d+", each)]


def _summary(section: str, folder: Path) -> str:
    filled = readme.render(f"<!-- results: {section} -->\n<!-- end -->", folder)
    return filled.partition("-->\n")[2].rpartition("<!-- end -->")[0]


def gallery_index(paths: list[Path]) -> str:
    """The page that leads to the notebooks."""
    lines = [
        "# Notebooks",
        "",
        "Shown with the output that they are stored with; building these pages does not run them.",
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
    """The notebooks, in order."""
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
    """Puts a results page where a page of the documentation asks for it, if it is there.

    Args:
      text: A page that lies in a folder beside that of the results.
      folder: Where the results files are.

    Returns:
      The page, with the results under headings two levels lower.
    """

    def replace(match: re.Match[str]) -> str:
        path = folder / match["file"]
        if not path.exists():
            return "The results of this benchmark are not in the repository yet."
        lower = re.sub("^(?=#+ )", "##", path.read_text(), flags=re.MULTILINE)
        return re.sub(r"\]\((?!https?:|#)", "](../results/", lower)

    return _MARKER.sub(replace, text)


def _include(app: Sphinx, name: str, source: list[str]) -> None:
    del app, name
    source[0] = include_if_present(source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _include)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

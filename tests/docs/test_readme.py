"""README, CONTRIBUTING and the findings: size, tables, snippet, commands, links and paths."""

import contextlib
import io
import re

import pytest

from benchmarks import readme
from benchmarks.common import results

_ROOT = readme.README.parent
_CONTRIBUTING = _ROOT / "CONTRIBUTING.md"
_LINKED = [*readme.pages(), _CONTRIBUTING, _ROOT / "CHANGELOG.md"]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")


def _text(path):
    return path.read_text(encoding="utf-8")


def _blocks(*languages):
    return [text for kind, text in _BLOCK.findall(_text(readme.README)) if kind in languages]


def _name(path):
    return str(path.relative_to(_ROOT))


def test_size():
    content = readme.README.read_bytes()
    assert len(content.splitlines()) <= 250
    assert len(content) <= 15_000


def test_at_most_three_pictures():
    assert 1 <= len(re.findall(r"!\[", _text(readme.README))) <= 3


def test_at_most_eight_rows_in_a_table_of_results():
    sections = re.findall(r"<!-- results: \w+ -->\n(.*?)<!-- end -->", _text(readme.README), re.S)
    tables = [section.splitlines() for section in sections if section.startswith("|")]
    assert len(tables) == 3
    assert all(len(rows) - 2 <= 8 for rows in tables)


@pytest.mark.parametrize("page", readme.pages(), ids=_name)
def test_tables_are_those_of_the_results_files(page):
    assert readme.render(_text(page)) == _text(page), "Run `python -m benchmarks.readme`."


def test_every_claim_is_listed():
    text = _text(readme.FINDINGS / "claims.md")
    assert all(claim["text"] in text for claim in results.read_claims())


def test_every_benchmark_has_a_page_of_findings():
    linked = "".join(_text(page) for page in readme.FINDINGS.glob("*.md"))
    for page in results.RESULTS.glob("*.md"):
        assert f"benchmarks/results/{page.name})" in linked, page.name


def test_the_snippet_runs_and_lowers_the_loss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(_blocks("python")[0], "README.md", "exec"), {"__name__": "readme"})
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", output.getvalue())]
    assert losses[-1] < 0.01 * losses[0]


# Tools run these two blocks as they are written.
@pytest.mark.parametrize(
    ("index", "extra", "command"),
    [
        (0, "benchmarks", ".venv/bin/python -m benchmarks.mnist"),
        (1, "tests", ".venv/bin/python -m pytest -q -n 2"),
    ],
)
def test_the_first_two_shell_blocks_are_the_main_job_and_the_tests(index, extra, command):
    assert _blocks("bash", "sh", "console")[index].splitlines() == [
        "python3 -m venv .venv",
        f'.venv/bin/pip install -q -e ".[{extra}]"',
        command,
    ]


def _anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(_BLOCK, "", text), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {each.replace(" ", "-") for each in words}


@pytest.mark.parametrize("page", _LINKED, ids=_name)
def test_relative_links_pictures_and_anchors_exist(page):
    for target in _LINK.findall(re.sub(_BLOCK, "", _text(page))):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(_text(file)), target


def _table_of_changes():
    """Paths in the last column of CONTRIBUTING's table, by change."""
    _, _, rest = _text(_CONTRIBUTING).partition("## Where to make a change")
    rows = [line.strip("|").split("|") for line in rest.partition("\n## ")[0].splitlines()]
    rows = [row for row in rows if len(row) == 2][2:]
    return {change.strip(): re.findall(r"`((?:\w+/)+[\w.]*)`", files) for change, files in rows}


def test_the_files_of_likely_changes_exist():
    changes = _table_of_changes()
    assert len(changes) >= 12
    for change, files in changes.items():
        assert files, change
        for file in files:
            assert (_ROOT / file).exists(), f"{change}: {file}"

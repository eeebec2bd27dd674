"""Code blocks run, relative links resolve, and the reference has every public name."""

import functools
from pathlib import Path
import re
import shutil
import subprocess
import sys

import alphaopt_constants
import alphaopt_reference
import alphaopt_results
import jax
import optax
import pytest

import alphaopt_jax

_DOCS = Path(__file__).parents[2] / "docs"
_PAGES = sorted(
    path
    for folder in (".", "how-to", "explanation", "findings", "contributing")
    for path in (_DOCS / folder).glob("*.md")
    if path.is_file()
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_RUN = [
    path
    for path in _PAGES
    if path.name == "tutorial.md"
    or path.parent.name == "how-to"
    or (path.parent.name == "contributing" and _BLOCK.search(path.read_text()))
]
# Compiling takes more than five seconds.
_SLOW = (
    "checkpoints.md",
    "choose-a-mode.md",
    "optax.md",
    "own-agent.md",
    "troubleshooting.md",
    "tutorial.md",
)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
_TOCTREE = re.compile(r"^```\{toctree\}\n(?::[^\n]*\n)*(.*?)^```", re.DOTALL | re.MULTILINE)


def _parameters():
    for path in _RUN:
        marks = [pytest.mark.slow] if path.name in _SLOW else []
        yield pytest.param(path, id=str(path.relative_to(_DOCS)), marks=marks)


@pytest.mark.parametrize("path", list(_parameters()))
# Other libraries use deprecated functions of each other.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_code_of_a_page_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    blocks = list(_BLOCK.finditer(text))
    assert blocks
    names = {"__name__": path.stem}
    for block in blocks:
        padding = "\n" * text.count(
            "\n", 0, block.start(1)
        )  # Tracebacks show line numbers of the page.
        exec(compile(padding + block[1], path, "exec"), names)


def _inline_calls():
    """Calls of `alphaopt` within sentences, without those that leave arguments open."""
    pages = "".join(path.read_text() for path in [_DOCS.parent / "README.md", *_PAGES])
    calls = set(re.findall(r"`(?:alphaopt\.)?(alphaopt\([^`]*\))`", _BLOCK.sub("", pages)))
    _, _, variants = (_DOCS / "how-to" / "choose-a-mode.md").read_text().partition("## Variants")
    calls |= {f"alphaopt({given})" for given in re.findall(r"^- `([^`]+)`", variants, re.MULTILINE)}
    return sorted(call for call in calls if "..." not in call)


def test_calls_within_sentences_are_found():
    assert {"alphaopt()", "alphaopt(1e-3)", "alphaopt(learning_rate=0.5)"} <= set(_inline_calls())


@pytest.mark.parametrize("call", _inline_calls())
@pytest.mark.filterwarnings("ignore:`learning_rate` is:UserWarning")
def test_calls_within_sentences_work(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = re.search(r'agent="([^"]+)"', call)
    if file:
        Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
        alphaopt_jax.save_agent(file[1], alphaopt_jax.load_agent("base"))

    tx = eval(call, {"optax": optax, **vars(alphaopt_jax)})

    params = {"w": jax.numpy.ones((3, 2))}
    updates, state = jax.eval_shape(lambda: tx.update(params, tx.init(params), params, value=1.0))
    assert updates["w"].shape == (3, 2)
    learns = "learn=True" in call or ("agent=None" in call and "learn=False" not in call)
    assert (state.learner is not None) == learns


@functools.cache
def _made():
    """Pages that exist only after a build."""
    return {
        *(_DOCS / "results" / name for name in alphaopt_results.results_pages()),
        *(_DOCS / "reference" / name for name in alphaopt_reference.pages()),
        _DOCS / "gallery" / "index.md",
    }


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: str(path.relative_to(_DOCS)))
def test_relative_links_lead_somewhere(path):
    text = path.read_text()
    targets = _LINK.findall(text)
    targets += [
        f"{entry}.md" for block in _TOCTREE.findall(text) for entry in block.split() if entry
    ]
    for target in targets:
        place = (path.parent / target).resolve()
        assert place.exists() or place in _made(), f"{path.name} links to {target}"


def test_every_page_is_in_the_table_of_contents():
    entries = " ".join(_TOCTREE.findall((_DOCS / "index.md").read_text())).split()
    pages = {str(path.relative_to(_DOCS).with_suffix("")) for path in _PAGES} - {"index"}
    findings = {page for page in pages if page.startswith("findings/")}  # In that of the results.
    assert pages - findings <= set(entries)


def test_constants_that_pages_name_exist():
    known = alphaopt_constants.substitutions()
    used = {name for path in _PAGES for name in re.findall(r"\{\{ (\w+) \}\}", path.read_text())}
    assert used == set(known)


@functools.cache
def _documented():
    directive = re.compile(r"\.\. (?:auto|py:)\w+:: ([\w.]+)(?:\n   :module: ([\w.]+))?")
    found = set()
    for text in alphaopt_reference.pages().values():
        for name, module in directive.findall(text):
            found.add(f"{module}.{name}" if module else name)
    # Sphinx also registers a class under the module that defines it.
    for name in alphaopt_reference.alphaopt_jax.__all__:
        thing = getattr(alphaopt_reference.alphaopt_jax, name)
        found.add(f"{thing.__module__}.{thing.__qualname__}")
    return found


def test_every_public_name_is_in_the_reference():
    assert alphaopt_reference.missing_names(_documented()) == []


@pytest.mark.parametrize(
    "name", ["alphaopt_jax.cli.main", "alphaopt_jax.evaluation.exponential_average"]
)
def test_a_name_that_is_missing_in_the_reference_is_reported(name):
    assert alphaopt_reference.missing_names(_documented() - {name}) == [name]


def test_private_modules_are_not_in_the_reference():
    assert not any("._" in name for name in alphaopt_reference.public_modules())


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    root = _DOCS.parent
    # A build writes its generated pages into the source folder.
    generated = shutil.ignore_patterns("_build", "gallery", "reference", "results")
    shutil.copytree(_DOCS, tmp_path / "docs", ignore=generated)
    for path in root.iterdir():
        if path != _DOCS and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "docs", "site"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    for page in ("index", "tutorial", "results/index", "gallery/index", "how-to/checkpoints"):
        assert (tmp_path / "site" / f"{page}.html").is_file()


def test_docstrings_in_markdown_become_restructured_text():
    convert = alphaopt_reference._to_restructured_text
    assert convert("within ±`bound`, of `Task`s, |x| or `|y|`") == (
        r"within ±\ ``bound``, of ``Task``\ s, \|x\| or ``|y|``"
    )


def test_a_results_page_is_included_where_it_is_there(tmp_path):
    page = "before\n<!-- include-if-present: some.md -->\nafter"

    without = alphaopt_results.include_if_present(page, tmp_path)
    (tmp_path / "some.md").write_text("# Some\n\n![It](some.png), [more](https://x.y)\n")
    with_it = alphaopt_results.include_if_present(page, tmp_path)

    assert "not in the repository yet" in without
    assert with_it == (
        "before\n### Some\n\n![It](../results/some.png), [more](https://x.y)\n\nafter"
    )


def test_results_are_shown_as_they_are_stored():
    pages = alphaopt_results.results_pages()
    folder = alphaopt_results.results.RESULTS
    for name in pages:
        assert name == "index.md" or pages[name] == (folder / name).read_text()
    for finding in alphaopt_results.readme.FINDINGS.glob("*.md"):
        assert f"../findings/{finding.name}" in pages["index.md"]

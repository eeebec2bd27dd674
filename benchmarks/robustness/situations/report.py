"""Rows, claims and table of the reported situations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import re
from typing import Any

from benchmarks.common import results
from benchmarks.robustness.situations.catalog import SITUATIONS, Situation
from benchmarks.robustness.situations.trainings import Figure

PART = "situation"
"""Value of "part" in the rows of the results file."""
HEADING = "## Reported situations: before and after"
CLAIM = "robustness.situations"
_COLUMNS = {
    "situation": "situation",
    "source": "reported in",
    "before": "before",
    "now": "now",
    "figure": "figure",
    "bar": "bar",
    "holds": "holds",
}
_KIN = "of the same kind"


def run(situation: Situation) -> dict[str, Any]:
    """Runs a situation.

    Args:
      situation: The situation.

    Returns:
      Its row. An error is an outcome that does not hold.
    """
    try:
        figure = situation.run()
    except Exception as error:  # What a user would see.
        figure = Figure(float("nan"), f"raises {type(error).__name__}")
    holds = results.Claim(CLAIM, situation.name, figure.value, situation.bar).holds
    return {
        "part": PART,
        "situation": situation.name,
        "source": situation.source,
        "before": situation.before,
        "now": figure.text,
        "figure": figure.value,
        "bar": situation.bar,
        "holds": holds,
    }


def rows() -> list[dict[str, Any]]:
    """Runs all situations, a few minutes; one row for each."""
    return [run(situation) for situation in SITUATIONS]


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """The claim: every situation has its right outcome."""
    found = of_situations(rows)
    failed = sum(not row["holds"] for row in found)
    text = (
        "situations that users of other optimizers reported, and others of the same kind, of"
        f" {len(found)}, without the right outcome"
    )
    return [results.Claim(CLAIM, text, failed, "== 0")]


def of_situations(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of situations among those of the results file."""
    return [row for row in rows if row.get("part") == PART]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per situation: the outcome before the fault was mended, and now."""
    lines = [
        dict(row) | {"source": row["source"] or _KIN, "holds": "yes" if row["holds"] else "**no**"}
        for row in of_situations(rows)
    ]
    return results.markdown_table(lines, _COLUMNS)


def section(rows: Sequence[Mapping[str, Any]]) -> str:
    """The part of the page beside the results file."""
    return f"""{HEADING}

What users of other optimizers reported, tried with AlphaOpt, and other situations of the same kind.
Each is a test too. The figure is what the bar is about; figures of several modes are the worst.

{table(rows)}"""


def replace(folder: Path) -> list[dict[str, Any]]:
    """Runs the situations alone and replaces them in the results file and its page.

    Args:
      folder: Folder of the results files, with those of a whole run.

    Returns:
      The rows of situations.
    """
    found = rows()
    path = folder / "robustness.json"
    content = json.loads(path.read_text())
    others = [row for row in content["rows"] if row.get("part") != PART]
    claims = [
        results.Claim(*(claim[key] for key in ("name", "text", "value", "bar")))
        for claim in content["claims"]
        if claim["name"] != CLAIM
    ]
    results.write(
        "robustness",
        rows=[*others, *found],
        claims=[*claims, *make_claims(found)],
        seeds=content["seeds"],
        command=content["command"],
        folder=folder,
    )
    page = folder / "robustness.md"
    page.write_text(with_section(page.read_text(), section(found)))
    return found


def with_section(page: str, section: str) -> str:
    """A page with the section of situations replaced, or added at its end.

    Example:
      >>> print(with_section("# Page", HEADING))
      # Page
      <BLANKLINE>
      ## Reported situations: before and after
    """
    old = re.compile(rf"\n*{re.escape(HEADING)}.*?(?=\n\n## |\Z)", re.DOTALL)
    return old.sub("", page).rstrip("\n") + "\n\n" + section

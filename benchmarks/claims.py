"""Prints every claim of every results file: `python -m benchmarks.claims`.

The exit status is 1 if a claim does not hold.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
import sys

from rich.console import Console
from rich.table import Table
import tyro

from benchmarks.common import results


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Claims to print.

    Attributes:
      folder: Folder of the results files.
    """

    folder: Path = results.RESULTS


def main(arguments: Arguments) -> int:
    """Prints the table; returns 0 if there are claims and all of them hold, else 1."""
    claims = results.read_claims(arguments.folder)
    table = Table(title=f"Claims in {arguments.folder}")
    for heading in ("", "name", "claim", "value", "bar"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for claim in claims:
        mark = "[green]holds[/]" if claim["holds"] else "[bold red]FAILS[/]"
        value = "–" if claim["value"] is None else f"{claim['value']:.5g}"
        table.add_row(mark, claim["name"], claim["text"], value, claim["bar"])
    Console().print(table)
    held = sum(claim["holds"] for claim in claims)
    Console().print(f"{held} of {len(claims)} claims hold.")
    return 0 if claims and held == len(claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

"""The results file of every benchmark: what was run, on what, what came out, what it proves.

Example:
  >>> claim = Claim("demo.accuracy", "the demo is accurate", value=0.991, bar=">= 0.989")
  >>> claim.holds
  True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
from importlib import metadata
import json
import math
import operator
import os
from pathlib import Path
import platform
from typing import Any

import jax

from alphaopt_jax._storage import atomic

RESULTS = Path(__file__).parents[1] / "results"
"""The folder of all results files."""

_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_PACKAGES = ("alphaopt-jax", "jax", "jaxlib", "optax", "flax", "rlax", "numpy")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A promise with the figure that keeps or breaks it.

    Attributes:
      name: Dotted, starting with the benchmark's name: "mnist.test_accuracy.online".
      text: One sentence for people.
      value: The measured figure. NaN never holds.
      bar: A comparison and a number, such as ">= 0.989".

    Raises:
      ValueError: If `bar` cannot be read.
    """

    name: str
    text: str
    value: float
    bar: str

    def __post_init__(self) -> None:
        """Refuses an unreadable bar where it is written, not when the results are read."""
        _parse_bar(self.bar)

    @property
    def holds(self) -> bool:
        """Whether the value meets the bar."""
        compare, threshold = _parse_bar(self.bar)
        return bool(compare(float(self.value), threshold))


def write(
    name: str,
    *,
    rows: Sequence[Mapping[str, Any]],
    claims: Sequence[Claim],
    seeds: Sequence[int],
    command: str,
    folder: Path = RESULTS,
) -> Path:
    """Writes `NAME.json`; whether the claims hold or not, they are written as they are.

    Args:
      name: The benchmark's name.
      rows: One mapping a line of the table; numpy and JAX scalars and arrays become plain ones, and
        non-finite numbers become null, since JSON has none.
      claims: The promises that the figures keep or break.
      seeds: All seeds that were run.
      command: What to type to run it again.
      folder: Where to write; made if missing.

    Returns:
      The file's path.
    """
    content = {
        "benchmark": name,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": _versions(),
        "hardware": _hardware(),
        "seeds": list(seeds),
        "rows": rows,
        "claims": [dataclasses.asdict(claim) | {"holds": claim.holds} for claim in claims],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"
    atomic.write(path, text.encode())
    return path


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table of some columns of the rows.

    Args:
      rows: As for `write`; a missing value or None shows as "–", a float with three digits.
      columns: From the key in a row to the column's heading, in order.

    Returns:
      The lines of the table, ending in a newline.

    Example:
      >>> print(markdown_table([{"a": 1, "b": 0.12345}], {"a": "A", "b": "B"}), end="")
      | A | B |
      | --- | --- |
      | 1 | 0.123 |
    """
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[cell(row.get(key)) for key in columns] for row in rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def read_claims(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All claims of all results files in `folder`, by benchmark, each with its "benchmark" added.

    `holds` is worked out again from value and bar: a file that was edited does not count.
    """
    claims = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for claim in content.get("claims", ()):
            value = math.nan if claim["value"] is None else claim["value"]
            holds = Claim(claim["name"], claim["text"], value, claim["bar"]).holds
            claims.append(claim | {"benchmark": content["benchmark"], "holds": holds})
    return claims


def _parse_bar(bar: str) -> tuple[Any, float]:
    sign, _, number = bar.partition(" ")
    try:
        return _COMPARISONS[sign], float(number)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"A bar is a comparison and a number, such as '>= 0.989', not {bar!r}."
        ) from error


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # Run from a checkout that was not installed.
            continue
    return versions


def _hardware() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processors = f"{cores} CPU core{'' if cores == 1 else 's'} ({platform.machine()})"
    if jax.default_backend() == "cpu":
        return processors
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}, {processors}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):  # numpy and JAX, scalars and arrays alike
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def cell(value: Any) -> str:
    """A value as a table shows it: floats short, None and what is not finite as "–"."""
    value = _plain(value)
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"

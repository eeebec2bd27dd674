"""The results file of a benchmark: command, versions, hardware, rows and claims.

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
    """A statement about a measured value, which holds if the value meets a bar.

    Attributes:
      name: Dotted name that starts with the benchmark's name, such as "mnist.test_accuracy".
      text: Description of the value.
      value: The measured value; NaN meets no bar.
      bar: A comparison and a number, such as ">= 0.989".

    Raises:
      ValueError: If `bar` is not a comparison and a number.
    """

    name: str
    text: str
    value: float
    bar: str

    def __post_init__(self) -> None:
        """Checks the bar when the claim is made, not when the results are read."""
        _parse_bar(self.bar)

    @property
    def holds(self) -> bool:
        """True if the value meets the bar."""
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
    """Writes `NAME.json`, with all claims, whether they hold or not.

    Args:
      name: The benchmark's name.
      rows: One mapping for each row of the table. Scalars and arrays of NumPy and JAX become plain
        numbers and lists; numbers that are not finite become null, since JSON has none.
      claims: The claims.
      seeds: All seeds that were run.
      command: The command that runs the benchmark again.
      folder: The folder of the file; made if it does not exist.

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
      rows: As for `write`; floats have three digits, and missing values are shown as "–".
      columns: Headings by the key in a row, in order.

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
    """All claims of all results files in `folder`, each with the name of its "benchmark" added.

    `holds` is computed from value and bar, not read from the file.
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
        except metadata.PackageNotFoundError:  # A checkout that is not installed.
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
    """A value as text in a table: floats rounded, None and numbers that are not finite as "–"."""
    value = _plain(value)
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"

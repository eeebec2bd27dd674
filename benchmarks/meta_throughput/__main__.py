"""Throughput of meta-training: environment steps per second, and where the time goes.

`python -m benchmarks.meta_throughput --label NAME` times rounds of meta-training on a few families,
after compilation and sharded over the processor's cores as in `alphaopt meta-train`. It times the
whole round, its rollout, and the part of the rollout spent on the tasks (batches, losses and
gradients). Rows with other labels, from another machine or version, are kept.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from rich import console as rich_console
from rich import progress as rich_progress
import tyro

from alphaopt_jax.meta import MetaConfig
from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.tasks.families import distribution
from benchmarks.common import results
from benchmarks.meta_throughput import report, timing

_FAMILIES = (
    "quadratic",
    "logistic_regression",
    "spirals_tanh",
    "conv_pooled",
    "markov_attention",
    "digits_autoencoder",
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to time.

    Attributes:
      label: Name of this version in the table.
      families: Names of families; by default a few of each kind.
      horizon: Steps in an episode.
      repeats: Timed rounds; the median is reported.
    """

    label: str = "now"
    families: tuple[str, ...] = _FAMILIES
    horizon: int = 960
    repeats: int = 5


def main(arguments: Arguments) -> int:
    """Times all families, prints the table and writes the files."""
    devices.split_cpu(MetaConfig().groups * MetaConfig().copies)
    families = distribution.training_families()
    unknown = set(arguments.families) - set(families)
    if unknown:
        raise SystemExit(f"Unknown families {sorted(unknown)}; choose from {sorted(families)}.")
    path = results.RESULTS / "meta_throughput.json"
    earlier = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in earlier if row["version"] != arguments.label]
    for name in rich_progress.track(arguments.families, "timing"):
        seconds = timing.time_family(families[name], arguments.horizon, arguments.repeats)
        rows.append(report.row(arguments.label, name, seconds))
    rows.sort(key=lambda row: (row["parameters"], row["family"], row["version"] != "before"))
    rich_console.Console().print(report.table(rows))
    results.write(
        "meta_throughput",
        rows=rows,
        claims=report.make_claims(rows),
        seeds=(0,),
        command=" ".join(["python -m benchmarks.meta_throughput", *sys.argv[1:]]),
    )
    (results.RESULTS / "meta_throughput.md").write_text(report.page(rows, arguments.horizon))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

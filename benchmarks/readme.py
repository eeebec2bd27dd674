"""Fills in the tables of the README and of `docs/findings/`: `python -m benchmarks.readme`.

A table lies between `<!-- results: NAME -->` and `<!-- end -->`. Every figure is read from the
results files of the benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import json
from pathlib import Path
import re
import sys
from typing import Any

import numpy as np

from alphaopt_jax.tasks.suite import catalog
from benchmarks.ablations import report as ablations_report
from benchmarks.common import modes, results
from benchmarks.cost import report as cost_report
from benchmarks.l2l import report as l2l
from benchmarks.li_malik import paper_2017
from benchmarks.li_malik import report as li_malik
from benchmarks.meta_learners import report as meta_learners
from benchmarks.mnist import report as mnist_report
from benchmarks.omniglot import report as omniglot_report
from benchmarks.online_learning import report as online_learning
from benchmarks.rl_vs_rnn import answer as rl_vs_rnn_answer
from benchmarks.robustness import games
from benchmarks.robustness.situations import report as situations
from benchmarks.zero_tuning import comparison, optimizers, seconds, statistics
from benchmarks.zero_tuning import report as zero_tuning_report

_ROOT = results.RESULTS.parents[1]
README = _ROOT / "README.md"
FINDINGS = _ROOT / "docs" / "findings"
"""The folder of pages with the text and summary tables of each benchmark."""

_SECTION = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
_MODES = (modes.ALPHAOPT, modes.NO_HORIZON, modes.LEARN, modes.FROM_SCRATCH)
_HORIZONS = (200, 2000)  # Numbers of steps of the suite's tasks.

_LANDSCAPE_COLUMNS = {
    "landscape": "landscape",
    "steps_first": "AlphaOpt, from scratch: first episode",
    "steps_last": "mean of the last 5",
    "steps_off": "learn=False",
    "pretrained_first": "AlphaOpt, learn=True: first episode",
    "pretrained_last": "AlphaOpt, learn=True: mean of the last 5",
    "adam_tuned_steps": "Adam, best of 9 rates",
}
_LI_MALIK_2016_COLUMNS = ("problem", "rival", "ahead", "ahead_later", "at_5", "at_40", "wins")
_LI_MALIK_2017_COLUMNS = ("optimizer", "mnist", "omniglot", "digits", "transfer", "later")
_L2L_COLUMNS = ("problem", "optimizer", "loss", "interval", "paper", "later", "paper_later")
_EVALUATION_COLUMNS = {
    "optimizer": "optimizer",
    "tuned": "tuned",
    "train": "training loss",
    "evaluation": "evaluation loss",
    "wins": "below tuned Adam, training",
    "evaluation_wins": "evaluation",
}


def pages() -> list[Path]:
    """The README and all pages of findings."""
    return [README, *sorted(FINDINGS.glob("*.md"))]


def render(text: str, folder: Path = results.RESULTS) -> str:
    """Replaces the text between the markers of each section by its table.

    Args:
      text: A page.
      folder: Folder of the results files.

    Returns:
      The page with every section filled in.

    Raises:
      KeyError: A marker names a section that does not exist.
    """
    return _SECTION.sub(
        lambda match: f"<!-- results: {match[1]} -->\n{_SECTIONS[match[1]](folder)}<!-- end -->",
        text,
    )


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((folder / f"{name}.json").read_text())["rows"]


def _landscapes(folder: Path) -> str:
    rows = [row for row in _rows(folder, "landscapes") if row["kind"] != "multimodal"]
    return results.markdown_table(rows, _LANDSCAPE_COLUMNS)


def _mnist(folder: Path) -> str:
    shown = mnist_report.displayed(_rows(folder, "mnist"))
    return results.markdown_table(shown, {key: key for key in shown[0]})


def _mnist_short(folder: Path) -> str:
    """The modes of AlphaOpt, the default Adam, and the best of each group by training loss."""
    rows = sorted(_rows(folder, "mnist"), key=lambda row: row["train_loss"])
    shown = {row["optimizer"]: row for row in mnist_report.displayed(rows)}
    ours = [name for name in shown if name.startswith("AlphaOpt")]
    free = [name for name in shown if shown[name]["given"] == "nothing" and name not in ours]
    groups = {
        "best of the grid": [name for name in shown if re.match(r"Adam \d", name)],
        "best of the same grid": [name for name in shown if name.startswith("cosine Adam")],
        "best of three": [name for name in shown if name.startswith("cosine SOAP")],
        "best tuning-free": free,
    }
    notes = dict.fromkeys([name for name in _MODES if name in ours], "")
    rivals = {"Adam 0.001": ""} | {names[0]: note for note, names in groups.items() if names}
    notes |= {name: rivals[name] for name in shown if name in rivals}
    table = [
        shown[name] | {"optimizer": f"{name} ({note})" if note else name}
        for name, note in notes.items()
    ]
    return results.markdown_table(table, {key: key for key in table[0]})


def _cost(folder: Path) -> str:
    return cost_report.summary(_rows(folder, "cost"))


def _cost_training(folder: Path) -> str:
    return cost_report.training_summary(_rows(folder, "cost"))


def _zero_tuning(folder: Path) -> str:
    methods = [row for row in _rows(folder, "zero_tuning") if "ratio_interval" in row]
    columns = {
        key: heading
        for key, heading in zero_tuning_report.summary_columns(methods).items()
        if key not in ("rank", "speed_up")
    }
    return results.markdown_table(zero_tuning_report.displayed(methods), columns)


def _compared(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Training and evaluation losses of each method, as ratios to tuned Adam's, best first.

    Args:
      rows: Of `zero_tuning.json`.

    Returns:
      A row for each method: the ratios with their 95 % intervals over tasks and seeds, and the
      share of pairs of task and number of steps with a lower loss.
    """
    pairs = {
        (row["optimizer"], row["task"], row["steps"]): row for row in rows if row["kind"] == "pair"
    }
    methods = [row for row in rows if row["kind"] == "method"]
    tuned = comparison.ADAM_TUNED
    tasks = [task for task in catalog.SUITE if (tuned, task, _HORIZONS[0]) in pairs]

    def logs(optimizer: str, key: str) -> np.ndarray:
        """Logarithms of the losses, `float[tasks, horizons, seeds]`."""
        return np.array(
            [
                [
                    [statistics.log_loss(loss, row["initial_loss"]) for loss in row[key]]
                    for row in (pairs[optimizer, task, steps] for steps in _HORIZONS)
                ]
                for task in tasks
            ]
        )

    adam = logs(tuned, "evaluation_losses")
    compared = []
    for method in methods:
        name = method["optimizer"]
        ours = logs(name, "evaluation_losses")
        compared.append(
            {
                "optimizer": name,
                "tuned": "per task" if name in comparison.TUNED else "no",
                "ratio": method["ratio"],
                "ratio_interval": method["ratio_interval"],
                "wins": method.get(f"wins: {tuned}"),
                "evaluation_ratio": statistics.loss_ratio(ours, adam),
                "evaluation_interval": statistics.ratio_interval(ours, adam),
                "evaluation_wins": statistics.win_fraction(ours, adam),
                "pairs": len(tasks) * len(_HORIZONS),
                "tasks": len(tasks),
            }
        )
    return compared


def _range(interval: Sequence[float]) -> str:
    return " to ".join(f"{bound:.2f}" for bound in interval)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _compared_table(compared: Sequence[Mapping[str, Any]]) -> str:
    shown = []
    for row in compared:
        same = row["optimizer"] == comparison.ADAM_TUNED
        cells = {
            "train": f"{row['ratio']:.2f} ({_range(row['ratio_interval'])})",
            "evaluation": f"{row['evaluation_ratio']:.2f} ({_range(row['evaluation_interval'])})",
            "wins": _percent(row["wins"] or 0),
            "evaluation_wins": _percent(row["evaluation_wins"]),
        }
        if same:
            cells = {"train": "1", "evaluation": "1", "wins": "–", "evaluation_wins": "–"}
        shown.append(dict(row) | cells)
    return results.markdown_table(shown, _EVALUATION_COLUMNS)


def _zero_tuning_evaluation(folder: Path) -> str:
    return _compared_table(_compared(_rows(folder, "zero_tuning")))


def _zero_tuning_seconds(folder: Path) -> str:
    return seconds.table(_rows(folder, "zero_tuning_seconds"))


def _zero_tuning_short(folder: Path) -> str:
    """AlphaOpt, tuned rivals, the best of optax's single settings, a default Adam."""
    compared = _compared(_rows(folder, "zero_tuning"))
    names = [spec.name for spec in optimizers.TUNING_FREE]
    free = [row for row in compared if row["optimizer"] in names]
    named = (
        comparison.COSINE_TUNED,
        *comparison.RIVALS_TUNED,
        comparison.ADAM_DEFAULT,
        *_MODES,
        *(row["optimizer"] for row in free[:1]),
    )
    return _compared_table([row for row in compared if row["optimizer"] in named])


def _headline(folder: Path) -> str:
    """The README's first sentence of results."""
    rows = _rows(folder, "zero_tuning")
    (ours,) = (row for row in _compared(rows) if row["optimizer"] == _MODES[0])
    seeds = len(json.loads((folder / "zero_tuning.json").read_text())["seeds"])
    steps = " and ".join(f"{horizon:,}" for horizon in _HORIZONS)
    wins = round(ours["wins"] * ours["pairs"])
    train, evaluation = _range(ours["ratio_interval"]), _range(ours["evaluation_interval"])
    return f"""\
> **On {ours["tasks"]} unseen tasks, with nothing tuned, AlphaOpt ends at {ours["ratio"]:.2f} times
> the training loss of Adam tuned on each task** (95 % interval {train}), **and at
> {ours["evaluation_ratio"]:.2f} times its evaluation loss** ({evaluation}). Geometric means over
> {steps} steps and {seeds} seeds. Adam has the best of {len(optimizers.GRID)} learning rates for
> each task and number of steps; AlphaOpt's training loss is lower on {wins} of the {ours["pairs"]}
> pairs.
"""


def _ablations(folder: Path) -> str:
    return ablations_report.part_table(_rows(folder, "ablations"))


def _ablations_multiplier(folder: Path) -> str:
    return ablations_report.multiplier_table(_rows(folder, "ablations"))


def _online_learning(folder: Path) -> str:
    gaps = [row for row in _rows(folder, "online_learning") if row["kind"] == "gap"]
    return online_learning.gap_table(gaps)


def _meta_learners(folder: Path) -> str:
    columns = {
        key: heading
        for key, heading in meta_learners.COLUMNS.items()
        if key not in ("setting", "start")
    }
    return results.markdown_table(_rows(folder, "meta_learners"), columns)


def _l2l(folder: Path) -> str:
    return results.markdown_table(
        _rows(folder, "l2l"), {key: l2l.COLUMNS[key] for key in _L2L_COLUMNS}
    )


def _li_malik_2016(folder: Path) -> str:
    rows = [row for row in _rows(folder, "li_malik") if row["part"] == "2016"]
    columns = {key: li_malik.COLUMNS_2016[key] for key in _LI_MALIK_2016_COLUMNS}
    return results.markdown_table(rows, columns)


def _li_malik_2017(folder: Path) -> str:
    setting = paper_2017.SETTINGS[0].name
    rows = [row for row in _rows(folder, "li_malik") if row.get("setting") == setting]
    columns = {key: li_malik.COLUMNS_2017[key] for key in _LI_MALIK_2017_COLUMNS}
    return results.markdown_table(rows, columns)


def _rl_vs_rnn(folder: Path) -> str:
    return rl_vs_rnn_answer.answer(_rows(folder, "rl_vs_rnn"))


def _omniglot(folder: Path) -> str:
    rows = [row for row in _rows(folder, "omniglot") if row["part"] == "test"]
    gains = omniglot_report.gain_table(rows)
    main = [row for row in rows if row["protocol"] == omniglot_report.MAIN]
    return (
        f"{results.markdown_table(gains, omniglot_report.GAIN_COLUMNS)}\n"
        f"{results.markdown_table(main, omniglot_report.COLUMNS)}\n"
        f"{omniglot_report.few_shot_table(rows)}"
    )


def _situations(folder: Path) -> str:
    return situations.table(_rows(folder, "robustness"))


def _games(folder: Path) -> str:
    return games.table([row for row in _rows(folder, "robustness") if "game" in row])


def _claims(folder: Path) -> str:
    rows = [
        claim | {"holds": "yes" if claim["holds"] else "**no**"}
        for claim in results.read_claims(folder)
    ]
    columns = {"text": "claim", "value": "measured", "bar": "bar", "holds": "holds"}
    return results.markdown_table(rows, columns)


_SECTIONS: dict[str, Callable[[Path], str]] = {
    "landscapes": _landscapes,
    "mnist": _mnist,
    "mnist_short": _mnist_short,
    "cost": _cost,
    "cost_training": _cost_training,
    "headline": _headline,
    "zero_tuning": _zero_tuning,
    "zero_tuning_evaluation": _zero_tuning_evaluation,
    "zero_tuning_seconds": _zero_tuning_seconds,
    "zero_tuning_short": _zero_tuning_short,
    "ablations": _ablations,
    "ablations_multiplier": _ablations_multiplier,
    "online_learning": _online_learning,
    "meta_learners": _meta_learners,
    "l2l": _l2l,
    "li_malik_2016": _li_malik_2016,
    "li_malik_2017": _li_malik_2017,
    "rl_vs_rnn": _rl_vs_rnn,
    "omniglot": _omniglot,
    "games": _games,
    "situations": _situations,
    "claims": _claims,
}


def main() -> int:
    """Rewrites the README and the pages of findings in place."""
    for page in pages():
        page.write_text(render(page.read_text()))
        print(f"Filled in {page.relative_to(_ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

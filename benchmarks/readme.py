"""Fills the README's tables in from the results files: `python -m benchmarks.readme`."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import re
import sys
from typing import Any

from benchmarks.common import results
from benchmarks.cost import report
from benchmarks.l2l import __main__ as l2l
from benchmarks.li_malik import paper_2016, paper_2017
from benchmarks.meta_learners import __main__ as meta_learners
from benchmarks.mnist import __main__ as mnist
from benchmarks.omniglot import report as omniglot_report
from benchmarks.online_learning import __main__ as online_learning
from benchmarks.rl_vs_rnn import report as rl_vs_rnn_report
from benchmarks.zero_tuning import __main__ as zero_tuning

README = results.RESULTS.parents[1] / "README.md"
_SECTION = re.compile(r"<!-- results: (\w+) -->\n.*?<!-- end -->", re.DOTALL)

_LANDSCAPE_COLUMNS = {
    "landscape": "landscape",
    "steps_first": "first episode",
    "steps_last": "mean of the last 5",
    "steps_off": "learning switched off",
    "adam_tuned_steps": "Adam, best of 9 rates",
}

_LI_MALIK_2016_COLUMNS = ("problem", "rival", "ahead", "ahead_later", "at_5", "at_40", "wins")
_LI_MALIK_2017_COLUMNS = ("optimizer", "mnist", "omniglot", "digits", "transfer", "later")
_L2L_COLUMNS = ("problem", "optimizer", "loss", "interval", "paper", "later", "paper_later")


def render(text: str, folder: Path = results.RESULTS) -> str:
    """Replaces what stands between the markers of each section by its results.

    Args:
      text: The README.
      folder: Where the results files are.

    Returns:
      The README with every section filled in.

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
    shown = mnist.displayed(_rows(folder, "mnist"))
    return results.markdown_table(shown, {key: key for key in shown[0]})


def _cost(folder: Path) -> str:
    return report.summary(_rows(folder, "cost"))


def _zero_tuning(folder: Path) -> str:
    methods = [row for row in _rows(folder, "zero_tuning") if "ratio_interval" in row]
    columns = {
        key: heading
        for key, heading in zero_tuning.SUMMARY_COLUMNS.items()
        if key not in ("rank", "speed_up")
    }
    return results.markdown_table(zero_tuning.displayed(methods), columns)


def _online_learning(folder: Path) -> str:
    groups = [row for row in _rows(folder, "online_learning") if row["kind"] == "group"]
    return online_learning.group_table(groups)


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
    columns = {key: paper_2016.COLUMNS[key] for key in _LI_MALIK_2016_COLUMNS}
    return results.markdown_table(rows, columns)


def _li_malik_2017(folder: Path) -> str:
    setting = paper_2017.SETTINGS[0].name
    rows = [row for row in _rows(folder, "li_malik") if row.get("setting") == setting]
    columns = {key: paper_2017.COLUMNS[key] for key in _LI_MALIK_2017_COLUMNS}
    return results.markdown_table(rows, columns)


def _rl_vs_rnn(folder: Path) -> str:
    return rl_vs_rnn_report.answer(_rows(folder, "rl_vs_rnn"))


def _omniglot(folder: Path) -> str:
    rows = [row for row in _rows(folder, "omniglot") if row["part"] == "test"]
    gains = omniglot_report.gain_table(rows)
    main = [row for row in rows if row["protocol"] == omniglot_report.MAIN]
    return (
        f"{results.markdown_table(gains, omniglot_report.GAIN_COLUMNS)}\n"
        f"{results.markdown_table(main, omniglot_report.COLUMNS)}\n"
        f"{omniglot_report.few_shot_table(rows)}"
    )


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
    "cost": _cost,
    "zero_tuning": _zero_tuning,
    "online_learning": _online_learning,
    "meta_learners": _meta_learners,
    "l2l": _l2l,
    "li_malik_2016": _li_malik_2016,
    "li_malik_2017": _li_malik_2017,
    "rl_vs_rnn": _rl_vs_rnn,
    "omniglot": _omniglot,
    "claims": _claims,
}


def main() -> int:
    """Rewrites the README in place."""
    README.write_text(render(README.read_text()))
    print(f"Filled in {README.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

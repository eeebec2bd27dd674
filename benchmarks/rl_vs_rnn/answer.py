"""Comparisons of cells, and the answer in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import math
import statistics
from typing import Any

from scipy import stats

from benchmarks.rl_vs_rnn.cells import BPTT, EVOLUTION, LSTM, POLICY, PPO
from benchmarks.rl_vs_rnn.tasks import LONGER, TRAINING_TASKS, UNSEEN_TASKS

Row = Mapping[str, Any]
_BOTH = (POLICY, LSTM)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ratio of the final losses of two cells on one test.

    Attributes:
      ratio: The first cell's relative to the second's; below 1 the first is better.
      low: Lower end of the 95 % interval (Welch, over seeds); NaN with one seed.
      high: Upper end of the interval.
    """

    ratio: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 1."""
        return self.high < 1.0 or self.low > 1.0

    def __str__(self) -> str:
        """The ratio with its interval."""
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def compare(first: Row, second: Row, test: str) -> Comparison:
    """Compares two rows by their scores on a test, which are log ratios."""
    one, other = (row["test_scores"][test] for row in (first, second))
    difference = sum(one) / len(one) - sum(other) / len(other)
    if min(len(one), len(other)) < 2:
        return Comparison(math.exp(difference), math.nan, math.nan)
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return Comparison(math.exp(difference), math.exp(interval.low), math.exp(interval.high))


def by_cell(rows: Iterable[Row], section: str) -> dict[tuple[str, str], Row]:
    """Rows of the cells of a section, by network and learner."""
    return {
        (row["network"], row["learner"]): row
        for row in rows
        if row["section"] == section and "score" in row
    }


def answer(rows: Sequence[Row]) -> str:
    """The findings in words, chosen by the figures alone."""
    found, errors = by_cell(rows, "loss"), by_cell(rows, "errors")
    gradients, evolution = (
        {
            network: compare(found[network, learner], found[network, PPO], UNSEEN_TASKS)
            for network in _BOTH
        }
        for learner in (BPTT, EVOLUTION)
    )
    networks = {
        learner: compare(found[LSTM, learner], found[POLICY, learner], UNSEEN_TASKS)
        for learner in (PPO, BPTT, EVOLUTION)
    }
    lines = [
        f"- **The learner.** Final loss on unseen tasks, relative to training by {PPO}: direct"
        f" gradients {gradients[POLICY]} with {POLICY} and {gradients[LSTM]} with the {LSTM};"
        f" evolution {evolution[POLICY]} and {evolution[LSTM]}."
        f" {_sum_up(gradients.values(), 'direct gradients', PPO)}",
        f"- **The network.** Final loss on unseen tasks of the {LSTM}, relative to {POLICY}:"
        f" {networks[PPO]} if both are trained by {PPO}, {networks[BPTT]} by {BPTT}, and"
        f" {networks[EVOLUTION]} by evolution."
        f" {_sum_up(networks.values(), 'the recurrent network', POLICY)}",
        f"- **Which matters more.** {_larger(gradients.values(), networks.values())}",
        f"- **In equal time.** In the {_budget(found):.0f} seconds that the fastest cell needs for"
        f" all its steps, {_extremes(found, lambda row: row['score_at_equal_time'])}",
        *(
            [f"- **Ten times the steps.** {_capitalized(_extremes(found, _longer))}"]
            if LONGER in next(iter(found.values()))["tests"]
            else []
        ),
        f"- **Errors as the reward.** {_errors(errors)}",
    ]
    return "\n".join(lines) + "\n"


def _errors(errors: Mapping[tuple[str, str], Row]) -> str:
    def percent(cell: tuple[str, str]) -> float:
        return float(errors[cell]["tests"][TRAINING_TASKS])

    fewest = min(errors, key=percent)
    least = {
        learner: min(percent(cell) for cell in errors if cell[1] == learner)
        for learner in (PPO, BPTT)
    }
    return (
        f"The share of errors has no gradient, so {BPTT} minimizes the cross-entropy instead. The"
        f" fewest errors are {percent(fewest):.1f} %, by {fewest[0]} trained by {fewest[1]};"
        f" {BPTT}'s best is {least[BPTT]:.1f} %, {PPO}'s {least[PPO]:.1f} %."
    )


def _sum_up(comparisons: Iterable[Comparison], first: str, second: str) -> str:
    significant = [each for each in comparisons if each.is_significant]
    if not significant:
        return f"There is no significant difference between {first} and {second}."
    if all(each.ratio < 1.0 for each in significant):
        return f"Every significant difference is in favor of {first}."
    if all(each.ratio > 1.0 for each in significant):
        return f"Every significant difference is in favor of {second}."
    return "There are significant differences in both directions."


def _larger(learners: Iterable[Comparison], networks: Iterable[Comparison]) -> str:
    of_learner, of_network = (
        math.exp(statistics.mean(abs(math.log(each.ratio)) for each in group))
        for group in (learners, networks)
    )
    more, less = ("learner", "network") if of_learner > of_network else ("network", "learner")
    high, low = max(of_learner, of_network), min(of_learner, of_network)
    return (
        f"Changing the {more} changes the final loss by a factor of {high:.2f} (geometric mean),"
        f" changing the {less} by a factor of {low:.2f}."
    )


def _budget(found: Mapping[tuple[str, str], Row]) -> float:
    return min(float(row["seconds"]) for row in found.values())


def _longer(row: Row) -> float:
    return float(row["tests"][LONGER])


def _extremes(found: Mapping[tuple[str, str], Row], score: Callable[[Row], float]) -> str:
    best = min(found, key=lambda cell: score(found[cell]))
    worst = max(found, key=lambda cell: score(found[cell]))
    return (
        f"the best is {best[0]} trained by {best[1]} ({score(found[best]):.2f}), the worst"
        f" {worst[0]} trained by {worst[1]} ({score(found[worst]):.2f})."
    )


def _capitalized(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]

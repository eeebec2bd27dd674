"""The tables, the comparisons and the page of `benchmarks.rl_vs_rnn`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import math
import statistics
from typing import Any

from scipy import stats

from benchmarks.common import results

POLICY, LSTM = "AlphaOpt's policy", "LSTM"
PPO, BPTT, EVOLUTION = "PPO", "BPTT", "evolution"
_BOTH = (POLICY, LSTM)
UNSEEN, LONGER, TRAINED = "unseen tasks", "ten times the steps", "what it was trained on"

_TRAINING = {
    "network": "network",
    "learner": "learner",
    "rate": "learner's rate",
    "start": "score of the fresh network",
    "score": "score at equal steps",
    "interval": "±",
    "score_at_equal_time": "score at equal time",
    "interval_at_equal_time": "± ",
    "env_steps": "steps of tasks",
    "seconds": "seconds",
}
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How one cell does against another on one test.

    Attributes:
      ratio: Of what is left, the first's over the second's: below 1 the first is better.
      low: Lower end of the ratio's 95 % interval (Welch, over seeds); NaN of one seed.
      high: Its upper end.
    """

    ratio: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.high < 1.0 or self.low > 1.0

    def __str__(self) -> str:
        """The ratio with its interval."""
        return f"{self.ratio:.2f} times ({self.low:.2f} to {self.high:.2f})"


def compare(first: Row, second: Row, test: str) -> Comparison:
    """Compares two rows by their scores, which are logarithms."""
    one, other = (row["test_scores"][test] for row in (first, second))
    difference = sum(one) / len(one) - sum(other) / len(other)
    if min(len(one), len(other)) < 2:
        return Comparison(math.exp(difference), math.nan, math.nan)
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return Comparison(math.exp(difference), math.exp(interval.low), math.exp(interval.high))


def training_table(rows: Sequence[Row]) -> str:
    """What came of training, a row for each pair of network and learner."""
    return results.markdown_table([row for row in rows if "score" in row], _TRAINING)


def test_table(rows: Sequence[Row]) -> str:
    """What trained networks are worth elsewhere."""
    names = list(rows[0]["tests"])
    shown = [
        {"network": row["network"], "learner": row["learner"]}
        | {name: _with_interval(row, name) for name in names}
        for row in rows
    ]
    return results.markdown_table(
        shown, {"network": "network", "learner": "learner"} | {name: name for name in names}
    )


def _with_interval(row: Row, name: str) -> str:
    half = row.get("test_intervals", {}).get(name)
    value = f"{row['tests'][name]:.2f}"
    return value if half is None else f"{value} ± {half:.2f}"


def claims(rows: Sequence[Row]) -> list[results.Claim]:
    """What the seed says, as this measures it; whether it holds or not is the result."""
    found = by_cell(rows, "loss")
    claim = results.Claim
    return [
        claim(
            "rl_vs_rnn.network",
            "unseen tasks: loss left by the LSTM over that left by AlphaOpt's policy, both trained"
            " by BPTT, upper end of the 95 % interval: does the recurrent network win?",
            compare(found[LSTM, BPTT], found[POLICY, BPTT], UNSEEN).high,
            "< 1",
        ),
        claim(
            "rl_vs_rnn.learner",
            "unseen tasks: loss left by AlphaOpt's policy trained by BPTT over the same trained by"
            " PPO, upper end of the 95 % interval: do direct gradients win?",
            compare(found[POLICY, BPTT], found[POLICY, PPO], UNSEEN).high,
            "< 1",
        ),
    ]


def by_cell(rows: Iterable[Row], section: str) -> dict[tuple[str, str], Row]:
    """A section's rows by network and learner."""
    return {
        (row["network"], row["learner"]): row
        for row in rows
        if row["section"] == section and "score" in row
    }


def answer(rows: Sequence[Row]) -> str:
    """What was measured, in words; which words depends on the figures alone."""
    found, errors = by_cell(rows, "loss"), by_cell(rows, "errors")
    gradients, evolution = (
        {
            network: compare(found[network, learner], found[network, PPO], UNSEEN)
            for network in _BOTH
        }
        for learner in (BPTT, EVOLUTION)
    )
    networks = {
        learner: compare(found[LSTM, learner], found[POLICY, learner], UNSEEN)
        for learner in (PPO, BPTT, EVOLUTION)
    }
    fewest = min(errors, key=lambda cell: errors[cell]["tests"][TRAINED])
    lines = [
        f"- **The learner.** On unseen tasks, direct gradients leave {gradients[POLICY]} the loss"
        f" that PPO leaves where the network is {POLICY}, and {gradients[LSTM]} where it is the"
        f" {LSTM}; evolution {evolution[POLICY]} and {evolution[LSTM]}."
        f" {_sum_up(gradients.values(), 'direct gradients', 'PPO')}",
        f"- **The network.** The {LSTM} leaves {networks[PPO]} the loss of {POLICY} where both were"
        f" trained by PPO, {networks[BPTT]} by BPTT, and {networks[EVOLUTION]} by evolution."
        f" {_sum_up(networks.values(), 'the recurrent network', POLICY)}",
        f"- **Which matters more.** {_larger(gradients.values(), networks.values())}",
        f"- **In equal time.** In the {_budget(found):.0f} seconds that the quickest pair takes for"
        f" all of its steps, {_best(found, lambda row: row['score_at_equal_time'])}",
        *(
            [f"- **Ten times the steps.** Here {_best(found, lambda row: row['tests'][LONGER])}"]
            if LONGER in next(iter(found.values()))["tests"]
            else []
        ),
        "- **Errors as the reward.** The share of errors has no gradient, so that BPTT has to be"
        " given the cross-entropy in its place. Fewest errors were left by"
        f" {fewest[0]} trained by {fewest[1]}, {errors[fewest]['tests'][TRAINED]:.1f} %;"
        + " BPTT's least are"
        f" {min(errors[cell]['tests'][TRAINED] for cell in errors if cell[1] == BPTT):.1f} %,"
        " and PPO's"
        f" {min(errors[cell]['tests'][TRAINED] for cell in errors if cell[1] == PPO):.1f} %.",
    ]
    return "\n".join(lines) + "\n"


def _sum_up(comparisons: Iterable[Comparison], first: str, second: str) -> str:
    sure = [each for each in comparisons if each.is_sure]
    if not sure:
        return f"These seeds cannot tell {first} from {second}: every interval holds 1."
    if all(each.ratio < 1.0 for each in sure):
        return f"Where the interval leaves out 1, it is in favour of {first}."
    if all(each.ratio > 1.0 for each in sure):
        return f"Where the interval leaves out 1, it is in favour of {second}."
    return "It goes both ways."


def _larger(learners: Iterable[Comparison], networks: Iterable[Comparison]) -> str:
    of_learner, of_network = (
        math.exp(statistics.mean(abs(math.log(each.ratio)) for each in group))
        for group in (learners, networks)
    )
    more, less = ("learner", "network") if of_learner > of_network else ("network", "learner")
    high, low = max(of_learner, of_network), min(of_learner, of_network)
    return (
        f"To change the {more} changes the loss that is left by a factor of {high:.2f} in the"
        f" (geometric) mean, to change the {less} by one of {low:.2f}."
    )


def _budget(found: Mapping[tuple[str, str], Row]) -> float:
    return min(float(row["seconds"]) for row in found.values())


def _best(found: Mapping[tuple[str, str], Row], score: Callable[[Row], float]) -> str:
    best = min(found, key=lambda cell: score(found[cell]))
    worst = max(found, key=lambda cell: score(found[cell]))
    return (
        f"the best is {best[0]} trained by {best[1]} ({score(found[best]):.2f}), the worst"
        f" {worst[0]} trained by {worst[1]} ({score(found[worst]):.2f})."
    )


def page(rows: Sequence[Row], command: str) -> str:
    """The page beside the JSON file."""
    by_loss = [row for row in rows if row["section"] == "loss"]
    by_errors = [row for row in rows if row["section"] == "errors"]
    return f"""# Reinforcement learning or a recurrent network?

Made by `{command}`.

Li & Malik learn an optimizer by reinforcement learning, Andrychowicz et al. a recurrent network by
backpropagation through time, and it is said that the recurrent network wins because it can use
direct gradients. Two things differ there, the network and the learner. Here each network is trained
by each learner, on the same tasks, from the same observations, with the same actions (the logarithm
of every parameter's learning rate), by as many steps of tasks. The last row of networks is the LSTM
as it was published, with its own input and steps of its own, which differs in all of these.

## The answer

{answer(rows)}
## Training

Scores are the mean log of final over initial loss, on families of kinds that are not trained on:
less is better, and a difference of 0.1 is a tenth of the loss. Of each training the best of twenty
networks by this score is kept and tried elsewhere. Intervals are Student's, of the mean over seeds.
Learning rates were chosen on a seed that is not shown. Equal time is that which the quickest pair
takes for all of its steps; seconds are of training alone, without compilation, and were measured in
turns.

{training_table(by_loss)}
![By steps and by time](rl_vs_rnn.png)

## Elsewhere, frozen

{test_table(by_loss)}
## Errors as the reward

Classifiers are trained on their cross-entropy, by an optimizer that is itself judged by the share
of test examples that are classified wrongly after 100 steps, in percent. PPO and evolution
learn from that share. It has no gradient; BPTT learns from the cross-entropy. Shares are of a few
thousand examples, so that the best of two trainings may be exactly alike.

{training_table(by_errors)}
{test_table(by_errors)}"""

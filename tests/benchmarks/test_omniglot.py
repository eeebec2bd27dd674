"""The benchmark of Omniglot: its tables, its claims, its page and its pictures."""

import dataclasses

import chex
import numpy as np
import pytest

from alphaopt_jax.baselines import maml
from alphaopt_jax.meta.few_shot import Curves
from alphaopt_jax.tasks.omniglot import characters
from benchmarks.omniglot import learning, optimizers, plots, report, runs

_MAIN = next(iter(learning.PLANS))
_ACCURACIES = {
    (optimizers.RANDOM, optimizers.SGD): 0.60,
    (optimizers.RANDOM, optimizers.ADAM): 0.62,
    (optimizers.RANDOM, optimizers.PRETRAINED): 0.63,
    (optimizers.RANDOM, optimizers.OWN): 0.66,
    ("Reptile", optimizers.SGD): 0.70,
    ("Reptile", optimizers.ADAM): 0.71,
    ("Meta-SGD", optimizers.LEARNED_RATES): 0.79,
    (optimizers.LEARNED, optimizers.SGD): 0.75,
    (optimizers.LEARNED, optimizers.ADAM): 0.74,
    (optimizers.LEARNED, optimizers.OWN): 0.81,
}


def _tested(plan, episodes=4):
    steps = tuple(range(0, plan.ours.num_steps + 1, plan.evaluate_every))
    found = []
    for (start, optimizer), end in _ACCURACIES.items():
        curve = np.linspace(0.05, end, len(steps)) + 0.01 * np.arange(episodes)[:, None]
        curve -= curve.mean(axis=0) - np.linspace(0.05, end, len(steps))
        curves = Curves(steps, curve, 1.0 - curve)
        longer = curves._replace(accuracies=curve + 0.01) if plan.longer else None
        spec = optimizers.OptimizerSpec(start, optimizer, lambda params: params)
        found.append(runs.Run(spec, 0.1, curves, longer))
    return found


@pytest.fixture(name="rows")
def _rows():
    tested = {name: _tested(plan) for name, plan in learning.PLANS.items()}
    return report.summarize(tested, learning.PLANS)


def test_rows_are_in_percent_with_intervals(rows):
    row = next(row for row in rows if row["optimizer"] == optimizers.OWN)

    assert (row["protocol"], row["start"]) == (_MAIN, optimizers.RANDOM)
    assert row["accuracy"] == pytest.approx(66.0)
    assert row["interval"] == pytest.approx(3.182 * np.std([0, 1, 2, 3], ddof=1) / 2, rel=1e-3)
    assert row["area"] == pytest.approx((5.0 + 66.0) / 2)
    assert row["longer"] == pytest.approx(67.0)
    assert next(row for row in rows if row["protocol"] == "5-way 1-shot")["longer"] is None


def test_gain_is_split_into_start_and_optimizer(rows):
    gains = report.gain_table(rows)

    assert [gain["protocol"] for gain in gains] == list(learning.PLANS)
    assert gains[0]["neither"] == pytest.approx(62.0)
    parts = [gains[0][part] for part in ("initialization", "optimizer", "both")]
    np.testing.assert_allclose(parts, [13.0, 4.0, 19.0])


def test_few_shots_stand_side_by_side(rows):
    lines = report.few_shot_table(rows).splitlines()
    few = [name for name in learning.PLANS if name != _MAIN]

    assert lines[0] == "| start | optimizer | " + " | ".join(few) + " |"
    own = next(line for line in lines if optimizers.LEARNED in line and optimizers.OWN in line)
    assert own.count("**81.0** ± 2.1") == len(few) == 4
    # Of SGD and Adam the better, once for each start.
    assert [line.split(" | ")[2] for line in lines if f"| {optimizers.RANDOM} | SGD" in line] == [
        "62.0 ± 2.1"
    ]


def test_claims_hold_where_figures_do(rows):
    claims = {claim.name: claim for claim in report.make_claims(rows)}

    assert claims["omniglot.multi_shot"].value == pytest.approx(81.0)
    assert claims["omniglot.multi_shot"].holds
    assert claims["omniglot.multi_shot.reptile"].value == pytest.approx(10.0)
    assert claims["omniglot.multi_shot.adam"].value == pytest.approx(7.0)
    assert claims["omniglot.multi_shot.random.adam"].value == pytest.approx(4.0)
    assert claims["omniglot.multi_shot.random.sgd"].holds
    # Its curve is a line from 5 to 66 %, of which 62 % are reached at the last evaluation.
    assert claims["omniglot.multi_shot.random.adam.steps"].value == 1.0
    assert claims["omniglot.multi_shot.longer"].value == pytest.approx(82.0 / 81.0)
    few = claims["omniglot.5-way_1-shot"]
    assert (few.value, few.bar, few.holds) == (pytest.approx(81.0), ">= 97", False)
    assert claims["omniglot.5-way_1-shot.meta_sgd"].value > 0.0


def test_steps_never_reached_are_infinitely_many(rows):
    row = dict(rows[0])

    assert report._share_of_steps(row, 99.0) == np.inf
    assert report._share_of_steps(row, 5.0) == 0.0


def test_protocols_can_be_left_out():
    plans = {_MAIN: dataclasses.replace(learning.PLANS[_MAIN], longer=0)}
    rows = report.summarize({_MAIN: _tested(plans[_MAIN])}, plans)
    names = [claim.name for claim in report.make_claims(rows)]

    assert "omniglot.multi_shot.longer" not in names
    assert not any("way" in name for name in names)


@pytest.mark.slow
def test_page_and_pictures(rows, tmp_path):
    tested = {name: _tested(plan) for name, plan in learning.PLANS.items()}
    line = {"round": 0, "accuracy": 0.3, "loss": 1.0}
    histories = {name: {"Reptile": [line, line | {"round": 8}]} for name in tested}

    page = report.page(rows, learning.PLANS, "synthetic characters", "command")
    plots.write(tested, histories, learning.PLANS, tmp_path)

    assert "synthetic characters" in page
    assert all(f"## {name}" in page for name in learning.PLANS)
    pictures = {"omniglot.png", "omniglot_few_shots.png", "omniglot_learning.png"}
    assert {path.name for path in tmp_path.iterdir()} == pictures


def test_of_sgd_and_adam_the_better_is_shown():
    tested = _tested(learning.PLANS[_MAIN])

    shown = plots._best_tuned(tested)

    pairs = [(one.spec.start, one.spec.optimizer) for one in shown]
    assert (optimizers.RANDOM, optimizers.ADAM) in pairs
    assert (optimizers.RANDOM, optimizers.SGD) not in pairs
    assert len(pairs) == len(_ACCURACIES) - 3


def test_a_stored_result_of_a_baseline_is_read(tmp_path, monkeypatch):
    plan = learning.PLANS[_MAIN]
    learned = maml.Learned({"a": {"w": np.ones(2, np.float32)}}, {"w": np.zeros(3)})
    line = {"round": 0, "accuracy": 0.3, "loss": 1.0}
    given = maml.InitializationResult(learned, 0.5, [line])
    data = characters.synthetic_omniglot()
    monkeypatch.setattr(maml, "train_initialization", lambda *_, **__: given)
    baseline = learning.BASELINES[0]
    learning.learn_baseline(baseline, plan, data, tmp_path)
    monkeypatch.delattr(maml, "train_initialization")

    found = learning.learn_baseline(baseline, plan, data, tmp_path)

    assert (found.accuracy, found.history) == (0.5, [line])
    chex.assert_trees_all_equal(found.learned, learned)
    other = dataclasses.replace(plan, ours=dataclasses.replace(plan.ours, width=8))
    with pytest.raises(ValueError, match="another run"):
        learning.learn_baseline(baseline, other, data, tmp_path)


def test_quick_plan_is_small_and_of_the_main_protocol():
    plans = learning.quick_plans()

    assert list(plans) == [_MAIN]
    assert plans[_MAIN].episodes <= 40
    assert plans[_MAIN].longer > plans[_MAIN].ours.num_steps

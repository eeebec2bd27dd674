"""The bookkeeping of the benchmark "zero tuning", on hand-made losses."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.tasks.suite import catalog
from alphaopt_jax.tasks.task import Family, Task
from benchmarks.common import modes, schedules
from benchmarks.zero_tuning import __main__ as zero_tuning
from benchmarks.zero_tuning import comparison, optimizers, plots, report, runs, statistics

pytestmark = pytest.mark.slow

_TASKS = ("diabetes", "raw_wine")


def _logs(*losses):
    """Logarithms for one task and two horizons with two seeds each."""
    return np.log(np.array(losses, float)).reshape(1, 2, 2)


def test_bounded_logarithms():
    assert statistics.log_loss(0.5, 2.0) == pytest.approx(math.log(0.5))
    assert statistics.log_loss(-1.0, 2.0) == pytest.approx(math.log(2e-9))
    for bad in (None, math.nan, math.inf, 1e9):
        assert statistics.log_loss(bad, 2.0) == pytest.approx(math.log(2e3))


def test_divergence_is_a_loss_above_the_initial_one_or_none():
    found = [statistics.diverged(loss, 1.0) for loss in (0.5, 1.0, 1.1, None, math.nan)]

    assert found == [False, False, True, True, True]


def test_wins_and_ratio_by_hand():
    ours, theirs = _logs(1.0, 4.0, 3.0, 3.0), _logs(3.0, 3.0, 1.0, 4.0)

    # Geometric means over seeds: 2 against 3, and 3 against 2.
    assert statistics.win_fraction(ours, theirs) == 0.5
    assert statistics.loss_ratio(ours, theirs) == pytest.approx(1.0)
    assert statistics.loss_ratio(ours, _logs(1.0, 1.0, 1.0, 1.0)) == pytest.approx(6**0.5)


def test_intervals_hold_the_estimate_and_vanish_without_noise():
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(size=(2, 8, 2, 5))
    low, high = statistics.ratio_interval(ours, theirs)

    assert low < statistics.loss_ratio(ours, theirs) < high
    assert statistics.ratio_interval(ours, ours - 1.0) == pytest.approx((math.e, math.e))
    assert statistics.win_interval(ours - 9.0, ours) == (1.0, 1.0)


def test_envelope_and_steps_to_reach():
    # One seed, two rates: a fast one that diverges, and a slow one.
    smoothed = np.array([[[4.0, 2.0, np.nan, np.nan], [4.0, 3.0, 2.5, 1.0]]])
    steps = np.array([1, 2, 3, 4])

    values = statistics.envelope(smoothed)

    np.testing.assert_array_equal(values, [4.0, 2.0, 2.0, 1.0])
    assert statistics.steps_to_reach(2.2, [(steps, values)]) == (2, True)
    assert statistics.steps_to_reach(0.5, [(steps, values)]) == (4, False)
    longer = (np.array([1, 100]), np.array([4.0, 0.1]))
    assert statistics.steps_to_reach(0.5, [(steps, values), longer]) == (100, True)
    assert statistics.steps_to_reach(math.inf, [(steps, values)]) == (1, True)


def test_performance_profile():
    logs = {"a": _logs(1.0, 1.0, 2.0, 2.0), "b": _logs(4.0, 4.0, 1.0, 1.0)}

    shares = statistics.performance_profile(logs, np.array([1.0, 2.0, 4.0]))

    np.testing.assert_allclose(shares["a"], [0.5, 1.0, 1.0])
    np.testing.assert_allclose(shares["b"], [0.5, 0.5, 1.0])


def test_marks_end_at_the_horizon():
    assert statistics.marks(2000, 40)[[0, -1]].tolist() == [1, 2000]
    assert (np.diff(statistics.marks(50, 40)) > 0).all()


def test_warmup_and_cosine():
    schedule = schedules.warmup_cosine(0.1, 100)
    rates = np.array([schedule(count) for count in range(101)])

    np.testing.assert_allclose(rates[[0, 4, 5]], [0.02, 0.1, 0.1], rtol=1e-5)
    assert rates.argmax() in (4, 5)
    assert abs(rates[100]) < 1e-8
    assert (np.diff(rates[5:]) < 0).all()


def test_the_grid_is_the_protocols():
    assert len(optimizers.GRID) == 15
    assert optimizers.GRID[:3] == (1e-7, 3e-7, 1e-6)
    assert optimizers.GRID[-2:] == (0.3, 1.0)
    assert optimizers.RIVAL_GRID == (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)


@pytest.mark.parametrize("spec", optimizers.RIVALS)
def test_rivals_learn_with_kernels_of_any_shape(spec):
    shapes = {"kernel": (3, 3, 2, 4), "matrix": (4, 5), "bias": (5,)}
    params = {name: jax.random.normal(jax.random.key(0), shape) for name, shape in shapes.items()}

    def losses(params):
        return jax.tree.map(lambda leaf: jnp.mean(jnp.square(leaf)), params)

    def loss(params):
        return sum(jax.tree.leaves(losses(params)))

    @jax.jit
    def train(rate):
        optimizer = spec.optimizer_fn(rate, 100)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (after, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=100)
        return losses(after)

    before, after = losses(params), train(0.3)
    for name in shapes:
        assert after[name] < 0.3 * before[name]


class _Bowls:
    """A tiny stand-in for a task of the suite, and a count of its trainings."""

    def __init__(self, monkeypatch):
        def loss(params, batch=None):
            return jnp.sum(jnp.square(params - 1.0))

        def init(key):
            return jax.random.normal(key, (3,))

        def task(instance):
            return Task("diabetes", init, lambda key: None, loss, loss)

        family = Family("diabetes", lambda key: (), task)
        self.task = catalog.SuiteTask(family, "Bowl", cheap=True)
        self.trained = []
        whole = runs.evaluation.train_rates

        def counting(family, make, rates, num_steps, seeds, **more):
            self.trained.append((tuple(rates), num_steps, tuple(seeds)))
            return whole(family, make, rates, num_steps, seeds, **more)

        monkeypatch.setattr(runs.evaluation, "train_rates", counting)


_SETTINGS = runs.Settings(grid=(1e-3, 0.1), seeds=(0, 1), selection_seeds=(9,), horizons=(5, 20))


def test_finished_runs_are_not_run_again(monkeypatch, tmp_path):
    bowls = _Bowls(monkeypatch)
    path = tmp_path / "runs.jsonl"
    free = optimizers.OptimizerSpec("free", "tuning-free", lambda rate, num_steps: optax.sgd(0.1))
    units = runs.plan([bowls.task], [optimizers.ADAM, free], _SETTINGS)

    for unit in units:
        runs.run(unit, ["diabetes"], runs.open_store(path), _SETTINGS)
    first = list(bowls.trained)
    made = [runs.run(unit, ["diabetes"], runs.open_store(path), _SETTINGS) for unit in units]

    assert first == [((1e-3, 0.1), 20, (9,)), ((1e-3, 0.1), 20, (0, 1)), ((1.0,), 20, (0, 1))]
    assert bowls.trained == first
    assert made == [0, 0, 0]
    more = runs.Settings(**(_SETTINGS.__dict__ | {"seeds": (0, 1, 2)}))
    runs.run(units[-1], ["diabetes"], runs.open_store(path), more)
    assert bowls.trained[-1] == ((1.0,), 20, (2,))


def test_rates_are_chosen_on_the_selection_seeds(monkeypatch, tmp_path):
    bowls = _Bowls(monkeypatch)
    store = runs.open_store(tmp_path / "runs.jsonl")
    select, report = runs.plan([bowls.task], [optimizers.SGD], _SETTINGS)

    assert runs.chosen_rate(store, optimizers.SGD, "diabetes", 20, _SETTINGS) is None
    runs.run(select, ["diabetes"], store, _SETTINGS)
    runs.run(report, ["diabetes"], store, _SETTINGS)

    assert runs.chosen_rate(store, optimizers.SGD, "diabetes", 20, _SETTINGS) == 0.1
    assert runs.single_rate(store, optimizers.SGD, ["diabetes"], _SETTINGS) == 0.1
    assert runs.single_rate(store, optimizers.SGD, ["diabetes", "other"], _SETTINGS) is None
    assert bowls.trained[-1] == ((0.1,), 20, (0, 1))
    table = comparison.collect(store, ["diabetes"], [optimizers.SGD], _SETTINGS)
    assert table.results["SGD momentum, tuned", "diabetes", 20].rate == 0.1


def test_an_optimizer_runs_at_its_own_rates_of_the_settings_grid(monkeypatch, tmp_path):
    bowls = _Bowls(monkeypatch)
    store = runs.open_store(tmp_path / "runs.jsonl")
    settings = dataclasses.replace(_SETTINGS, grid=(1e-6, 1e-3, 0.1, 1.0))
    select, report = runs.plan([bowls.task], [optimizers.COSINE_MUON], settings)

    runs.run(select, ["diabetes"], store, settings)
    runs.run(report, ["diabetes"], store, settings)

    trained = [((1e-3, 0.1), (9,)), ((0.1,), (0, 1))]
    assert bowls.trained == [
        (rates, horizon, seeds) for rates, seeds in trained for horizon in (5, 20)
    ]
    table = comparison.collect(store, ["diabetes"], [optimizers.COSINE_MUON], settings)
    assert [row["rate_at_edge"] for row in comparison.pair_rows(table) if row["rate"]] == [
        True,
        False,
    ] * 2


def test_rivals_run_last_and_not_for_longer():
    cheap = catalog.SUITE["diabetes"]
    methods = (optimizers.COSINE_SOAP, optimizers.SGD)

    units = runs.plan([cheap], methods, runs.Settings(full=True))

    assert [(unit.optimizer.name, unit.horizons) for unit in units] == [
        *[("SGD momentum", (200, 2000))] * 2,
        *[("SGD momentum", (20_000,))] * 2,
        *[("cosine SOAP", (200, 2000))] * 2,
    ]
    assert runs.plan([], [], runs.Settings()) == []


def test_a_schedule_is_run_for_every_horizon_and_the_plan_chooses_before_it_reports():
    cheap, other = catalog.SUITE["diabetes"], catalog.SUITE["char_gru"]
    methods = (optimizers.COSINE, *optimizers.TUNING_FREE[:1])

    units = runs.plan([cheap, other], methods, runs.Settings(full=True))

    short = [(unit.optimizer.name, unit.task.name, unit.purpose) for unit in units[:6]]
    assert short == [
        ("cosine Adam", "diabetes", "select"),
        ("cosine Adam", "char_gru", "select"),
        ("cosine Adam", "diabetes", "report"),
        ("cosine Adam", "char_gru", "report"),
        ("Prodigy", "diabetes", "report"),
        ("Prodigy", "char_gru", "report"),
    ]
    assert [(unit.task.name, unit.horizons) for unit in units[6:]] == [("diabetes", (20_000,))] * 3


def _store(tmp_path, losses, horizons=(5, 20)):
    """A store in which each method has one loss everywhere, or one for each horizon."""
    store = runs.open_store(tmp_path / "made.jsonl")
    made = {}
    for (name, rate, agent), values in losses.items():
        for task in _TASKS:
            for horizon, loss in zip(horizons, values, strict=True):
                for seed in (0, 1, 9):
                    run = {"train": loss, "eval": loss, "initial": 2.0, "smoothed": loss, "ms": 1.0}
                    run["curve"] = [2.0] * len(statistics.marks(horizon, runs.CURVE_POINTS))
                    made[runs.Key(task, name, rate, horizon, seed, agent)] = run
    for task in _TASKS:
        curve = np.geomspace(2.0, 0.1, len(statistics.marks(20, runs.ENVELOPE_POINTS)))
        made[runs.Key(task, runs.ENVELOPE, None, 20, None)] = {"curve": curve}
    store.add({key: runs.rounded(run) for key, run in made.items()})
    return runs.open_store(tmp_path / "made.jsonl")


def _alphaopt(name="AlphaOpt", agent="abc"):
    return optimizers.OptimizerSpec(
        name, "alphaopt", lambda rate, steps: optax.sgd(0.1), version=agent
    )


def test_table_of_hand_made_runs(tmp_path):
    store = _store(
        tmp_path,
        {
            ("Adam", 1e-3, None): (1.0, 0.9),
            ("Adam", 0.1, None): (0.4, math.nan),
            ("Prodigy", None, None): (0.5, 0.5),
            ("DoG", None, None): (0.6, 0.2),
            ("AlphaOpt", None, "abc"): (0.2, 0.3),
            ("AlphaOpt", None, "another"): (9.0, 9.0),
        },
    )
    methods = [_alphaopt(), optimizers.ADAM, *optimizers.TUNING_FREE]

    table = comparison.collect(store, _TASKS, methods, _SETTINGS)
    rows = {row["optimizer"]: row for row in comparison.optimizer_rows(table)}

    assert table.results["Adam, tuned", "diabetes", 5].rate == 0.1
    assert table.results["Adam, tuned", "diabetes", 20].rate == 1e-3
    assert table.best_free("diabetes", 5) == "Prodigy"
    assert table.best_free("diabetes", 20) == "DoG"
    ours = rows["AlphaOpt"]
    assert ours["ratio"] == pytest.approx(math.sqrt(0.2 / 0.4 * 0.3 / 0.9))
    assert ours["wins: Adam, tuned"] == 1.0
    assert ours[f"wins: {comparison.BEST_FREE}"] == 0.5
    assert ours["rank"] == 1
    assert rows["Adam, tuned"]["rank"] is None
    assert ours["diverged"] == 0
    # Adam reaches 0.2 and 0.3 after s and t of its 20 steps; the run had 5 and 20.
    steps, values = table.envelopes["diabetes"][0]
    reached = [steps[np.argmax(values <= loss)] for loss in (0.2, 0.3)]
    expected = math.sqrt(reached[0] / 5 * reached[1] / 20)
    assert ours["speed_up"] == pytest.approx(expected)
    pair_rows = comparison.pair_rows(table)
    edges = {row["steps"]: row["rate_at_edge"] for row in pair_rows if "tuned" in row["optimizer"]}
    assert edges == {5: True, 20: True}


def test_page_and_pictures_are_made_of_whatever_there_is(tmp_path):
    losses = {("Adam", 1e-3, None): (1.0, 0.9), ("Adam", 0.1, None): (0.4, math.nan)}
    table = comparison.collect(_store(tmp_path, losses), _TASKS, [optimizers.ADAM], _SETTINGS)
    rows = comparison.optimizer_rows(table)

    page = report.page(table, rows, "python -m benchmarks.zero_tuning")
    plots.write(table, tmp_path / "pictures")

    assert "| diabetes | 5 | 0.4 (0.1) | 1 |" in page
    assert not comparison.is_complete(table)
    assert {each.name for each in (tmp_path / "pictures").iterdir()} == {
        "curves.png",
        "profile.png",
        "ratios.png",
    }


def test_large_networks_alone_give_no_pictures(tmp_path):
    table = comparison.collect(_store(tmp_path, {}), (), [optimizers.ADAM], _SETTINGS)

    plots.write(table, tmp_path / "pictures")

    assert not (tmp_path / "pictures").exists()


def _full_table(
    ours, given_no_steps=0.5, learning=0.5, longer=0.5, large=0.5, rivals=comparison.RIVALS_TUNED
):
    """A complete table in which each entry has one loss everywhere."""

    def result(loss):
        return comparison.Result([loss] * 2, [loss] * 2, [2.0] * 2, [loss] * 2, None, 0.01, 1.0)

    losses = {
        modes.ALPHAOPT: ours,
        modes.NO_HORIZON: given_no_steps,
        modes.LEARN: learning,
        comparison.ADAM_TUNED: 0.6,
        comparison.COSINE_TUNED: 0.55,
        "SGD momentum, tuned": 0.7,
        comparison.ADAM_DEFAULT: 1.0,
        **{each.name: 0.65 for each in optimizers.TUNING_FREE},
        **dict.fromkeys(rivals, 0.52),
    }
    results = {
        (entry, task, horizon): result(loss)
        for entry, loss in losses.items()
        for task in catalog.SUITE
        for horizon in runs.HORIZONS
    }
    for task, each in catalog.SUITE.items():
        if each.cheap:
            results[modes.ALPHAOPT, task, runs.SHORTER] = result(0.5)
            results[modes.ALPHAOPT, task, runs.LONG] = result(longer)
    for task in catalog.LARGE:
        results[modes.ALPHAOPT, task, runs.LARGE_HORIZON] = result(large)
        results[comparison.ADAM_DEFAULT, task, runs.LARGE_HORIZON] = result(1.0)
    return comparison.Comparison(
        results, {}, runs.Settings(seeds=(0, 1), full=True), tuple(catalog.SUITE)
    )


def test_claims_hold_for_a_good_agent_and_fail_for_a_bad_one():
    good = _full_table(0.25, given_no_steps=0.25, learning=0.25, longer=0.25, large=0.25)
    bad = _full_table(3.0, given_no_steps=3.0, learning=4.0, longer=3.5, large=2.0)

    kept = report.make_claims(good, comparison.optimizer_rows(good))
    broken = report.make_claims(bad, comparison.optimizer_rows(bad))

    assert comparison.is_complete(good)
    assert len(kept) == len({claim.name for claim in kept}) == 19
    assert [claim.name for claim in kept if not claim.holds] == []
    assert [claim.name for claim in broken if claim.holds] == []


def test_without_runs_that_learn_nothing_is_claimed_of_them():
    table = _full_table(0.5)
    table = dataclasses.replace(
        table,
        results={key: each for key, each in table.results.items() if key[0] != modes.LEARN},
    )

    names = [claim.name for claim in report.make_claims(table, comparison.optimizer_rows(table))]

    assert len(names) == 17
    assert not any("learning" in name for name in names)


@pytest.mark.parametrize("rivals", [(), comparison.RIVALS_TUNED[1:]])
def test_only_rivals_that_were_run_are_shown(rivals):
    table = _full_table(0.5, rivals=rivals)
    rows = comparison.optimizer_rows(table)

    names = [claim.name for claim in report.make_claims(table, rows)]
    page = report.page(table, rows, "python -m benchmarks.zero_tuning")

    assert comparison.is_complete(table)
    assert len(names) == 16 + len(rivals)
    assert ("zero_tuning.wins.cosine_muon" in names) == bool(rivals)
    assert "cosine SOAP" not in page
    assert page.count("cosine Muon has warm-up and the best of 8 learning rates") == len(rivals)
    shown = {row["optimizer"]: row for row in report.displayed(rows)}
    for mode in optimizers.MODES:
        assert shown[mode].get("wins: cosine Muon, tuned") == ("100 %" if rivals else None)


def test_unknown_names_are_refused():
    with pytest.raises(SystemExit, match=r"no task 'mnist'.*mnist_cnn"):
        zero_tuning.main(zero_tuning.Arguments(tasks=("mnist",)))
    with pytest.raises(SystemExit, match=r"no optimizer 'adam'.*Adam"):
        zero_tuning.main(zero_tuning.Arguments(optimizers=("adam",)))


def test_a_store_forgets_versions_before_the_last_two_and_the_curves_of_all_but_the_last(tmp_path):
    def key(method, agent, seed=0):
        return runs.Key("diabetes", method, None, 200, seed, agent)

    store = runs.open_store(tmp_path / "runs.jsonl")
    for agent in ("first", "second", "third"):
        for seed in (0, 1):
            store.add({key("AlphaOpt", agent, seed): {"train": 1.0, "curve": [2.0, 1.0]}})
    store.add({key("Adam", None): {"train": 3.0, "curve": [4.0, 3.0]}})

    runs.compact(store)

    for each in (store, runs.open_store(tmp_path / "runs.jsonl")):
        assert runs.versions(each, "AlphaOpt") == ["second", "third"]
        assert each[key("AlphaOpt", "second")] == {"train": 1.0}
        assert each[key("AlphaOpt", "third", 1)] == {"train": 1.0, "curve": [2.0, 1.0]}
        assert each[key("Adam", None)] == {"train": 3.0, "curve": [4.0, 3.0]}

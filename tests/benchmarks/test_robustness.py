"""Rows, claims, table and picture of `benchmarks.robustness`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.common import modes
from benchmarks.robustness import faults, games, optimizers, plots, report


def _row(optimizer, fault, **more):
    return {
        "optimizer": optimizer,
        "fault": fault,
        "finite": True,
        "kept": 0.95,
        "least_kept": 0.92,
        "loss": 0.5,
        "loss_without": 0.4,
        "worst": 1.0,
        "skipped": 1 if optimizer == modes.ALPHAOPT else None,
        "unusable": 1,
        "passing": True,
    } | more


@pytest.mark.slow
def test_there_is_a_row_for_each_fault():
    rows = report.optimizer_rows("SGD", optax.sgd(0.1), (0,))

    assert [row["fault"] for row in rows] == [fault.name for fault in faults.FAULTS]
    by_name = {row["fault"]: row for row in rows}
    lost = by_name["NaN in one gradient, once"]
    assert (lost["finite"], lost["kept"], lost["skipped"]) == (False, -np.inf, None)
    # Gradient descent does not depend on the loss.
    assert by_name["constant loss, to the end"]["kept"] == 1.0
    opposite = by_name["gradients with opposite sign, 50 steps"]
    assert opposite["kept"] < 1.0
    assert opposite["worst"] >= 1.0


def test_claims_concern_alphaopt_only():
    good = _row(modes.ALPHAOPT, "one")
    lost = _row(optimizers.ADAM, "one", finite=False, kept=-np.inf, least_kept=-np.inf)

    def held(*rows):
        return [claim.holds for claim in report.make_claims(rows)]

    assert held(good, lost) == [True, True, True]
    assert held(good, good | {"finite": False}) == [False, True, True]
    assert held(good, good | {"skipped": 0}) == [True, False, True]
    assert held(good, good | {"least_kept": 0.5}) == [True, True, False]
    assert held(good, good | {"least_kept": 0.5, "passing": False}) == [True, True, True]


def test_table_and_picture():
    rows = [
        _row(modes.ALPHAOPT, "one"),
        _row(modes.ALPHAOPT, "two", kept=-3.0),
        _row(optimizers.ADAM, "one", finite=False, kept=-np.inf),
        _row(optimizers.ADAM, "two"),
    ]

    table = report.table(rows)

    assert "| one | 1 | 0.95 | **lost** |" in table
    losses = report.loss_table(rows)
    assert "| none | 0.4 | 0.4 |" in losses
    assert "| one | 0.5 | **lost** |" in losses
    assert table in report.page(rows, [], "python -m benchmarks.robustness")
    (panel,) = plots.kept_figure(rows).axes
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.lines[:4]]
    assert points == [(0.95, 0), (pytest.approx(-0.1), 1), (pytest.approx(-0.1), 0), (0.95, 1)]


def _played(optimizer, error):
    row = {"game": "ring", "optimizer": optimizer, "error": error, "errors": [error]}
    return row | {"offset": 0.0, "braked": 0.25}


def test_claims_of_games_compare_the_errors_with_the_loss_to_every_rival():
    errors = {games.WITH: 1.0, games.WITHOUT: 2.0, games.USUAL[0]: 1.0, games.USUAL[1]: 0.5}
    errors |= dict.fromkeys(games.AVERAGED, 1.0)
    rows = [_played(name, error) for name, error in errors.items()]

    claims = games.make_claims(rows)

    assert [claim.value for claim in claims] == [0.5, 1.0, 2.0, 1.0, 1.0]
    assert [claim.holds for claim in claims] == [True, True, False, True, True]
    assert f"| ring | {games.WITH} | 1 | 1.00 | 0 | 25.0 % |" in games.table(rows)
    assert f"| ring | {games.USUAL[0]} | 1 | 1.00 | 0 | – |" in games.table(rows)


@pytest.mark.parametrize("game", games.GAMES)
def test_players_that_do_not_move_keep_the_error_of_their_start(game):
    still = games.GameOptimizer(optax.set_to_zero(), passes_value=False)

    outcome = games.play(game, still, (0, 1), steps=10)

    assert outcome.errors.shape == (2,)
    assert (outcome.errors > 0.5).all()
    np.testing.assert_array_equal(outcome.backed_off, 0.0)


def test_an_optimizer_is_evaluated_at_the_parameters_that_it_names():
    origin = lambda player: jax.tree.map(jnp.zeros_like, player.params)  # noqa: E731
    still = games.GameOptimizer(optax.set_to_zero(), False, origin)

    outcome = games.play("ring", still, (0, 1), steps=10)

    # All points are at the origin.
    np.testing.assert_allclose(outcome.errors, games.RADIUS / np.sqrt(2.0), rtol=1e-3)


def test_the_distance_of_normal_distributions_is_that_of_the_closed_form():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(400_000, 2)).astype(np.float32) * np.array(
        [1.0, 3.0], np.float32
    )
    covariance, target = np.diag([1.0, 9.0]), games.ROOT.astype(np.float64) @ games.ROOT.T
    root = np.diag([1.0, 3.0])
    values = np.linalg.eigvalsh(root @ target @ root)
    squared = np.sum(games.MEAN**2) + np.trace(covariance + target) - 2.0 * np.sum(np.sqrt(values))

    np.testing.assert_allclose(games.gaussian_error(points), np.sqrt(squared), rtol=1e-2)

"""Tuning, claims, page and picture of `benchmarks.l2l`; training of a baseline."""

import numpy as np
import pytest

from alphaopt_jax import cli
from alphaopt_jax.baselines import _recipes
from alphaopt_jax.baselines.bptt import BackpropagationConfig
from alphaopt_jax.baselines.l2l import LSTMConfig, train_lstm
from alphaopt_jax.pretrained.card import load_card
from alphaopt_jax.tasks.papers import l2l as tasks
from benchmarks.l2l import optimizers, plots, problems, report, runs

pytestmark = pytest.mark.slow


def _curves(lstm=0.03):
    ends = {"SGD": 0.2, "NAG": 0.1, "RMSprop": 0.06, "Adam": 0.05, optimizers.LSTM: lstm}
    return [
        runs.Curve(problem.name, name, 0.1, np.geomspace(1.0, end, 201)[None] * [[0.9], [1.1]])
        for problem in problems.PROBLEMS[:2]
        for name, end in ends.items()
    ]


def test_claims_compare_with_the_best_and_with_adam():
    rows = report.summarize(_curves(), problems.PROBLEMS[:2])
    claims = {claim.name: claim for claim in report.make_claims(rows)}

    # Geometric curves of 200 steps are at the square root of their final loss at step 100.
    expected = np.sqrt(0.03 / 0.05)
    assert claims["l2l.quadratics.to_best"].value == pytest.approx(expected)
    assert claims["l2l.quadratics.to_adam"].value == pytest.approx(expected)
    assert not claims["l2l.quadratics.to_adam"].holds
    assert claims["l2l.mnist.loss"].value == pytest.approx(np.sqrt(0.03))
    assert claims["l2l.mnist.later_to_adam"].value == pytest.approx(0.6)


def test_the_page_has_all_rows_and_the_papers_figures():
    rows = report.summarize(_curves(), problems.PROBLEMS[:2])
    page = report.page(rows, "python -m benchmarks.l2l")

    assert page.count("| MNIST, 20 sigmoid units |") == 5
    assert "| 0.037 |" in page
    assert "| 0.245 |" in page


def test_the_picture_has_a_panel_for_each_problem():
    figure = plots.curves_figure(_curves())

    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == [problem.name for problem in problems.PROBLEMS[:2]]
    assert len(figure.axes[0].lines) == 1 + 5


def test_the_rate_is_tuned_on_other_runs(monkeypatch):
    config = LSTMConfig(
        widths=(3,),
        log_sign_exponent=0.0,
        training=BackpropagationConfig(
            horizon=4, unroll=2, episodes=1, learning_rates=(1e-3,), validation_tasks=1
        ),
    )
    lstm = train_lstm(tasks.quadratics(3), config, show_progress=False).optimizer
    monkeypatch.setattr(runs, "HORIZON", 10)
    monkeypatch.setattr(runs, "STEPS", 20)
    problem = problems.Problem("small", lambda: tasks.quadratics(3), "", 4, {})
    notes = []

    curves = runs.measure(problem, lstm, 4, (1e-3, 0.1, 1e3), notes.append)

    found = {curve.optimizer: curve for curve in curves}
    assert found[optimizers.LSTM].rate is None
    assert found["SGD"].rate == found["NAG"].rate == found["Adam"].rate == 0.1
    assert found["SGD"].losses.shape == (4, 21)
    assert len(notes) == 4 * 3 + 2
    assert (found["SGD"].losses[:, -1] < found["SGD"].losses[:, 0]).all()


# Recipes.


def test_an_unknown_baseline_is_refused():
    with pytest.raises(SystemExit, match=r"No baseline has the name 'none'; .*l2l-mnist"):
        cli.main(["train-baseline", "none", "runs/none"])


def test_the_command_line_trains_a_baseline(tmp_path, monkeypatch, capsys):
    config = LSTMConfig(
        widths=(3,),
        training=BackpropagationConfig(
            horizon=4, unroll=2, episodes=1, learning_rates=(1e-3,), validation_tasks=1
        ),
    )
    small = _recipes.Recipe("Small.", (), _recipes._lstm(lambda: tasks.quadratics(3), config))
    monkeypatch.setattr(_recipes, "RECIPES", {"small": small})

    cli.main(["train-baseline", "small", str(tmp_path), "--seed", "1"])

    card = load_card("small", tmp_path)
    assert (card.seed, card.rounds, card.env_steps) == (1, 1, 4)
    assert "small.safetensors" in capsys.readouterr().out

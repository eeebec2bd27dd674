"""Rivals, margins, claims, page and pictures of `benchmarks.li_malik`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.baselines import li_malik
from alphaopt_jax.baselines.l2l import LSTMConfig
from alphaopt_jax.baselines.li_malik import _policies
from benchmarks.li_malik import optimizers, paper_2016, paper_2017, plots, report

pytestmark = pytest.mark.slow


def _bowl(location):
    curvature = jnp.array([10.0, 3.0, 1.0])
    return 0.5 * jnp.sum(curvature * jnp.square(location - 1.0)) + 0.5


def test_conjugate_directions_reach_a_quadratics_minimum_in_as_many_steps_as_dimensions():
    hessian = jnp.diag(jnp.array([10.0, 3.0, 1.0]))
    tx = optimizers.conjugate_direction()
    location = jnp.array([2.0, -1.0, 4.0])
    state = tx.init(location)
    for _ in range(3):
        gradient = hessian @ location
        direction, state = tx.update(gradient, state)
        # The optimal step along the direction.
        length = -(gradient @ direction) / (direction @ hessian @ direction)
        location = location + length * direction

    np.testing.assert_allclose(location, 0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("gradient descent", (0.1,)),
        ("momentum", (0.03, 0.9)),
        ("conjugate gradients", (1.0, 1e-4)),
        ("L-BFGS", (5, 1e-4)),
    ],
)
def test_rivals_minimize(name, constants):
    rival = optimizers.DETERMINISTIC[name]
    assert constants in rival.grid
    optimizer = rival.optimizer_fn(*constants)

    objectives = optimizers.descend(_bowl, jnp.zeros(3), optimizer, 100)

    assert float(objectives[0]) == pytest.approx(7.5)
    assert float(objectives[-1]) < 0.6


def _objectives(end, count=4):
    steps = np.arange(paper_2016.STEPS + 1) / paper_2016.STEPS
    return 1.0 - (1.0 - end) * steps + 0.001 * np.arange(count)[:, None]


def _curves():
    rivals = {name: _objectives(0.5) for name in optimizers.DETERMINISTIC}
    rivals["L-BFGS"] = _objectives(0.1)
    constants = dict.fromkeys(rivals, (0.1,))
    return [
        paper_2016.Curves(problem.name, constants, {**rivals, paper_2016.LEARNED: _objectives(0.2)})
        for problem in paper_2016.PROBLEMS
    ]


def test_margins_are_the_rivals_objective_less_the_learned_ones():
    curves = _curves()[0]

    np.testing.assert_allclose(curves.margin("momentum")[:, -1], 0.3)
    np.testing.assert_allclose(curves.margin_over_best()[:, -1], -0.1)
    rows = {row["rival"]: row for row in report.summarize_2016([curves])}
    assert (rows["momentum"]["ahead"], rows["L-BFGS"]["ahead"]) == (1.0, 0.0)
    claims = report.claims_2016(list(rows.values()))
    assert [claim.holds for claim in claims] == [True] * 3


def _transfers():
    ends = dict(zip(optimizers.STOCHASTIC, (0.5, 0.4, 0.6, 0.7, 0.45), strict=True))
    ends |= {paper_2017.LSTM: 0.44, paper_2017.LEARNED: 0.42}
    length = paper_2017.STEPS // paper_2017.EVERY + 1
    return [
        paper_2017.Curve(
            data, setting.name, name, np.full((3, length), end) + 0.001 * np.arange(3)[:, None]
        )
        for setting in paper_2017.SETTINGS[:2]
        for data in (paper_2017.TRAINED, *paper_2017.TRANSFERS)
        for name, end in ends.items()
    ]


def test_claims_compare_with_each_rival_on_the_transfers():
    rows = report.summarize_2017(_transfers())
    claims = {claim.name: claim for claim in report.claims_2017(rows)}

    assert claims["li_malik.transfer.Adam"].value == pytest.approx(0.421 / 0.451)
    assert not claims["li_malik.transfer.momentum"].holds


def test_the_page_and_the_pictures_show_everything():
    rows = [*report.summarize_2016(_curves()), *report.summarize_2017(_transfers())]
    page = report.page(rows, "python -m benchmarks.li_malik")

    assert page.count("| conjugate gradients |") == 3
    assert "in spite of" not in page  # That setting was not measured.
    assert page.count("| LSTM by backpropagation |") == 2
    margins = plots.margins_figure(_curves())
    assert [len(panel.lines) for panel in margins.axes] == [6, 6, 6, 6, 6, 6]
    transfers = plots.transfers_figure(_transfers())
    assert len([panel for panel in transfers.axes if panel.get_visible()]) == 6


@pytest.mark.nightly
def test_measures_a_policy_of_2016(tmp_path):
    scales = {"features": jnp.ones(10), "step": jnp.asarray(1e-3)}
    policy = li_malik.Policy2016(_policies.init_2016(jax.random.key(0), 3, 4, scales))
    li_malik.save_2016(tmp_path / "policy.safetensors", policy)
    notes = []

    curves = paper_2016.measure(
        paper_2016.PROBLEMS[0], tmp_path / "policy.safetensors", notes.append, 2
    )

    assert len(notes) == 5
    assert {each.shape for each in curves.objectives.values()} == {(2, paper_2016.STEPS + 1)}
    assert curves.objectives["momentum"][:, -1].mean() < 0.7


@pytest.mark.nightly
def test_measures_policies_of_2017(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_2017, "HORIZON", 20)
    monkeypatch.setattr(paper_2017, "STEPS", 40)
    monkeypatch.setattr(paper_2017, "TRAINED", "digits")
    monkeypatch.setattr(paper_2017, "TRANSFERS", ("digits",))
    scales = {"features": jnp.ones(3), "step": jnp.asarray(1e-3)}
    policy = li_malik.Policy2017(_policies.init_2017(jax.random.key(0), 4, scales))
    li_malik.save_2017(tmp_path / "policy.safetensors", policy)
    config = LSTMConfig(widths=(3,))
    monkeypatch.setattr(
        paper_2017, "l2l", lambda path: config.transformation(config.init(jax.random.key(0)))
    )

    curves, constants = paper_2017.measure(
        tmp_path / "policy.safetensors",
        "none",
        paper_2017.Extent(2, paper_2017.SETTINGS[:1], slice(3, 5)),
        lambda note: None,
    )

    assert constants["SGD"] in optimizers.STOCHASTIC["SGD"].grid[3:5]
    found = {curve.optimizer: curve.objectives for curve in curves}
    assert set(found) == {*optimizers.STOCHASTIC, paper_2017.LSTM, paper_2017.LEARNED}
    assert found["Adam"].shape == (2, 5)
    assert found["Adam"][:, -1].mean() < found["Adam"][:, 0].mean()


def test_divergence_counts_as_the_worst_objective():
    family = paper_2016.PROBLEMS[0].family()
    functions = paper_2016._draw(family, 0, 2)

    found = paper_2016._objectives(family, functions, optax.sgd(1e30), 5)

    assert found.max() == paper_2016._WORST

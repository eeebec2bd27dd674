"""The benchmark of guided policy search: its rivals, its margins, its page and its pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.baselines import li_malik
from alphaopt_jax.baselines.l2l import LSTMConfig
from alphaopt_jax.baselines.li_malik import _policies
from benchmarks.li_malik import __main__ as benchmark
from benchmarks.li_malik import optimizers, plots
from benchmarks.li_malik import paper_2016 as full_vector
from benchmarks.li_malik import paper_2017 as coordinatewise

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
        # The best step along the direction.
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
def test_rivals_minimise(name, constants):
    rival = optimizers.DETERMINISTIC[name]
    assert constants in rival.grid
    optimizer = rival.make(*constants)

    objectives = optimizers.descend(_bowl, jnp.zeros(3), optimizer, 100)

    assert float(objectives[0]) == pytest.approx(7.5)
    assert float(objectives[-1]) < 0.6


def _objectives(end, count=4):
    steps = np.arange(full_vector.STEPS + 1) / full_vector.STEPS
    return 1.0 - (1.0 - end) * steps + 0.001 * np.arange(count)[:, None]


def _curves():
    rivals = {name: _objectives(0.5) for name in optimizers.DETERMINISTIC}
    rivals["L-BFGS"] = _objectives(0.1)
    constants = dict.fromkeys(rivals, (0.1,))
    return [
        full_vector.Curves(
            problem.name, constants, {**rivals, full_vector.LEARNED: _objectives(0.2)}
        )
        for problem in full_vector.PROBLEMS
    ]


def test_margins_are_the_rivals_objective_less_the_learned_ones():
    curves = _curves()[0]

    np.testing.assert_allclose(curves.margin("momentum")[:, -1], 0.3)
    np.testing.assert_allclose(curves.margin_of_victory()[:, -1], -0.1)
    rows = {row["rival"]: row for row in full_vector.summarize([curves])}
    assert (rows["momentum"]["ahead"], rows["L-BFGS"]["ahead"]) == (1.0, 0.0)
    claims = full_vector.make_claims(list(rows.values()))
    assert [claim.holds for claim in claims] == [True] * 3


def _transfers():
    ends = dict(zip(optimizers.STOCHASTIC, (0.5, 0.4, 0.6, 0.7, 0.45), strict=True))
    ends |= {coordinatewise.LSTM: 0.44, coordinatewise.LEARNED: 0.42}
    length = coordinatewise.STEPS // coordinatewise.EVERY + 1
    return [
        coordinatewise.Curve(
            data, setting.name, name, np.full((3, length), end) + 0.001 * np.arange(3)[:, None]
        )
        for setting in coordinatewise.SETTINGS[:2]
        for data in (coordinatewise.TRAINED, *coordinatewise.TRANSFERS)
        for name, end in ends.items()
    ]


def test_claims_compare_with_each_rival_on_the_transfers():
    rows = coordinatewise.summarize(_transfers())
    claims = {claim.name: claim for claim in coordinatewise.make_claims(rows)}

    assert claims["li_malik.transfer.Adam"].value == pytest.approx(0.421 / 0.451)
    assert not claims["li_malik.transfer.momentum"].holds


def test_the_page_and_the_pictures_show_everything():
    rows = [*full_vector.summarize(_curves()), *coordinatewise.summarize(_transfers())]
    page = benchmark.markdown(rows, "python -m benchmarks.li_malik")

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
    told = []

    curves = full_vector.measure(
        full_vector.PROBLEMS[0], tmp_path / "policy.safetensors", told.append, 2
    )

    assert len(told) == 5
    assert {each.shape for each in curves.objectives.values()} == {(2, full_vector.STEPS + 1)}
    assert curves.objectives["momentum"][:, -1].mean() < 0.7


@pytest.mark.nightly
def test_measures_policies_of_2017(tmp_path, monkeypatch):
    monkeypatch.setattr(coordinatewise, "HORIZON", 20)
    monkeypatch.setattr(coordinatewise, "STEPS", 40)
    monkeypatch.setattr(coordinatewise, "TRAINED", "digits")
    monkeypatch.setattr(coordinatewise, "TRANSFERS", ("digits",))
    scales = {"features": jnp.ones(3), "step": jnp.asarray(1e-3)}
    policy = li_malik.Policy2017(_policies.init_2017(jax.random.key(0), 4, scales))
    li_malik.save_2017(tmp_path / "policy.safetensors", policy)
    config = LSTMConfig(widths=(3,))
    monkeypatch.setattr(
        coordinatewise, "l2l", lambda path: config.transformation(config.init(jax.random.key(0)))
    )

    curves, constants = coordinatewise.measure(
        tmp_path / "policy.safetensors",
        "none",
        2,
        coordinatewise.SETTINGS[:1],
        lambda note: None,
        slice(3, 5),
    )

    assert constants["SGD"] in optimizers.STOCHASTIC["SGD"].grid[3:5]
    found = {curve.optimizer: curve.objectives for curve in curves}
    assert set(found) == {*optimizers.STOCHASTIC, coordinatewise.LSTM, coordinatewise.LEARNED}
    assert found["Adam"].shape == (2, 5)
    assert found["Adam"][:, -1].mean() < found["Adam"][:, 0].mean()


def test_what_fell_apart_counts_as_the_worst():
    family = full_vector.PROBLEMS[0].make()
    functions = full_vector._draw(family, 0, 2)

    found = full_vector._objectives(family, functions, optax.sgd(1e30), 5)

    assert found.max() == full_vector._WORST

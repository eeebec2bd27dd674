"""The ablations: their variants, and what is claimed from their runs."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import rotation
from benchmarks.ablations import report, variants
from benchmarks.zero_tuning import runs


def test_a_constant_agent_decides_its_log_rate_everywhere():
    agent = variants.constant_agent(alphaopt.load_agent("base"), 1.5)
    tx = alphaopt.alphaopt(agent=agent, num_steps=10)
    params = {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}
    state = tx.init(params)

    for number in range(3):
        grads = {"w": jnp.full((4, 3), float(number)), "b": jnp.ones(3)}
        _, state = tx.update(grads, state, params)

        np.testing.assert_allclose(state.leaf_log_rates, 1.5, rtol=1e-5)


def test_every_variant_has_runs_of_its_own():
    parts = [*variants.variants(), *variants.multiplied()]

    keys = {(part.spec.name, part.spec.version) for part in parts}

    assert len(keys) == len(parts)
    assert {part.compared_with for part in parts} <= {part.name for part in parts}


def _turned(name, shape):
    """Number of blocks of each group that are turned after twenty steps of a variant."""
    parts = {part.name: part.spec for part in variants.variants()}
    params = {"w": jnp.ones(shape)}
    tx = parts[name].optimizer_fn(1.0, 60)
    state = tx.init(params)
    for _ in range(20):
        grads = {"w": jnp.ones(shape) + jnp.arange(5.0)}
        _, state = tx.update(grads, state, params, value=jnp.ones(()))
    return [
        int(np.sum(np.abs(basis - np.eye(basis.shape[-1])).max(axis=(1, 2)) > 0.01))
        for basis in state.bases.bases
    ]


def test_one_sided_optimizers_turn_the_shorter_side_only():
    assert _turned(variants.ONE_SIDE, (12, 5)) == [0, 0, 1, 0, 0, 0]  # For the five columns.
    assert _turned("AlphaOpt", (12, 5)) == [0, 0, 1, 1, 0, 0]
    assert rotation.of_shapes([(12, 5)], 32).counts == (0, 0, 1, 1, 0)


def test_vectors_keep_their_coordinates_where_only_matrices_are_rotated():
    assert _turned(variants.ONLY_MATRICES, (5,)) == [0, 0, 0, 0, 0, 0]
    assert _turned(variants.ONLY_MATRICES, (12, 5)) == [0, 0, 1, 1, 0, 0]
    assert _turned("AlphaOpt", (5,)) == [0, 0, 1, 0, 0, 0]


def _store(tmp_path, parts, losses):
    store = runs.open_store(tmp_path / "runs.jsonl")
    store.add(
        {
            runs.Key("t", part.name, None, 100, seed, part.spec.version): {
                "train": losses.get(part.name, 1.0) * (1.0 + seed),
                "initial": 10.0,
            }
            for part in parts
            for seed in (0, 1)
        }
    )
    return store


def test_ratios_are_those_of_the_agent_to_each_variant(tmp_path):
    parts, multiplied = variants.variants(), variants.multiplied()
    names = [variants.constant_name(value) for value in variants.CONSTANTS]
    losses = {"AlphaOpt": 0.5, names[0]: 1.0, names[1]: 0.625, names[2]: 2.0, names[3]: 3.0}
    losses["learning_rate=10"] = 0.75
    settings = dataclasses.replace(runs.Settings(seeds=(0, 1)), horizons=(100,))
    store = _store(tmp_path, [*parts, *multiplied], losses)

    rows = report.rows(store, parts, ["t"], settings)
    rows += report.multiplier_rows(store, multiplied, ["t"], 100, settings)
    claims = {claim.name: claim for claim in report.make_claims(rows)}

    # The best single constant is the second one, which is also the best of the only task.
    assert claims["ablations.constant"].value == pytest.approx(0.8)
    assert claims["ablations.hindsight"].value == pytest.approx(0.8)
    assert claims["ablations.rotation"].value == pytest.approx(0.5)
    assert claims["ablations.average"].value == pytest.approx(1.0)
    assert not claims["ablations.average"].holds
    assert claims["ablations.multiplier.10"].value == pytest.approx(1.5)
    assert "| without rotation | AlphaOpt | 0.5 |" in report.page(rows, "python -m x")

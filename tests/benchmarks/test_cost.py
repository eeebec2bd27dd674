"""The cost benchmark: its trees, its timing, and what it claims from its rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.common import timing
from benchmarks.cost import models, optimizers, report, runs


def test_trees_are_of_the_size_of_the_models_they_are_named_after():
    sizes = {
        name: (len(shapes), sum(int(np.prod(shape)) for shape in shapes))
        for name, shapes in (
            ("resnet", models.resnet50()),
            ("gpt", models.gpt2_small()),
            ("one", models.one_tensor(10_000_000)),
        )
    }

    assert sizes == {
        "resnet": (161, 25_557_032),
        "gpt": (148, 124_439_808),
        "one": (1, 10_000_000),
    }


def test_a_runner_makes_the_optimizers_steps_and_measures_its_state():
    params = [jnp.ones((10, 10))]
    runner = timing.Runner(
        optax.adam(0.1), params, lambda params, grads: (jnp.ones(()), grads), [jnp.ones((10, 10))]
    )

    seconds = runner.seconds(3)

    assert seconds > 0
    assert runner.state_bytes == 2 * 400 + 4
    np.testing.assert_allclose(runner._carry[0][0], 0.7, rtol=1e-4)
    np.testing.assert_array_equal(params[0], 1.0)  # Its own copy was donated.


def test_a_coordinatewise_lstm_keeps_eighty_numbers_a_parameter():
    tx, params = optimizers.coordinatewise_lstm(), {"w": jnp.ones((3, 5)), "b": jnp.ones(2)}
    state = tx.init(params)

    updates, state = jax.jit(tx.update)(params, state)

    assert jax.tree.map(jnp.shape, updates) == {"w": (3, 5), "b": (2,)}
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 80 * 17


def test_every_network_has_a_loss_near_that_of_a_guess():
    for name, model_fn in runs.MODELS.items():
        model = model_fn()
        classes = 96 if name == runs.TRANSFORMER else 10

        loss = float(jax.jit(model.loss)(model.params, *model.batch))

        assert 0.7 * np.log(classes) < loss < 1.6 * np.log(classes), name


def _row(optimizer, milliseconds, parameters=10_000_000, model=runs.ONE_TENSOR, **more):
    return {
        "kind": "step",
        "model": model,
        "parameters": parameters,
        "leaves": 1,
        "dtype": "float32",
        "optimizer": optimizer,
        "milliseconds": milliseconds,
        "nanoseconds_a_parameter": 1e6 * milliseconds / parameters,
        "times_adam": milliseconds / 10.0,
        "times_adam_interval": [1.0, 2.0],
        "state_bytes_a_parameter": 10.0,
        "temporary_bytes_a_parameter": 0.0,
        "accessed_bytes_a_parameter": 40.0,
        "times_memory_limit": 1.0,
        "compile_seconds": 8.0,
    } | more


def test_claims_are_made_of_what_was_measured():
    rows = [
        _row(optimizers.OWN, 11.0),
        _row(optimizers.LEARN_OWN, 19.0),
        _row(optimizers.FROM_SCRATCH, 17.0),
        _row(optimizers.OWN, 1.1, 1_000_000),
        _row(optimizers.OWN, 110.0 * 1.331, 100_000_000),
        _row(optimizers.ADAM, 1.0, model=runs.RESNET, compile_seconds=2.0),
        _row(optimizers.ALPHAOPT, 9.0, model=runs.RESNET, compile_seconds=9.0),
    ]

    claims = {claim.name: claim for claim in report.make_claims(rows)}

    assert claims["cost.times_adam.parameters"].holds
    assert not claims["cost.times_adam.learn"].holds
    assert claims["cost.times_adam.from_scratch"].value == pytest.approx(1.7)
    # Costs of 1.1, 1.1 and 1.331 x 1.1, whose geometric mean is 1.1 x 1.1.
    assert claims["cost.flat"].value == pytest.approx(1.21)
    assert not claims["cost.flat"].holds
    assert claims["cost.compile.resnet"].value == pytest.approx(4.5)
    assert "cost.leaves" not in claims


def test_the_page_tells_how_the_cost_scales():
    rows = [
        {"kind": "triad", "gigabytes_a_second": 20.0},
        _row(optimizers.ADAM, 10.0),
        _row(optimizers.ALPHAOPT, 14.0),
    ]

    page = report.page(rows)

    assert "| 14 | 1.4 | 1.00–2.00 |" in page
    # 8 + 16 + 8 bytes, then 8 in 4 steps, 16 + 16, and 16 in 16 steps.
    assert "| **in the parameters' coordinates** | **32** |" in page
    assert "| **in rotated coordinates** | **67** |" in page
    assert "32 / 28 =\n1.14" in page
    assert "Adam 1.00 ns and AlphaOpt 1.40 ns" in page


def test_the_short_table_of_train_steps_has_a_row_for_each_model():
    rows = [
        _row(name, 10.0 * ratio, model=model, kind="training")
        for model in (runs.MNIST, runs.TRANSFORMER)
        for name, ratio in ((optimizers.ADAM, 1.0), (optimizers.ALPHAOPT, 1.2), ("Prodigy", 3.0))
    ]

    lines = report.training_summary(rows).splitlines()

    assert lines[0].startswith("| model | Adam | AlphaOpt |")
    assert lines[2].startswith(f"| {runs.MNIST} | 10.0 ms | 1.20 |")
    assert len(lines) == 4

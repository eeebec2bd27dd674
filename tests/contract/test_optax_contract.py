"""optax's own test suites, run on AlphaOpt; none of their tests is skipped.

`tests.faults.test_optax_suites` runs them on further variants.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

import alphaopt_jax
from tests import optax_suites

ContribTest = optax_suites.contrib_test("learning_given_value")
ShardingTest = optax_suites.sharding_test(
    learning=alphaopt_jax.alphaopt(agent=None), pretrained=alphaopt_jax.alphaopt()
)


def test_suites_contain_the_expected_number_of_tests():
    assert optax_suites.num_tests(ContribTest) == 1 * 2 + 4 + 1 + 2 + 2 + 4 + 1
    assert optax_suites.num_tests(ShardingTest) == 2 * 3


def _bowl(point, _):
    return jnp.square(point["x"] - 1.0) + 10.0 * jnp.square(point["y"] + 2.0)


def _rosenbrock(point, _):
    return jnp.square(1.0 - point["x"]) + 100.0 * jnp.square(point["y"] - jnp.square(point["x"]))


@pytest.mark.parametrize(("function", "minimum"), [(_bowl, (1.0, -2.0)), (_rosenbrock, (1.0, 1.0))])
def test_optimistix_minimises_with_alphaopt(function, minimum):
    solver = optimistix.OptaxMinimiser(alphaopt_jax.alphaopt(agent=None), rtol=1e-6, atol=1e-6)
    start = {"x": jnp.asarray(-1.0), "y": jnp.asarray(1.5)}

    solution = optimistix.minimise(function, solver, start, max_steps=20_000, throw=False)

    found = (solution.value["x"], solution.value["y"])
    np.testing.assert_allclose(found, minimum, atol=3e-2)
    assert jax.tree.structure(solution.value) == jax.tree.structure(start)

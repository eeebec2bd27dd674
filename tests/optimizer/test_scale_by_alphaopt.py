"""The transformation to build chains from is the optimizer without its sign."""

import jax
import numpy as np
import optax

import alphaopt_jax as alphaopt
from tests import training


def test_followed_by_a_change_of_sign_it_is_alphaopt():
    chain = optax.chain(alphaopt.scale_by_alphaopt(agent=None, seed=1), optax.scale(-1.0))

    params, _, losses = training.train(chain, 40)
    expected_params, _, expected_losses = training.train(alphaopt.alphaopt(agent=None, seed=1), 40)

    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6),
        params,
        expected_params,
    )

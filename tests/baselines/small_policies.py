"""Small policies of Li & Malik with random parameters."""

import jax
import jax.numpy as jnp

from alphaopt_jax.baselines import li_malik
from alphaopt_jax.baselines.li_malik import _policies


def policy_2016(dimension=3, history=2, current_gradient=True):
    """A policy for functions of `dimension` parameters."""
    scales = {
        "features": jnp.linspace(0.5, 2.0, history * (1 + dimension)),
        "step": jnp.asarray(0.1),
    }
    params = _policies.init_2016(jax.random.key(0), 7, dimension, scales)
    return li_malik.Policy2016(params, current_gradient)


def policy_2017(width=8):
    """A policy with an LSTM of `width` units."""
    scales = {"features": jnp.array([0.5, 1.0, 2.0]), "step": jnp.asarray(0.1)}
    return li_malik.Policy2017(_policies.init_2017(jax.random.key(0), width, scales))

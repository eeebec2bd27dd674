"""Small families for tests of meta-training: fast to compile, and learnable."""

import jax
import jax.numpy as jnp

from alphaopt_jax.meta import MetaConfig
from alphaopt_jax.tasks.task import Family, Task

CONFIG = MetaConfig(
    groups=4,
    copies=4,
    minibatches=2,
    intervals_per_rollout=4,
    rollouts_per_episode=2,
    min_interval=2,
    min_horizon=16,
    max_horizon=64,
)
"""A population of 16 with short episodes of one or two rollouts."""


def bowls(name: str = "bowls", noise: float = 0.1) -> Family:
    """Separable quadratics of a matrix and a vector: noisy gradients, positive minimum."""

    def task(scales):
        def init(key):
            matrix_key, vector_key = jax.random.split(key)
            return {
                "matrix": jax.random.normal(matrix_key, (3, 2)),
                "vector": 2.0 + jax.random.normal(vector_key, (4,)),
            }

        def batch(key):
            return noise * jax.random.normal(key, (4,))

        def loss(params, batch):
            vector = params["vector"] + batch
            return (
                scales[0] * jnp.sum(jnp.square(params["matrix"]))
                + scales[1] * jnp.sum(jnp.square(vector))
                + 1e-2
            )

        return Task(name, init, batch, loss, lambda params: loss(params, jnp.zeros(4)))

    return Family(name, lambda key: jnp.exp(jax.random.normal(key, (2,))), task)

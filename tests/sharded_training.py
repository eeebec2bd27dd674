"""A small training over eight devices, in one process or in several."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import optax

import alphaopt_jax as alphaopt
from tests import training

_SPECS = {
    "hidden": {"kernel": PartitionSpec(None, "x"), "bias": PartitionSpec("x")},
    "output": {"kernel": PartitionSpec("x", None)},
}
_STEPS = 20  # Two rounds of learning and some.


def make_mesh(axis_type):
    return jax.make_mesh((8,), ("x",), axis_types=(axis_type,))


def shardings(mesh):
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        _SPECS,
        is_leaf=lambda node: isinstance(node, PartitionSpec),
    )


def _loss(params, number):
    """Elementwise: explicit sharding does not infer the sharding of a contraction."""
    target = jnp.sin(0.7 * number)
    return sum(jnp.mean(jnp.square(leaf - target)) for leaf in jax.tree.leaves(params))


def train(tx, params):
    state = jax.jit(tx.init)(params)

    @jax.jit
    def step(params, state, number):
        value, grads = jax.value_and_grad(_loss)(params, number)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for number in range(_STEPS):
        params, state, loss = step(params, state, jnp.float32(number))
        losses.append(loss)
    return params, state, np.array(jax.device_get(losses))


def train_sharded(learn):
    """Parameters by name, and losses, of a training over the eight devices of all processes."""
    tx = alphaopt.alphaopt(agent=None, learn=learn)
    mesh = make_mesh(AxisType.Auto)
    with jax.set_mesh(mesh):
        start = jax.jit(training.init_params, out_shardings=shardings(mesh))()
        params, _, losses = train(tx, start)
        whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(
            params
        )
    flat, _ = jax.tree_util.tree_flatten_with_path(whole)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}, losses

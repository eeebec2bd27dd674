"""Trainings within `jax.shard_map` and `jax.vmap`, as users reported them, and their kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.robustness.situations import mapped, trainings

_LEARNERS = ("learn=True", "from scratch")
_ROUNDING = 1e-4  # Relative, over two rounds of learning.


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("mode", trainings.MODES)
def test_each_device_of_a_mesh_trains_as_alone(mode, axes):
    assert mapped.of_each_device(mode, axes) < _ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("mode", trainings.MODES)
def test_devices_with_averaged_gradients_train_as_one(mode):
    assert mapped.of_all_devices(mode) < _ROUNDING


@pytest.mark.parametrize("mode", trainings.MODES)
def test_learning_and_refreshes_stay_in_conditionals_under_vmap(mode):
    alone = mapped.products_of_a_step(mode, ())

    assert mapped.products_of_a_step(mode, (8,)) == alone
    assert mapped.products_of_a_step(mode, (2, 3)) == alone


def test_products_of_conditional_training_loops_are_not_counted():
    def loop(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=3)[0]

    def step(due, x):
        x = jax.lax.cond(x[0, 0] > 0.0, lambda: x @ x, lambda: x)
        return x @ jax.lax.cond(due, lambda: loop(x @ x), lambda: x)

    due, x = jnp.ones(2, bool), jnp.ones((2, 2))
    single = jax.make_jaxpr(jax.jit(step))(due[0], x)
    selected = jax.make_jaxpr(jax.vmap(step, (0, None)))(due, x)

    assert mapped.products_of_each_call(single.jaxpr) == 2
    assert mapped.products_of_each_call(selected.jaxpr) == 4


@pytest.mark.parametrize("faulty", [False, True], ids=["alike", "skipping steps of their own"])
@pytest.mark.parametrize("mode", trainings.MODES)
def test_members_of_vmap_train_as_alone(mode, faulty):
    assert mapped.members_equal_single_trainings(mode, faulty=faulty) < _ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("mode", trainings.MODES)
def test_members_of_a_nested_vmap_train_as_alone(mode):
    assert mapped.members_equal_single_trainings(mode, (2, 2), faulty=True) < _ROUNDING


@pytest.mark.parametrize("mode", _LEARNERS)
def test_members_whose_rounds_are_due_at_different_steps_train_as_alone(mode):
    tx = trainings.make(mode)
    update = jax.jit(lambda params, state: tx.update(2.0 * params, state, params, value=1.0))
    starts = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    singles = [(start, tx.init(start)) for start in starts]
    for _ in range(5):  # Only the first member: the other one's rollout ends five steps later.
        updates, state = update(*singles[0])
        singles[0] = (singles[0][0] + updates, state)
    params, state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *singles)
    batched = jax.jit(
        jax.vmap(lambda params, state: tx.update(2.0 * params, state, params, value=1.0))
    )

    for _ in range(9):
        updates, state = batched(params, state)
        params = params + updates
        for index, single in enumerate(singles):
            updates, new = update(*single)
            singles[index] = (single[0] + updates, new)

    assert state.learner.rounds.tolist() == [1, 1]
    assert trainings.distance(params, jnp.stack([params for params, _ in singles])) < _ROUNDING
    for found, *expected in zip(
        jax.tree.leaves(state.agent),
        *(jax.tree.leaves(state.agent) for _, state in singles),
        strict=True,
    ):
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-3, atol=1e-5)

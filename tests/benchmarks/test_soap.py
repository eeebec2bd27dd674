"""SOAP against its algorithm in NumPy, Adam, and a problem for which it is made."""

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.common import soap

pytestmark = pytest.mark.slow


def _reference(gradients, learning_rate, frequency=10, beta=0.95, eps=1e-8):
    """Algorithm 3 of the paper in float64: the sum of all updates, after each of the steps.

    The first gradient only sets the bases, and bases are sorted, as in the authors' code.
    """
    rows, columns = gradients[0].shape
    left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
    q_left, q_right = np.eye(rows), np.eye(columns)
    mean, squares = np.zeros((rows, columns)), np.zeros((rows, columns))
    position, positions = np.zeros((rows, columns)), []
    for t, g in enumerate(gradients):
        if t > 0:
            rotated = q_left.T @ g @ q_right
            mean = beta * mean + (1 - beta) * g
            squares = beta * squares + (1 - beta) * rotated**2
            correction = 1 - beta**t
            rotated_mean = q_left.T @ (mean / correction) @ q_right
            step = rotated_mean / (np.sqrt(squares / correction) + eps)
            position = position - learning_rate * (q_left @ step @ q_right.T)
        left = beta * left + (1 - beta) * g @ g.T
        right = beta * right + (1 - beta) * g.T @ g
        if t == 0:
            q_left, q_right = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
            q_left, q_right = q_left[:, ::-1], q_right[:, ::-1]
        elif t % frequency == 0:
            by_row = np.argsort(-np.diag(q_left.T @ left @ q_left))
            by_column = np.argsort(-np.diag(q_right.T @ right @ q_right))
            q_left = np.linalg.qr(left @ q_left[:, by_row])[0]
            q_right = np.linalg.qr(right @ q_right[:, by_column])[0]
            squares = squares[by_row][:, by_column]
        positions.append(position)
    return np.array(positions)


def _positions(optimizer, gradients):
    """The sum of all updates after each of the steps, from zero."""

    def step(carry, gradient):
        position, state = carry
        updates, state = optimizer.update(gradient, state, position)
        position = optax.apply_updates(position, updates)
        return (position, state), position

    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), gradients)
    return jax.jit(lambda: jax.lax.scan(step, (zeros, optimizer.init(zeros)), gradients)[1])()


def _gradients(*shape, steps=25, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, *shape)).astype(np.float32)


def test_the_papers_algorithm_in_numpy():
    gradients = _gradients(5, 5)

    found = _positions(soap.soap(0.1), gradients)

    expected = _reference(gradients.astype(np.float64), 0.1)
    assert not found[0].any()
    assert np.abs(expected[-1]).max() > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_kernel_is_a_matrix_with_its_last_axis_as_one_side():
    gradients = _gradients(1, 2, 2, 4)

    found = _positions(soap.soap(0.1), gradients)

    expected = _reference(gradients.astype(np.float64).reshape(-1, 4, 4), 0.1)
    np.testing.assert_allclose(found.reshape(-1, 4, 4), expected, atol=1e-4)


def test_adam_where_nothing_is_rotated():
    gradients = {
        "matrix": _gradients(3, 4),
        "kernel": _gradients(2, 2, 3, 4),
        "vector": _gradients(5),
        "scalar": _gradients(),
    }

    found = _positions(soap.soap(0.1, max_dim=2), gradients)

    expected = _positions(optax.adam(0.1, b1=0.95, b2=0.95), gradients)
    for name, positions in expected.items():
        np.testing.assert_allclose(found[name], positions, atol=1e-5)


def test_one_long_side_stays_as_it_is():
    state = soap.soap(0.1, max_dim=4).init({"kernel": jnp.zeros((2, 3, 4))})[0]

    (leaf,) = state.leaves
    assert leaf.mu.shape == (6, 4)
    assert leaf.bases[0] is None
    assert leaf.bases[1].shape == (4, 4)


def _primitives(jaxpr, branches):
    """Names of all primitives, those in the branches of conditionals only if `branches`."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        if branches or equation.primitive.name != "cond":
            for inner in jex_core.jaxprs_in_params(equation.params):
                yield from _primitives(inner, branches)


def test_a_batch_is_as_its_members_and_refreshes_only_when_due():
    gradients = _gradients(4, 4)

    def positions(rate):
        return _positions(soap.soap(rate), gradients)

    rates = jnp.array([0.01, 0.1])

    batched = jax.vmap(positions)(rates)

    single = jnp.stack([positions(rate) for rate in rates])
    np.testing.assert_allclose(batched, single, atol=1e-4)
    optimizer = soap.soap(0.1)
    states = jax.vmap(lambda _: optimizer.init(jnp.zeros((4, 4))))(rates)
    batch = jnp.stack([gradients[0], gradients[1]])
    step = jax.make_jaxpr(jax.vmap(optimizer.update))(batch, states)
    always, everything = set(_primitives(step.jaxpr, False)), set(_primitives(step.jaxpr, True))
    assert {"eigh", "qr"} <= everything
    assert not {"eigh", "qr"} & always


def _final_loss(optimizer, steps=300, size=12):
    """Loss of an optimizer on `|A X B|^2` with A and B rotated and of condition 100."""
    generator = np.random.default_rng(0)

    def factor():
        basis = np.linalg.qr(generator.normal(size=(size, size)))[0]
        return jnp.asarray(basis * np.geomspace(1.0, 0.01, size) @ basis.T, jnp.float32)

    left, right = factor(), factor()
    start = jnp.asarray(generator.normal(size=(size, size)), jnp.float32)

    def loss(x):
        return jnp.sum(jnp.square(left @ x @ right))

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(jax.grad(loss)(x), state, x)
        return (optax.apply_updates(x, updates), state), None

    (x, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return float(loss(x))


def test_below_adam_on_a_rotated_ill_conditioned_problem():
    schedule = optax.cosine_decay_schedule(1.0, 300)
    best = {
        name: min(
            _final_loss(make(lambda count, r=rate: r * schedule(count)))
            for rate in (0.01, 0.03, 0.1)
        )
        for name, make in (("adam", optax.adam), ("soap", soap.soap))
    }

    assert best["soap"] < 0.1 * best["adam"]

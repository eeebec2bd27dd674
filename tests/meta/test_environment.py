"""The environment of meta-training runs the optimizer's step, and rewards a falling loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import network, observation
from alphaopt_jax._agent.network import Policy
from alphaopt_jax.baselines.maml import scale_by_factors
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import _exploration as exploration
from alphaopt_jax.meta import _population as population
from tests.meta.small_tasks import CONFIG, bowls

pytestmark = pytest.mark.slow

_FAMILY = bowls()


def _agent(seed: int = 0, scale: float = 0.3):
    """An agent with nothing at zero, so that all of its inputs matter."""
    fresh = network.init_params(jax.random.key(seed), network.make_network(CONFIG.agent))
    leaves, structure = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return structure.unflatten(
        [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def _start(num_steps: float, seed: int = 0):
    instance = _FAMILY.sample(jax.random.key(seed))
    key = jax.random.key(seed + 1)
    return environment.reset(_FAMILY, instance, key, jnp.float32(num_steps), CONFIG)


def _run(
    member,
    agent,
    length,
    config=CONFIG,
    noise_scale=0.0,
    observed=0,
    explores=True,
    family=_FAMILY,
):
    model = environment.model_of(family, config)
    num_explorers = sum(model.explorers) if explores else 0
    leaf_key, explorer_key = jax.random.split(jax.random.key(9))
    noise = environment.Noise(
        noise_scale * jax.random.normal(leaf_key, (len(model.explorers),)),
        noise_scale * jax.random.normal(explorer_key, (num_explorers,)),
    )
    interval = environment.Interval(
        positions=jnp.arange(num_explorers),
        noise=noise,
        length=jnp.int32(length),
        observed=jnp.int32(observed),
        first_step=member.step.astype(jnp.int32),
        horizon=jnp.float32(20.0),
    )
    return environment.run_interval(family, Policy(agent, config.agent), member, interval, config)


@pytest.mark.parametrize(
    ("num_steps", "direction", "block_size", "with_factors"),
    [
        (0, "adam", 0, False),
        (20, "adam", 0, False),
        (20, "gradient", 0, False),
        (20, "gradient", 0, True),
        (0, "adam", 32, False),
        (20, "adam", 32, True),
    ],
    ids=[
        "unknown horizon",
        "known horizon",
        "along gradients",
        "with factors of rates",
        "rotated",
        "rotated, with factors of rates",
    ],
)
def test_a_silent_step_is_the_optimizers_own(num_steps, direction, block_size, with_factors):
    agent = _agent(scale=0.15)
    start = _start(num_steps)

    # Raw gradients with the usual step would activate the safeguards.
    step = CONFIG.step.relative_step * (1.0 if direction == "adam" else 0.01)
    config = dataclasses.replace(
        CONFIG,
        step=dataclasses.replace(CONFIG.step, refresh_interval=4, relative_step=step),
        agent=dataclasses.replace(CONFIG.agent, update_direction=direction, block_size=block_size),
    )
    task, family = _FAMILY.task(start.instance), _FAMILY
    factors = jax.tree.map(
        lambda leaf: 0.5 + jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape) / leaf.size,
        environment.unflatten(task, start.params),
    )
    if with_factors:
        family = dataclasses.replace(
            _FAMILY,
            task=lambda instance: dataclasses.replace(_FAMILY.task(instance), rate_factors=factors),
        )
    start = environment.reset(family, start.instance, jax.random.key(1), start.num_steps, config)
    end, _ = jax.jit(lambda member: _run(member, agent, 12, config, explores=False, family=family))(
        start
    )

    optimizer = alphaopt.alphaopt(
        agent=alphaopt.Agent(
            agent,
            max_log_rate=CONFIG.agent.max_log_rate,
            inverse_sqrt_steps=CONFIG.agent.inverse_sqrt_steps,
            update_direction=direction,
            block_size=block_size,
        ),
        num_steps=num_steps or None,
        config=alphaopt.AlphaOptConfig(**dataclasses.asdict(config.step)),
    )
    if with_factors:
        optimizer = optax.chain(optimizer, scale_by_factors(factors))
    params = environment.unflatten(task, start.params)
    state = optimizer.init(params)
    # The environment draws the batch of the first step at the reset, and each other at the step
    # before it, from the key that the member keeps.
    _, batch_key, _ = jax.random.split(jax.random.key(1), 3)
    key = jax.random.wrap_key_data(start.key_data)
    for _ in range(12):
        value, grads = jax.value_and_grad(task.loss)(params, task.batch(batch_key))
        updates, state = optimizer.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        key, batch_key = jax.random.split(key)

    # What is compared is the way that was gone: the optimizer keeps its actions in half precision.
    # A rate is off by at most 2⁻¹¹ of itself, and some parameters went to and fro.
    ways = end.params - start.params, jax.flatten_util.ravel_pytree(params)[0] - start.params
    np.testing.assert_allclose(*ways, rtol=2e-4, atol=5e-5)
    np.testing.assert_allclose(end.step, 12.0)
    if not num_steps:
        average = jax.flatten_util.ravel_pytree(alphaopt.eval_params(state, params))[0]
        np.testing.assert_allclose(end.average, average, rtol=2e-4, atol=5e-5)


def test_the_averaged_parameters_are_rewarded_until_a_known_end():
    config = dataclasses.replace(
        CONFIG, reward_averages=True, reward_every="interval", loss_floor=0.0
    )
    quiet = bowls("quiet", noise=0.0)
    task = quiet.task(_start(20).instance)
    for num_steps, length in ((0, 20), (20, 20), (20, 10)):
        start = environment.reset(
            quiet, _start(20).instance, jax.random.key(1), jnp.float32(num_steps), config
        )
        end, outcome = _run(start, _agent(), length, config, family=quiet)
        is_end = num_steps and length == 20  # The interval's horizon is 20.
        reached = environment.unflatten(task, end.params if is_end else end.average)
        final = task.loss(reached, jnp.zeros(4))
        np.testing.assert_allclose(end.rewarded_loss, final, rtol=1e-5)
        decrease = jnp.log(start.rewarded_loss) - jnp.log(final)
        # Each leaf has its own part, and all others' as well.
        np.testing.assert_allclose(outcome.leaf_rewards, decrease, rtol=1e-3)


def test_rates_are_multiplied_by_random_factors():
    config = dataclasses.replace(
        CONFIG, random_multiplier_fraction=0.5, random_multipliers=(0.01, 2.0)
    )
    keys = jax.random.split(jax.random.key(0), 40)
    start = lambda key: population.start(_FAMILY, key, config).members.multiplier  # noqa: E731
    found = np.asarray(jax.jit(jax.vmap(start))(keys)).reshape(-1, config.copies)

    assert np.all(found == found[:, :1])  # Copies of a task have one.
    found = found[:, 0]
    assert 0.3 < np.mean(found == 1.0) < 0.7
    assert 0.01 <= found.min() < 0.03
    assert 1.0 < found.max() <= 2.0


def test_rewards_of_the_leaves_add_up_to_the_decrease_of_the_log_loss():
    config = dataclasses.replace(CONFIG, team_weight=0.0)
    start = _start(20)

    end, outcome = _run(start, _agent(), 5, config, noise_scale=0.3)

    floor = config.loss_floor * start.first_loss
    decrease = jnp.log(start.measured.loss + floor) - jnp.log(end.measured.loss + floor)
    np.testing.assert_allclose(outcome.leaf_rewards.sum(), decrease, rtol=1e-4)


@pytest.mark.parametrize("reward_every", ["step", "interval"])
def test_the_shared_reward_is_the_same_for_all(reward_every):
    config = dataclasses.replace(CONFIG, reward="shared", reward_every=reward_every)
    start = _start(20)

    end, outcome = _run(start, _agent(), 5, config, noise_scale=0.3)

    floor = config.loss_floor * start.first_loss
    decrease = jnp.log(start.measured.loss + floor) - jnp.log(end.measured.loss + floor)
    np.testing.assert_allclose(outcome.leaf_rewards, decrease, rtol=1e-4)
    np.testing.assert_allclose(outcome.explorer_rewards, decrease, rtol=1e-4)


def test_the_rewards_of_an_interval_are_those_of_its_only_step():
    start = _start(20)
    config = dataclasses.replace(CONFIG, reward_every="interval")

    end, outcome = _run(start, _agent(), 1, config, noise_scale=0.3)

    expected_end, expected = _run(start, _agent(), 1, noise_scale=0.3)
    np.testing.assert_allclose(outcome.leaf_rewards, expected.leaf_rewards, rtol=1e-4)
    np.testing.assert_allclose(outcome.explorer_rewards, expected.explorer_rewards, rtol=1e-4)
    assert end.rewarded_loss == expected_end.rewarded_loss
    assert np.any(np.abs(outcome.leaf_rewards) > 0.01)


def test_rewards_of_longer_intervals_add_up_to_the_decrease():
    start = _start(20)
    config = dataclasses.replace(CONFIG, reward_every="interval", team_weight=0.0)

    end, outcome = _run(start, _agent(), 6, config, noise_scale=0.3)

    floor = config.loss_floor * start.first_loss
    decrease = jnp.log(start.measured.loss + floor) - jnp.log(end.measured.loss + floor)
    np.testing.assert_allclose(jnp.sum(outcome.leaf_rewards), decrease, rtol=1e-3)


def test_rewards_may_come_from_another_loss_than_what_is_trained_on():
    """Half of the square of what is trained on: its logarithm falls by twice as much."""
    start, agent = _start(20), _agent()

    def task(instance):
        own = bowls("quiet", noise=0.0).task(instance)
        return dataclasses.replace(
            own, reward_loss=lambda params, key: 0.5 * own.loss(params, own.batch(key)) ** 2
        )

    family = dataclasses.replace(_FAMILY, task=task)
    config = dataclasses.replace(CONFIG, team_weight=0.0, loss_floor=0.0)
    begun = environment.reset(family, start.instance, jax.random.key(1), jnp.float32(20.0), CONFIG)
    np.testing.assert_array_equal(begun.params, start.params)
    np.testing.assert_allclose(begun.rewarded_loss, 0.5 * begun.measured.loss**2, rtol=1e-6)

    end, outcome = _run(begun, agent, 5, config, family=family)

    decrease = 2.0 * (jnp.log(begun.measured.loss) - jnp.log(end.measured.loss))
    np.testing.assert_allclose(outcome.leaf_rewards.sum(), decrease, rtol=1e-4)
    np.testing.assert_allclose(end.rewarded_loss, 0.5 * end.measured.loss**2, rtol=1e-6)


def test_a_step_that_breaks_the_task_is_not_made_and_costs():
    start = _start(20)
    broken = start._replace(
        measured=start.measured._replace(grads=start.measured.grads.at[0].set(jnp.nan))
    )

    end, outcome = _run(broken, _agent(), 1)

    np.testing.assert_array_equal(end.params, start.params)
    assert float(end.step) == 1.0
    assert float(outcome.leaf_rewards.sum()) < -5.0


def test_a_loss_that_rounding_put_below_zero_does_no_harm():
    start = _start(20)
    below = start._replace(measured=start.measured._replace(loss=-1e-5 * start.first_loss))

    _, outcome = _run(below, _agent(), 1)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome))


def test_copies_of_a_group_are_alike_and_explore_in_opposite_pairs():
    episodes = population.start(_FAMILY, jax.random.key(0), CONFIG)

    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], episodes.members) for i in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    other = jax.tree.map(lambda leaf: leaf[CONFIG.copies], episodes.members)
    assert not np.array_equal(first.params, other.params)
    noise = exploration.draw(jax.random.key(1), 2, 8, CONFIG)
    assert noise.explorers.shape == (CONFIG.intervals_per_rollout, 16, 8)
    for each in noise:
        groups = each.reshape(CONFIG.intervals_per_rollout, 4, 4, -1)
        np.testing.assert_array_equal(groups[:, :, :2], -groups[:, :, 2:])


def test_what_is_learned_from_is_seen_at_the_step_that_was_chosen():
    start, log_time = _start(20), -len(observation.HISTORY_FEATURES) - 3

    _, first = _run(start, _agent(), 5)
    _, third = _run(start, _agent(), 5, observed=2)

    assert observation.CONTEXT_FEATURES[-3] == "log time"
    for outcome, step in ((first, 1.0), (third, 3.0)):
        np.testing.assert_allclose(
            outcome.observations[:, log_time], np.tanh(np.log(step) / 3.0 - 1.0), rtol=1e-4
        )
    np.testing.assert_array_equal(first.leaf_observations, third.leaf_observations)


def test_groups_explore_at_every_interval_or_with_a_few_numbers_for_a_rollout():
    config = dataclasses.replace(CONFIG, intervals_per_rollout=16, leaf_action_std=0.5)

    noise = exploration.draw(jax.random.key(1), 3, 8, config).leaves
    kinds = exploration.kinds(config)

    independent, common, held = (noise[:, kinds == kind] for kind in range(3))
    assert independent.shape[1:] == held.shape[1:] == (4, 3)
    assert len(np.unique(np.abs(independent))) == 16 * 2 * 3
    np.testing.assert_array_equal(common[..., :1] + 0.0 * common, common)
    np.testing.assert_array_equal(held[:1] + 0.0 * held, held)


def test_what_lasting_noise_is_made_of_is_found_again():
    config = dataclasses.replace(CONFIG, groups=512, intervals_per_rollout=16, leaf_action_std=0.5)

    noise = exploration.draw(jax.random.key(1), 3, 8, config).leaves
    kinds = exploration.kinds(config)
    numbers = exploration.common_part(noise[:, kinds == exploration.COMMON])

    # Numbers that are independent and of the deviation asked for, and all that there is.
    np.testing.assert_allclose(np.cov(numbers.T), 0.25 * np.eye(3), atol=0.03)
    time = (np.arange(16) + 0.5) / 16
    again = sum(numbers[:, k] * np.cos(np.pi * k * time)[:, None] for k in range(3))
    np.testing.assert_allclose(noise[:, kinds == exploration.COMMON, 0], again, atol=1e-5)
    held = noise[:, kinds == exploration.HELD]
    np.testing.assert_allclose(exploration.held_part(held), held[3], rtol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_horizons_are_whole_numbers_of_rollouts_within_their_bounds(seed):
    episodes = population.start(_FAMILY, jax.random.key(seed), CONFIG)

    steps = int(episodes.interval) * CONFIG.intervals_per_rollout * int(episodes.rollouts_left)
    assert steps == int(episodes.horizon)
    assert CONFIG.min_horizon / 2 <= steps <= CONFIG.max_horizon * 1.3
    known = np.unique(episodes.members.num_steps)
    assert set(known) <= {0.0, float(steps)}


def test_centered_compares_copies_of_one_task_only():
    values = jnp.arange(32.0).reshape(2, 16)

    centered = population.centered(values, CONFIG)

    np.testing.assert_allclose(centered[0, :4], [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(centered.reshape(2, 4, 4).sum(axis=2), 0.0)

"""Networks, learners, scores, runs and report of `benchmarks.rl_vs_rnn`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent.leaves import FlatLeaves
from alphaopt_jax.baselines.bptt import BackpropagationConfig
from alphaopt_jax.config import pretrained_config
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.families import distribution
from alphaopt_jax.tasks.families.quadratics import quadratics
from alphaopt_jax.tasks.task import Family
from benchmarks.rl_vs_rnn import (
    answer,
    cells,
    learners,
    networks,
    plots,
    report,
    runs,
    scores,
    tasks,
    training,
)
from benchmarks.rl_vs_rnn import ppo as ppo_lib

pytestmark = pytest.mark.slow

_NETWORKS = pytest.mark.parametrize(
    "network", [networks.feedforward(), networks.recurrent((4, 4))], ids=["feedforward", "lstm"]
)


def _random(network, seed=0):
    """Parameters that do not all choose the default."""
    shapes = network.init(jax.random.key(seed))
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    drawn = [
        0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def _bowls(scale=1.0) -> Family:
    return quadratics("bowls", 6, distances=(0.5 * scale, scale), rotated_share=0.5)


def _first(learner, objective, seed=0):
    keys = jax.random.split(jax.random.key(seed), learner.tasks_per_round)
    return rollouts.draw(objective.family, keys)


def test_the_feedforward_network_is_the_agents_own_policy():
    network, horizon = networks.feedforward(), 12
    # With equal actions in a leaf, the leaf's statistics of its rates are the same too.
    params = _random(network)
    params["output"] = jax.tree.map(jnp.zeros_like, params["output"])
    task = distribution.training_families()["digits_tanh"].draw(jax.random.key(3))
    state = alphaopt_jax.alphaopt(agent="diagonal").init(jnp.zeros(3))
    agent = alphaopt_jax.agent_from_state(state)
    agent = dataclasses.replace(agent, params={**agent.params, "actor": params})
    # A refresh in every step, with all parameters sampled.
    tx = alphaopt_jax.alphaopt(
        agent=agent,
        num_steps=horizon,
        config=dataclasses.replace(pretrained_config(), refresh_interval=1),
    )

    expected = rollouts.rollout(task, tx, jax.random.key(5), horizon)
    found = rollouts.rollout(
        task, networks.as_optimizer(network, params, horizon), jax.random.key(5), horizon
    )

    assert agent.max_log_rate == networks.MAX_LOG_RATE
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@_NETWORKS
def test_an_initial_network_chooses_the_default_rates(network):
    optimizer = networks.as_optimizer(network, network.init(jax.random.key(0)), 10)
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones(4)}

    _, state = optimizer.update(params, optimizer.init(params), params, value=1.0)

    np.testing.assert_array_equal(state.means, 0.0)


@_NETWORKS
def test_noise_is_added_to_the_log_rates(network):
    optimizer = networks.as_optimizer(network, _random(network), 10)
    params = {"a": jnp.arange(1.0, 7.0).reshape(3, 2), "b": jnp.ones(4)}
    state = optimizer.init(params)

    plain, _ = optimizer.update(params, state, params, value=1.0)
    noisy, _ = optimizer.update(params, state, params, value=1.0, noise=jnp.log(2.0))

    jax.tree.map(
        lambda twice, once: np.testing.assert_allclose(twice, 2.0 * once, rtol=1e-5), noisy, plain
    )


@_NETWORKS
def test_what_is_replayed_is_what_was_chosen(network):
    config = ppo_lib.PPOConfig(horizon=8, interval=2, groups=2, copies=4, num_explorers=5)
    ppo = ppo_lib.PPO(network, config)
    objective = learners.Objective(_bowls(), _bowls())
    params = _random(network)
    instances, keys = _first(ppo, objective)
    model = FlatLeaves.of(jnp.zeros(6))
    episode = ppo._play(
        objective,
        params,
        model,
        (5,),
        jax.tree.map(lambda leaf: leaf[0], instances),
        keys[0],
        jax.random.key(9),
    )

    replayed = ppo._replay(params, episode.observations)

    assert episode.observations.shape[:2] == (8, 5)
    np.testing.assert_allclose(replayed, episode.means, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(episode.means).max()) > 0.01


def test_explorers_are_different_parameters_of_their_leaves():
    positions = np.asarray(ppo_lib._positions(jax.random.key(0), (10, 4), (6, 4)))

    assert len(set(positions)) == 10
    assert set(positions[:6]) < set(range(10))
    assert set(positions[6:]) == set(range(10, 14))


def test_what_is_to_come_is_discounted():
    rewards = jnp.array([[1.0], [2.0], [4.0]])

    np.testing.assert_allclose(ppo_lib._discounted(rewards, 0.5), [[3.0], [4.0], [4.0]])


def test_advantages_are_those_over_the_other_copies():
    returns = jnp.array([[[1.0], [3.0]], [[10.0], [10.0]]])

    found = ppo_lib._standardized(returns)

    np.testing.assert_allclose(found[..., 0], [[-np.sqrt(2), np.sqrt(2)], [0.0, 0.0]], rtol=1e-5)


def _improves(learner, objective, rounds, evaluate):
    state = learner.init(jax.random.key(0))
    before = evaluate(learner.network, learner.params(state))
    one_round = jax.jit(functools.partial(learner.round, objective))
    for number in range(rounds):
        state = one_round(state, *_first(learner, objective, number + 1))
    return evaluate(learner.network, learner.params(state)) - before


@_NETWORKS
@pytest.mark.parametrize("name", ["ppo", "evolution", "backpropagation"])
def test_each_learner_makes_each_network_better(network, name):
    # The minimum is too far for the default rates.
    objective = learners.Objective(_bowls(30.0), _bowls(30.0))
    evaluate = scores.Evaluator([objective], 20, 16, 0)
    config = BackpropagationConfig(
        horizon=20, unroll=10, tasks=8, learning_rates=(1e-2,), objective="log_loss"
    )
    learner = {
        "ppo": ppo_lib.PPO(network, ppo_lib.PPOConfig(horizon=20, learning_rate=1e-2)),
        "evolution": learners.Evolution(
            network, learners.EvolutionConfig(horizon=20, learning_rate=3e-2)
        ),
        "backpropagation": learners.BackpropagationLearner(network, config),
    }[name]

    assert _improves(learner, objective, 20, evaluate) < -0.1


def test_errors_have_a_score_and_no_gradient():
    objective = tasks.error_objectives()[0]
    instance = objective.family.sample(jax.random.key(0))
    scored = objective.scored.task(instance)
    params = scored.init(jax.random.key(1))

    share = objective.scored_loss(instance, params, jax.random.key(2))
    gradient = jax.grad(scored.loss)(params, scored.batch(jax.random.key(2)))

    assert 0.2 < float(share) <= 1.0
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))


def test_the_score_is_the_log_of_final_over_initial_loss():
    losses = np.r_[np.full(60, 4.0), np.full(60, 1.0)].reshape(1, -1)
    both = np.concatenate([losses, 0.25 * losses])

    np.testing.assert_allclose(scores.log_ratio(both), np.log(0.25), rtol=1e-4)
    broken = np.concatenate([losses, np.full_like(losses, np.nan)])
    np.testing.assert_allclose(scores.log_ratio(broken), 0.5 * np.log(25.0), rtol=1e-4)


def test_a_finished_run_is_read_again(tmp_path):
    cell = cells.Cell(cells.LSTM, cells.BPTT, (1e-3,))
    objective = learners.Objective(_bowls(), _bowls())
    evaluate = scores.Evaluator([objective], 5, 2, 0)
    key = training.RunKey(cell.name, rate=1e-3, env_steps=800, seed=0)
    learner = cells.make_learner(cell, 1e-3)

    def run(objectives):
        return training.train(key, learner, objectives, evaluate, tmp_path)

    first, again = run([objective]), run([])

    assert again.scores == first.scores
    assert again.env_steps == [0, 400, 800]
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)


def test_a_finished_run_is_tested_once(tmp_path):
    asked = []

    def evaluate(network, params):
        asked.append((network.name, params))
        return float(len(asked))

    cell, other = cells.CELLS[0], cells.CELLS[-1]
    section = runs.Section("loss", [], evaluate, {"a": evaluate, "b": evaluate}, 800, [cell, other])
    finished = [
        training.Run(each.name, 1e-3, seed, [0, 800], [0.0, -1.0], params=f"{each.name} {seed}")
        for each in (cell, other)
        for seed in range(2)
    ]

    first = runs.test_scores(section, finished, tmp_path)
    again = runs.test_scores(section, finished, tmp_path)

    assert first == again
    assert first[cell.name, 1] == {"a": 3.0, "b": 4.0}
    assert asked == [
        (each.network, f"{each.name} {seed}")
        for each in (cell, other)
        for seed in range(2)
        for _ in "ab"
    ]


def test_every_learner_is_timed_per_environment_step():
    objective = learners.Objective(_bowls(), _bowls())
    chosen = [cell for cell in cells.CELLS if cell.learner == cells.BPTT]
    made = {cell.name: cells.make_learner(cell, 1e-3) for cell in chosen}

    seconds = training.seconds_per_step(made, [objective], repeats=1)

    assert set(seconds) == set(made)
    assert all(0.0 < each < 0.1 for each in seconds.values())


def test_ppo_refuses_a_network_without_log_rates():
    cell = cells.Cell(networks.PublishedLSTM().name, cells.PPO, (1e-3,))

    with pytest.raises(TypeError, match="LSTM as published has none"):
        cells.make_learner(cell, 1e-3)


def test_the_scored_loss_is_measured_before_and_after_training():
    objective = learners.Objective(_bowls(), _bowls(3.0))
    instance = objective.family.sample(jax.random.key(0))

    before, after = learners.scored_losses(
        objective, instance, optax.sgd(0.1), jax.random.key(1), 50
    )
    same, still = learners.scored_losses(objective, instance, optax.sgd(0.0), jax.random.key(1), 50)

    assert float(after) < 0.5 * float(before)
    assert float(same) == float(before)
    assert float(still) == pytest.approx(float(before), rel=0.2)  # Another batch.


# The page.


def _rows(policy_ppo=-1.0, policy_bptt=-1.5, lstm=-1.2, spread=0.01):
    def row(section, network, learner, score):
        each = [score - spread, score, score + spread]
        names = (tasks.TRAINING_TASKS, tasks.UNSEEN_TASKS)
        return {
            "section": section,
            "network": network,
            "learner": learner,
            "score": score,
            "score_at_equal_time": score,
            "env_steps": 800.0,
            "seconds": 60.0,
            "tests": dict.fromkeys(names, score),
            "test_intervals": dict.fromkeys(names, spread),
            "test_scores": dict.fromkeys(names, each),
            "curves": [
                {"env_steps": [0.0, 800.0], "scores": [0.0, score]},
                {"env_steps": [0.0, 800.0], "scores": [0.0, score + spread]},
            ],
        }

    rows = []
    for section, sign in (("loss", 1.0), ("errors", -10.0)):
        for cell in cells.CELLS[:6]:
            of_policy = policy_bptt if cell.learner == cells.BPTT else policy_ppo
            score = of_policy if cell.network == cells.POLICY else lstm
            rows.append(row(section, cell.network, cell.learner, sign * score))
        tests = dict.fromkeys((tasks.TRAINING_TASKS, tasks.UNSEEN_TASKS), -1.0)
        rows.append({"section": section, "network": "–", "learner": report.ADAM, "tests": tests})
    return rows


def test_the_answer_follows_the_figures():
    said = answer.answer(_rows())

    assert "direct gradients 0.61 (0.59 to 0.62) with AlphaOpt's policy" in said
    assert "Changing the learner" in said
    assert "PPO's 10.0 %" in said
    unsure = answer.answer(_rows(spread=5.0))
    assert unsure.count("no significant difference") == 2
    other = answer.answer(_rows(policy_ppo=-1.5, policy_bptt=-1.0, lstm=-1.5))
    assert "in favor of PPO" in other


def test_a_claim_that_the_figures_break_is_broken():
    claims = {claim.name: claim.holds for claim in report.make_claims(_rows())}

    assert claims == {"rl_vs_rnn.network": False, "rl_vs_rnn.learner": True}


def test_the_page_and_the_picture_show_every_pair():
    rows = _rows()
    page = report.page(rows, "python -m benchmarks.rl_vs_rnn")
    figure = plots.learning_figure(rows)

    assert page.count("| AlphaOpt's policy | evolution |") == 4
    assert page.count("| – | Adam, tuned |") == 2
    assert len(figure.axes[0].lines) == len(figure.axes[1].lines) == 6


def test_the_policy_of_the_comparison_has_the_size_of_the_pretrained_agents():
    pretrained = alphaopt_jax.load_agent("diagonal")
    shapes = jax.tree.map(jnp.shape, networks.feedforward().init(jax.random.key(0)))

    assert shapes == jax.tree.map(jnp.shape, dict(pretrained.params["actor"]))
    assert isinstance(pretrained.network, network_lib.ActorCritic)

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Omniglot: an optimizer that has seen other alphabets
#
# 20 characters of an alphabet that nobody has trained on, 15 drawings of each, 100 steps of
# training with 20 drawings each: how many drawings by other people does a network then tell right?
# Two agents ship for this. `omniglot-random` is for fresh networks; it learned on other alphabets.
# `omniglot-learned` comes with an initialization: the network's initial parameters and factors of
# the agent's rates, which learned on other alphabets with it in the loop; its own learning after
# that gained little. Here both are frozen: only the network changes.
#
# Without Omniglot on this machine, and without a network, the characters are drawn by a program;
# figures are then not those of Omniglot.

# %%
import importlib.util

if importlib.util.find_spec("alphaopt_jax") is None:
    print("Installing AlphaOpt ...")
    # %pip install -q "alphaopt-jax[benchmarks]"

# %%
# %matplotlib inline
import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax import plotting
from alphaopt_jax._optimizer import state as state_lib
from alphaopt_jax.meta import few_shot
from alphaopt_jax.meta.few_shot import recipes
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot import characters as characters_lib
from alphaopt_jax.tasks.omniglot import episodes

QUICK = bool(os.environ.get("ALPHAOPT_NOTEBOOK_QUICK"))
config = recipes.CONFIGS[recipes.LEARNED]
protocol, width = config.protocol, config.width
num_steps = 10 if QUICK else config.num_steps

data = characters_lib.load_omniglot()
print(data.name)

# %% [markdown]
# ## An episode
#
# Above the line are drawings to train on, below it some of those that are asked for.

# %%
episode = episodes.draw_episode(data.test, protocol, jax.random.key(0))
people = (slice(0, 4), slice(protocol.shots, protocol.shots + 2))
drawings = [
    episodes.look_up(data.test, episode, part.start, part.stop).inputs.reshape(
        protocol.ways, -1, characters_lib.SIZE, characters_lib.SIZE
    )
    for part in people
]
plotting.characters_figure(
    np.concatenate(drawings, axis=1), support=4, title="20 characters of one alphabet"
)

# %% [markdown]
# ## Frozen agents against Adam
#
# From the same start as the agent, Adam has the best of five learning rates, chosen on validation
# alphabets. `meta_test` compares the agent's parameters before and after, bit by bit.

# %%
number = 2 if QUICK else 20
learned = alphaopt.load_agent(recipes.LEARNED)
alone = alphaopt.load_agent(recipes.RANDOM)
initialization = few_shot.load_initialization(recipes.LEARNED)


plan = few_shot.MetaTestPlan(number, num_steps, evaluate_every=num_steps // 10)


def measure(characters, learner):
    """Learning curves on some episodes of the characters."""
    family = episodes.episode_family(characters, protocol, width=width)
    return few_shot.meta_test(family, learner, plan, jax.random.key(1))


def measure_adam(params):
    """Learning curves of Adam, with the best learning rate on validation alphabets."""
    rates = (1e-2,) if QUICK else (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    learners = [few_shot.Learner(optax.adam, rate, params) for rate in rates]
    accuracies = [
        measure(data.validation, learner).accuracies[:, -1].mean() for learner in learners
    ]
    best = int(np.argmax(accuracies))
    return f"Adam, {rates[best]:g}", measure(data.test, learners[best])


def measure_agent(agent, start):
    """Learning curves of a frozen agent."""

    def optimizer_fn(params):
        frozen = dataclasses.replace(agent, params=params)
        return few_shot.frozen_optimizer(frozen, num_steps, start.rate_factors)

    def agent_params(state):
        return state_lib.find(state).agent

    learner = few_shot.Learner(optimizer_fn, dict(agent.params), start.params, agent_params)
    return measure(data.test, learner)


found, steps = {}, {}
for title, agent, start in (
    ("learned start", learned, initialization),
    ("fresh networks", alone, few_shot.Initialization()),
):
    label, adam = measure_adam(start.params)
    curves = measure_agent(agent, start)
    found[title] = {"AlphaOpt, frozen": curves.accuracies, label: adam.accuracies}
    steps[title] = curves.steps
    for name, accuracies in found[title].items():
        print(f"{title}: {name}: {100 * accuracies[:, -1].mean():.1f} %")

# %%
plotting.accuracies_figure(
    found, steps, title="Characters that nobody has trained on", emphasized="AlphaOpt"
)

# %% [markdown]
# Those were a few episodes. `python -m benchmarks.omniglot` measures on 600, with more rivals:
# Reptile, MAML and Meta-SGD, and the agent that ships as the default.

# %% [markdown]
# ## The rates that it chooses
#
# The agent of the learned start multiplies the gradient by its rates, one for each parameter, and
# by their factors. These are the means of each layer's, along one episode.

# %%
family = episodes.episode_family(data.test, protocol, width=width)
task = family.draw(jax.random.key(2))
optimizer = few_shot.frozen_optimizer(learned, num_steps, initialization.rate_factors)
step = rollouts.training_step(task, optimizer)


def watched(carry, key):
    """One step of training; the mean rate of each leaf, and the loss before it."""
    carry, loss = step(carry, key)
    params, state = carry
    rates = alphaopt.learning_rates(state, params)
    rates = jax.tree.map(jnp.multiply, rates, initialization.rate_factors)
    return carry, (jax.tree.map(jnp.mean, rates), loss)


begun = initialization.params, optimizer.init(initialization.params)
keys = jax.random.split(jax.random.key(3), num_steps)
run = jax.jit(lambda begun, keys: jax.lax.scan(watched, begun, keys))
(params, _), (rates, losses) = run(begun, keys)
print(f"told right: {100 * float(task.accuracy(params)):.0f} %")
by_layer = {name: np.asarray(rates[name]) for name in rates if name.startswith("convolution")} | {
    "logits": np.asarray(rates["logits"]["kernel"])
}
plotting.rates_figure(by_layer, np.asarray(losses))

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
# # An agent in a landscape
#
# AlphaOpt is an optimizer that is a reinforcement-learning agent. At every step it observes the
# parameters and chooses learning rates; its reward is the decrease of the loss. (The agent here
# starts from scratch and chooses one rate for each parameter; the default agent chooses one for
# each array, in rotated coordinates.) With two parameters everything can be drawn: the landscape,
# the path, the learning rates, and the improvement of the agent with practice.
#
# It takes about two minutes on a CPU and needs no GPU.

# %%
import importlib.util

if importlib.util.find_spec("alphaopt_jax") is None:
    print("Installing AlphaOpt ...")
    # %pip install -q alphaopt-jax matplotlib

# %%
# %matplotlib inline
from functools import partial
import os
from pathlib import Path
import tempfile

from IPython.display import Image
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax import plotting
from alphaopt_jax.tasks.landscapes import LANDSCAPES, Landscape

# Set this variable to run the notebook at reduced length, as the tests do.
QUICK = bool(os.environ.get("ALPHAOPT_NOTEBOOK_QUICK"))
NUM_STEPS = 400 if QUICK else 2000
NUM_EPISODES = 3 if QUICK else 20
NUM_SEEDS = 1 if QUICK else 3
TARGET = 1e-3  # Largest loss above the minimum that counts as having found it.

# %% [markdown]
# ## The landscape
#
# Himmelblau's function has four equally deep minima (stars). The start (dot) is in the middle. A
# learning rate that is good on the slope is too large at the bottom, and one that is good at the
# bottom is very slow on the slope.

# %%
landscape = LANDSCAPES["himmelblau"]
print(landscape.description)

figure = Figure(figsize=(5.5, 5), layout="constrained")
plotting.draw_terrain(figure.subplots(), landscape)
figure

# %% [markdown]
# ## An episode
#
# An optax training loop; AlphaOpt only needs the loss in addition, as `value`. The whole episode,
# with the agent's own learning, is one compiled `lax.scan`. With `stop=True` it ends when the
# target is reached.


# %%
@partial(jax.jit, static_argnames=("optimizer", "landscape", "stop"))
def run(optimizer, landscape, state, stop=False):
    """Runs one episode; returns the optimizer's state and a `plotting.Trace` of the episode."""
    optimizer = optax.with_extra_args_support(optimizer)

    def move(params, state, loss, grads):
        updates, state = optimizer.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    def step(carry, _):
        params, state = carry
        loss, grads = jax.value_and_grad(landscape.function)(params)
        there = stop & (loss - landscape.minimum <= TARGET)
        carry = jax.lax.cond(there, lambda *same: same[:2], move, params, state, loss, grads)
        return carry, (params, loss, *measure(carry[1], params))

    (_, state), trace = jax.lax.scan(step, (landscape.initial_point(), state), length=NUM_STEPS)
    trace = plotting.Trace(*trace)
    if trace.rewards is not None:  # The reward of a step is computed at the next step.
        trace = trace._replace(rewards=trace.rewards[1:])
    return state, trace


def measure(state, params):
    """Learning rates and reward of the last step; None for other optimizers."""
    if not isinstance(state, alphaopt.AlphaOptState):
        return None, None
    reward = alphaopt.metrics(state).get("reward")  # A frozen agent has none.
    return alphaopt.learning_rates(state, params), reward


# %% [markdown]
# ## From scratch, compared with Adam
#
# With `agent=None` the agent starts from scratch and learns while it optimizes. No learning rate is
# given. Adam has its usual default, and a rate that suits this landscape.
#
# Below the map: the loss; the two learning rates of the agent (faint: every step, with exploration
# noise; bold: their average); and its reward.

# %%
from_scratch = alphaopt.alphaopt(agent=None)
params = landscape.initial_point()
_, trace = run(from_scratch, landscape, from_scratch.init(params))
traces = {"AlphaOpt\nfrom scratch": trace}
for rate in (0.1, 0.001):
    adam = optax.adam(rate)
    traces[f"Adam\nrate {rate}"] = run(adam, landscape, adam.init(params))[1]

plotting.landscape_figure(landscape, traces, title=f"{landscape.title}: from scratch, and Adam")

# %% [markdown]
# ## Practice
#
# One agent optimizes the same landscape repeatedly. `alphaopt.new_episode` keeps the agent and
# resets the moments and the history of the loss. The baseline is the same agent with
# `learn=False`, which separates learning from luck.


# %%
def run_episodes(seed):
    """Returns the steps and the path of each episode, and the agent at the end."""
    optimizer = alphaopt.alphaopt(agent=None, seed=seed)
    state = optimizer.init(params)
    steps, paths = [], []
    for _ in range(NUM_EPISODES):
        # `from_scratch` and `optimizer` differ only in the seed, which is part of the state:
        # running `from_scratch` saves a compilation for each seed.
        state, trace = run(from_scratch, landscape, alphaopt.new_episode(state), stop=True)
        steps.append(steps_needed(trace))
        paths.append(np.asarray(trace.points)[: steps[-1] + 1])
    return steps, paths, alphaopt.agent_from_state(state)


def steps_needed(trace):
    """Returns the first step within the target, or `NUM_STEPS` if there is none."""
    reached = np.asarray(trace.losses) - landscape.minimum <= TARGET
    return int(reached.argmax()) if reached.any() else NUM_STEPS


frozen = alphaopt.alphaopt(agent=None, learn=False)
never = steps_needed(run(frozen, landscape, frozen.init(params))[1])
seeds = [run_episodes(seed) for seed in range(NUM_SEEDS)]
steps = np.array([each[0] for each in seeds])
print(f"learn=False: {never} steps; learning, by episode: {steps.mean(axis=0).round()}")

plotting.learning_figure(
    {landscape.title: (steps, np.full_like(steps, never))},
    limit=NUM_STEPS,
    title="Practice",
)

# %% [markdown]
# The same as an animation: the path of each episode, earlier ones faded.

# %%
_, paths, agent = seeds[0]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "learning.gif"
    plotting.learning_animation(
        path,
        landscape,
        plotting.EpisodeHistory(paths, steps[0].tolist(), steps_without_learning=never),
        title="AlphaOpt learns by practice",
        frames_per_episode=4 if QUICK else 8,
    )
    animation = path.read_bytes()
Image(data=animation, format="gif")

# %% [markdown]
# ## What it learned
#
# An agent is a policy: a function from the observation of a parameter to its learning rate. It can
# be evaluated everywhere: the picture shows the mean learning rates of the first few steps from
# each starting point, first before and then after practice.


# %%
def policy_map(optimizer, resolution=41 if QUICK else 121, num_steps=5):
    """Returns the mean rates of the first steps from every point of the landscape's grid."""

    def rates_from(point):
        def step(carry, _):
            params, state = carry
            loss, grads = jax.value_and_grad(landscape.function)(params)
            updates, state = optimizer.update(grads, state, params, value=loss)
            rates = alphaopt.learning_rates(state, params)
            return (optax.apply_updates(params, updates), state), jnp.log(rates)

        _, logs = jax.lax.scan(step, (point, optimizer.init(point)), length=num_steps)
        return jnp.exp(logs.mean(axis=0))

    x, y, _ = landscape.grid(resolution)
    points = jnp.stack(jnp.meshgrid(x, y), axis=-1)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(rates_from)))(points))


plotting.policy_map_figure(landscape, policy_map(frozen), title="Rates before practice")

# %%
practiced = alphaopt.alphaopt(agent=agent, learn=False)
plotting.policy_map_figure(
    landscape, policy_map(practiced), title=f"Rates after {NUM_EPISODES} episodes of practice"
)

# %% [markdown]
# ## Transfer
#
# An agent that practiced on one landscape can be frozen and used on another. Nothing guarantees
# that it fits; training over many tasks is for that.

# %%
elsewhere = LANDSCAPES["beale"]
start = elsewhere.initial_point()
traces = {
    "AlphaOpt\npracticed elsewhere": run(practiced, elsewhere, practiced.init(start))[1],
    "AlphaOpt\nfrom scratch, learn=False": run(frozen, elsewhere, frozen.init(start))[1],
}
plotting.landscape_figure(
    elsewhere,
    traces,
    title=f"{elsewhere.title}, by an agent trained only on {landscape.title}",
)

# %% [markdown]
# ## Your own landscape
#
# Any function of two variables works.

# %%
mine = Landscape(
    name="mine",
    title="Monkey saddle in a bowl",
    function=lambda point: (
        point[0] ** 3 - 3.0 * point[0] * point[1] ** 2 + 0.25 * jnp.sum(point**2) ** 2 + 6.75
    ),
    minima=((-3.0, 0.0), (1.5, 1.5 * 3**0.5), (1.5, -1.5 * 3**0.5)),
    minimum=0.0,
    start=(0.1, 0.02),
    bounds=(-4.5, 4.5, -4.5, 4.5),
    kind="few minima",
)
state, trace = run(from_scratch, mine, from_scratch.init(mine.initial_point()))
plotting.landscape_figure(mine, {"AlphaOpt\nfrom scratch": trace}, title=mine.title)

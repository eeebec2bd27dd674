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
# # Train an optimizer, then look inside it
#
# An agent that starts from scratch learns during your training; a pretrained one does not need to.
# Here a small agent is trained by reinforcement learning (PPO) over two families of tasks, in a few
# minutes on a CPU, most of which is compilation. Then it is frozen and used on an unseen task.

# %%
import importlib.util

if importlib.util.find_spec("alphaopt_jax") is None:
    print("Installing AlphaOpt ...")
    # %pip install -q "alphaopt-jax[benchmarks,meta]"

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax import plotting
from alphaopt_jax._agent import observation
from alphaopt_jax.meta import MetaConfig, Schedule, meta_train
from alphaopt_jax.tasks.families import distribution

QUICK = bool(os.environ.get("ALPHAOPT_NOTEBOOK_QUICK"))
ROUNDS = 4 if QUICK else 160

# %% [markdown]
# ## Train
#
# An episode optimizes one task. The reward of every parameter is its part of the decrease of the
# log loss; the reward of every array is the whole decrease. The score is the mean log of the ratio
# of final to initial loss, on families that are not used for training: lower is better.

# %%
families = distribution.training_families()
chosen = {name: families[name] for name in ("mixture_relu", "linear_regression")}
held_out = distribution.validation_families()
held_out = {name: held_out[name] for name in ("wide_linear_regression", "wide_mixture_sigmoid")}
config = MetaConfig(max_horizon=300)
schedule = Schedule(
    num_rounds=ROUNDS,
    validate_every=max(ROUNDS // 8, 1),
    validation_horizons=(200,),
    validation_tasks=2 if QUICK else 8,
)
result = meta_train(chosen, validation=held_out, schedule=schedule, config=config)
print(f"score before {result.history[0]['score']:.2f}, best {result.score:.2f}")

# %%
plotting.meta_training_figure(
    {"AlphaOpt, PPO": np.array([[entry["score"] for entry in result.history]])},
    x={"AlphaOpt, PPO": np.array([entry["env_steps"] / 1e6 for entry in result.history])},
)

# %% [markdown]
# ## Use it
#
# The frozen agent optimizes a task of another kind. Nothing is tuned; `num_steps` is given.

# %%
STEPS = 20 if QUICK else 400
task = distribution.validation_families()["teacher_elu"].draw(jax.random.key(1))


def train(tx, steps):
    """Returns the losses, and the mean rates of every array if the optimizer is AlphaOpt."""
    params = task.init(jax.random.key(2))
    state = tx.init(params)
    losses, rates = [], []

    @jax.jit
    def step(params, state, key):
        value, grads = jax.value_and_grad(task.loss)(params, task.batch(key))
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    for key in jax.random.split(jax.random.key(3), steps):
        params, state, value = step(params, state, key)
        losses.append(float(value))
        if isinstance(state, alphaopt.AlphaOptState):
            chosen_rates = alphaopt.learning_rates(state, params)
            rates.append(jax.tree.map(lambda leaf: float(leaf.mean()), chosen_rates))
    return np.array(losses), rates


ours, rates = train(alphaopt.alphaopt(agent=result.agent, num_steps=STEPS), STEPS)
adam, _ = train(optax.adam(1e-3), STEPS)
plotting.training_figure(
    {"AlphaOpt": ours[None], "Adam 1e-3": adam[None]},
    {"AlphaOpt": ours[None, -20:].mean(axis=1), "Adam 1e-3": adam[None, -20:].mean(axis=1)},
    np.arange(STEPS),
    plotting.TrainingLabels(
        title="An unseen task",
        x="step",
        curves="training loss",
        finals="mean of the last 20 steps",
    ),
    window=1 if QUICK else 9,
)

# %% [markdown]
# ## Learning rates over time, by layer

# %%
paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(rates[0])]
by_layer = {
    path: np.array([jax.tree.leaves(each)[index] for each in rates])
    for index, path in enumerate(paths)
}
plotting.rates_figure(by_layer, ours)

# %% [markdown]
# ## The policy
#
# The agent's log rate as a function of two features of the observation at a time; all others are
# zero.

# %%
network = result.agent.network
names = (
    observation.COORDINATE_FEATURES + observation.CONTEXT_FEATURES + observation.HISTORY_FEATURES
)
EXTENT, POINTS = 2.0, 61
axis = jnp.linspace(-EXTENT, EXTENT, POINTS)


def log_rates(across, upwards):
    """Returns log rates over a grid of two features."""
    grid = jnp.zeros((POINTS, POINTS, len(names)))
    grid = grid.at[..., names.index(across)].set(axis[None, :])
    grid = grid.at[..., names.index(upwards)].set(axis[:, None])
    mean, _ = network.apply({"params": result.agent.params}, grid)
    return across, upwards, np.asarray(mean)


plotting.policy_slices_figure(
    [
        log_rates("gradient", "momentum"),
        log_rates("log time", "autocorrelation of the leaf's gradients"),
        log_rates("energy of the leaf's momentum", "log scale of the leaf"),
    ],
    extent=EXTENT,
)

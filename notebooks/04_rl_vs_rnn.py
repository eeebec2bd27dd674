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
# # Reinforcement learning or a recurrent network?
#
# There are two lines of learned optimizers. Li & Malik use reinforcement learning; Andrychowicz et
# al. train a recurrent network by backpropagation through time. A common explanation of the
# recurrent network's success is its use of direct gradients. Here both are trained on the same
# quadratics for a few minutes on a CPU and tested on other tasks. The last section has the results
# of a longer comparison, which exchanges the network and the learner one by one.

# %%
import importlib.util

if importlib.util.find_spec("alphaopt_jax") is None:
    print("Installing AlphaOpt ...")
    # %pip install -q "alphaopt-jax[benchmarks,meta]"

# %%
# %matplotlib inline
import json
import os
from pathlib import Path

import jax
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax import plotting
from alphaopt_jax.baselines.bptt import BackpropagationConfig
from alphaopt_jax.baselines.l2l import LSTMConfig, l2l, train_lstm
from alphaopt_jax.meta import MetaConfig, Schedule, meta_train
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.families import distribution
from alphaopt_jax.tasks.papers.l2l import quadratics

QUICK = bool(os.environ.get("ALPHAOPT_NOTEBOOK_QUICK"))
HORIZON = 100
family = quadratics(10)

# %% [markdown]
# ## A recurrent network, by direct gradients
#
# The input of a coordinatewise LSTM is the gradient of each parameter, and its output is the
# update. The LSTM's own parameters are trained by the gradient of the losses, backpropagated
# through 20 steps at a time.

# %%
episodes = 4 if QUICK else 600
lstm = train_lstm(
    family,
    LSTMConfig(
        log_sign_exponent=0.0,
        output_scale=1.0,
        training=BackpropagationConfig(
            horizon=HORIZON,
            tasks=32,
            episodes=episodes,
            validate_every=max(episodes // 12, 1),
            validation_tasks=64,
            learning_rates=(1e-2,),
        ),
    ),
)

# %% [markdown]
# ## AlphaOpt's policy, by reinforcement learning
#
# A small actor maps AlphaOpt's observation of each parameter to its learning rate. The reward is
# the decrease of the loss; only the policy is differentiated.

# %%
rounds = 4 if QUICK else 60
agent = meta_train(
    {family.name: family},
    validation={family.name: family},
    schedule=Schedule(
        num_rounds=rounds,
        validate_every=max(rounds // 12, 1),
        validation_horizons=(HORIZON,),
        validation_tasks=4 if QUICK else 32,
    ),
    config=MetaConfig(max_horizon=HORIZON),
)

# %% [markdown]
# ## Tests with frozen optimizers
#
# Three tests: unseen quadratics; ten times as many steps; and digits, which are unrelated to
# quadratics. A dotted line marks the horizon of both trainings. Adam has the best of nine rates in
# each test.


# %%
def losses(optimizer_fn, optimizer_params, family, steps, num_tasks):
    """Returns the losses along trainings of several tasks, `[tasks, steps]`."""
    drawn = rollouts.draw(family, jax.random.split(jax.random.key(1), num_tasks))
    return np.asarray(
        rollouts.rollouts(family, optimizer_fn, optimizer_params, *drawn, num_steps=steps)
    )


def compare(family, steps, num_tasks):
    """Returns the losses of every optimizer, by name."""
    rates = np.geomspace(1e-3, 1, 9)
    adams = [losses(optax.adam, rate, family, steps, num_tasks) for rate in rates]
    best = min(adams, key=lambda each: np.nan_to_num(each[:, -1].mean(), nan=np.inf))
    trained = alphaopt.alphaopt(agent=agent.agent, num_steps=steps)
    return {
        "LSTM": losses(lambda _: l2l(lstm.optimizer), 0, family, steps, num_tasks),
        "AlphaOpt": losses(lambda _: trained, 0, family, steps, num_tasks),
        "Adam, tuned": best,
    }


num_tasks, longer = (2, 2 * HORIZON) if QUICK else (64, 10 * HORIZON)
digits = distribution.validation_families()["wide_digits_gelu"]
curves = {
    "quadratics, as trained": compare(family, HORIZON, num_tasks),
    "ten times the steps": compare(family, longer, num_tasks),
    "digits": compare(digits, HORIZON, 2 if QUICK else 8),
}

# %%
plotting.panels_figure(
    curves, title="Tests with frozen optimizers", emphasized="AlphaOpt", trained=HORIZON
)

# %% [markdown]
# Each has learned the tasks of its training. The LSTM is ahead of a tuned Adam on quadratics, also
# for ten times the steps; AlphaOpt's policy, after these few minutes, is about as good as Adam at
# the horizon of its training. On digits both fail: quadratics alone do not train an optimizer for
# networks, whichever learner is used. (The pretrained agent was trained on many families of tasks.)

# %% [markdown]
# ## Network and learner, exchanged one by one
#
# Above, network and learner differ at once. `python -m benchmarks.rl_vs_rnn` trains each network by
# each learner, on the same tasks, with the same observations and actions. This cell reads its
# results from the repository.

# %%
results = next(
    (
        place / "benchmarks" / "results" / "rl_vs_rnn.json"
        for place in (Path.cwd(), *Path.cwd().parents)
        if (place / "benchmarks" / "results" / "rl_vs_rnn.json").is_file()
    ),
    None,
)
if results is None:
    print("Not in a checkout. See benchmarks/results/rl_vs_rnn.md in the repository.")
else:
    rows = [row for row in json.loads(results.read_text())["rows"] if row["section"] == "loss"]
    tests = "training tasks", "unseen tasks", "ten times the steps"
    print("mean log of final over initial loss: lower is better\n")
    print(f"{'':32}" + "".join(f"{test:>24}" for test in tests))
    for row in rows:
        scores = "".join(f"{row['tests'][test]:24.2f}" for test in tests)
        print(f"{row['network'] + ', ' + row['learner']:32}{scores}")

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
# There are two lines of learned optimizers. Li & Malik learn by reinforcement learning;
# Andrychowicz et al. train a recurrent network by backpropagation through time. It is said that the
# recurrent network wins because it can use direct gradients. Here both are trained on the same
# quadratics for some minutes on a CPU, and tried elsewhere; at the end is what a longer comparison
# found, in which the network and the learner were exchanged one by one.

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
# A coordinatewise LSTM sees each parameter's gradient and puts out its step. Its own parameters
# move along the gradient of the losses, which is taken through 20 steps of training at a time.

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
# A small actor sees AlphaOpt's observation of each parameter and chooses its learning rate. The
# reward is the decrease of the loss; nothing is differentiated but the policy.

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
# ## Tried, frozen
#
# On quadratics that neither has seen; for ten times as many steps; and on digits, which have
# nothing to do with quadratics. A dotted line marks the horizon that both were trained for. Adam
# has the best of nine rates on each of the three.


# %%
def losses(make, made_of, family, steps, number):
    """Losses along trainings of several tasks."""
    drawn = rollouts.draw(family, jax.random.split(jax.random.key(1), number))
    return np.asarray(rollouts.rollouts(family, make, made_of, *drawn, num_steps=steps))


def try_all(family, steps, number):
    """The same of all contenders."""
    adams = [losses(optax.adam, rate, family, steps, number) for rate in np.geomspace(1e-3, 1, 9)]
    best = min(adams, key=lambda each: np.nan_to_num(each[:, -1].mean(), nan=np.inf))
    trained = alphaopt.alphaopt(agent=agent.agent, num_steps=steps)
    return {
        "LSTM": losses(lambda _: l2l(lstm.optimizer), 0, family, steps, number),
        "AlphaOpt": losses(lambda _: trained, 0, family, steps, number),
        "Adam, tuned": best,
    }


number, longer = (2, 2 * HORIZON) if QUICK else (64, 10 * HORIZON)
digits = distribution.validation_families()["wide_digits_gelu"]
found = {
    "quadratics, as trained": try_all(family, HORIZON, number),
    "ten times the steps": try_all(family, longer, number),
    "digits": try_all(digits, HORIZON, 2 if QUICK else 8),
}

# %%
plotting.panels_figure(found, title="Tried elsewhere", emphasized="AlphaOpt", trained=HORIZON)

# %% [markdown]
# Each has learned what it was shown. The LSTM is ahead of a tuned Adam on quadratics, for ten times
# the steps too; AlphaOpt's policy, after these few minutes, is about as good as Adam at the horizon
# that it was trained for. On digits neither is of any use: quadratics alone do not teach an
# optimizer for networks, whoever the teacher is. (The agent that ships was trained on many families
# of tasks, for hours.)

# %% [markdown]
# ## The network and the learner told apart
#
# Above, two things differ at once. `python -m benchmarks.rl_vs_rnn` trains each network by each
# learner, on the same tasks, from the same observations, with the same actions. Its results are
# read here where this notebook lies in the repository.

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
    print("Not in the repository: see benchmarks/results/rl_vs_rnn.md there.")
else:
    rows = [row for row in json.loads(results.read_text())["rows"] if row["section"] == "loss"]
    tests = "what it was trained on", "unseen tasks", "ten times the steps"
    print("mean log of final over initial loss: less is better\n")
    print(f"{'':32}" + "".join(f"{test:>24}" for test in tests))
    for row in rows:
        scores = "".join(f"{row['tests'][test]:24.2f}" for test in tests)
        print(f"{row['network'] + ', ' + row['learner']:32}{scores}")

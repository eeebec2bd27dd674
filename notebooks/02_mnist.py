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
# # MNIST, with only the optimizer replaced
#
# The network is the CNN of Flax's own MNIST example. The optimizer is an agent: it chooses the
# learning rates, and its reward is the decrease of the loss. No learning rate is given. The agent
# starts from scratch here, to show how it learns during training, with one rate for each parameter;
# `alphaopt.alphaopt(num_steps=...)` uses the pretrained agent, with one rate for each array.
#
# The only addition to a training loop is the loss, passed as `value`: `tx.update(grads, state,
# params, value=loss)`. This notebook shows the lines for NNX and for Linen.

# %%
import importlib.util

if importlib.util.find_spec("alphaopt_jax") is None:
    print("Installing AlphaOpt ...")
    # %pip install -q "alphaopt-jax[benchmarks]"

# %%
# %matplotlib inline
import logging
import os
from pathlib import Path
import tempfile

from flax import nnx
from flax.training import train_state
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from tqdm import tqdm

import alphaopt_jax as alphaopt
from alphaopt_jax.tasks import datasets, mnist

logging.basicConfig(format="%(message)s")
QUICK = bool(os.environ.get("ALPHAOPT_NOTEBOOK_QUICK"))
STEPS = 24 if QUICK else 468  # One epoch of batches of 128.
BATCH = 128

# %% [markdown]
# ## The data
#
# MNIST from a prepared TFDS folder or a download; without a network, scikit-learn's small digits.

# %%
data = datasets.load_mnist()
print(f"{len(data.train_labels):,} training images from {data.source.partition(' (')[0]}")

generator = np.random.default_rng(0)


def batches(steps):
    """Yields random batches of images in [0, 1] and their labels."""
    for _ in range(steps):
        chosen = generator.integers(0, len(data.train_labels), BATCH)
        yield data.train_images[chosen].astype(np.float32) / 255.0, data.train_labels[chosen]


figure, panels = plt.subplots(1, 10, figsize=(10, 1.2))
for panel, image, label in zip(panels, data.train_images, data.train_labels, strict=False):
    panel.imshow(image[..., 0], cmap="gray_r")
    panel.set(title=str(label), xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## NNX
#
# `nnx.Optimizer.update` forwards `value`, so the change is one argument.


# %%
class CNN(nnx.Module):
    """The CNN of Flax's MNIST example."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 32, kernel_size=(3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, kernel_size=(3, 3), rngs=rngs)
        self.linear1 = nnx.Linear(7 * 7 * 64, 256, rngs=rngs)
        self.linear2 = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.conv1(x)), window_shape=(2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.relu(self.conv2(x)), window_shape=(2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        return self.linear2(nnx.relu(self.linear1(x)))


model = CNN(nnx.Rngs(0))
tx = alphaopt.alphaopt(agent=None)  # was: optax.adam(1e-3)
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, images, labels):
    """One step of an NNX training loop."""

    def loss_fn(model):
        logits = model(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads, value=loss)  # was: optimizer.update(model, grads)
    return loss


nnx_losses, nnx_rates = [], []
for images, labels in tqdm(batches(STEPS), "NNX", total=STEPS):
    nnx_losses.append(float(train_step(model, optimizer, images, labels)))
    nnx_rates.append(float(alphaopt.metrics(optimizer.opt_state)["mean_learning_rate"]))
print(f"loss of the last ten steps: {np.mean(nnx_losses[-10:]):.3f}")

# %% [markdown]
# ## Linen
#
# Flax's `TrainState.apply_gradients` does not pass extra arguments to the optimizer. A subclass of
# five lines does.


# %%
class TrainState(train_state.TrainState):
    """A `TrainState` that passes the loss to the optimizer."""

    def apply_gradients(self, *, grads, value, **kwargs):
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, value=value)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


def linen_training(tx, seed=0):
    """Trains the same CNN in Linen with any optimizer; returns losses, rates and the state."""
    model = mnist.CNN()
    params = model.init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def train_step(state, images, labels):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads, value=loss), loss  # was: grads=grads

    losses, rates = [], []
    for images, labels in tqdm(batches(STEPS), "Linen", total=STEPS):
        state, loss = train_step(state, images, labels)
        losses.append(float(loss))
        if isinstance(state.opt_state, alphaopt.AlphaOptState):
            rates.append(alphaopt.learning_rates(state.opt_state, state.params))
    return losses, rates, state


losses, rates, state = linen_training(alphaopt.alphaopt(agent=None))
adam_losses, _, adam_state = linen_training(optax.adam(1e-3))

# %% [markdown]
# ## Learning rates
#
# Left, the loss, with that of Adam at its usual rate of 1e-3. Right, the mean learning rate of
# every kernel. The initial rate of each array is relative to the size of its parameters, so the
# rates differ from the first step. Then the agent learns whether larger or smaller ones lower the
# loss.


# %%
def smooth(values, window=10):
    """Moving average."""
    return np.convolve(values, np.ones(window) / window, mode="valid")


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
left.plot(smooth(losses), label="AlphaOpt, from scratch", color="#d55e00", lw=2.2)
left.plot(smooth(adam_losses), label="Adam 1e-3", color="#0072b2")
left.set(yscale="log", xlabel="step", title="Minibatch loss")
left.legend()
for layer in rates[0]:
    means = [float(jnp.mean(rate[layer]["kernel"])) for rate in rates]
    right.plot(means, label=f"{layer} kernel", lw=1.2)
right.set(yscale="log", xlabel="step", title="Mean learning rate, AlphaOpt, from scratch")
right.legend()
plt.show()

# %% [markdown]
# ## Test accuracy

# %%
count = 256 if QUICK else len(data.test_labels)
for name, trained in (("AlphaOpt, from scratch", state), ("Adam 1e-3", adam_state)):
    loss, accuracy = mnist.evaluate(
        trained.params, data.test_images[:count], data.test_labels[:count]
    )
    print(f"{name:<22} test loss {loss:.3f}, accuracy {accuracy:.2%}")

# %% [markdown]
# ## Next steps
#
# `optax.chain(optax.clip_by_global_norm(1.0), alphaopt.alphaopt())` works as with any optimizer.
# `alphaopt.save_agent(path, alphaopt.agent_from_state(state.opt_state))` saves the agent.

# %%
agent = alphaopt.agent_from_state(state.opt_state)
path = Path(tempfile.mkdtemp()) / "mnist_agent.safetensors"
alphaopt.save_agent(path, agent)
print(f"saved an agent of {sum(leaf.size for leaf in jax.tree.leaves(agent.params))} parameters")

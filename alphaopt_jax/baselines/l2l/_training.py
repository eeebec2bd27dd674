"""Training of the LSTM optimizer by backpropagation through time."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, NamedTuple

import chex
import jax
import optax

from alphaopt_jax.baselines import bptt
from alphaopt_jax.baselines.l2l import _network, _optimizer
from alphaopt_jax.tasks.task import Family


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """Hyperparameters of the LSTM optimizer and of its training.

    Attributes:
      widths: Hidden units of each layer.
      grouping: "all", or "conv_and_dense" for one LSTM per kind of layer, as in `LSTMOptimizer`.
      log_sign_exponent: p of the gradient's log-sign encoding; 0 passes gradients unchanged.
      output_scale: Factor of the LSTM's output.
      training: Hyperparameters of the training.
    """

    widths: tuple[int, ...] = (20, 20)
    grouping: str = "all"
    log_sign_exponent: float = 10.0
    output_scale: float = 0.1
    training: bptt.BackpropagationConfig = dataclasses.field(
        default_factory=bptt.BackpropagationConfig
    )

    def init(self, key: chex.PRNGKey) -> chex.ArrayTree:
        """Returns fresh parameters, by group. Consumes `key`."""
        groups = _optimizer.GROUPS[self.grouping]
        features = _optimizer.num_features(self.log_sign_exponent)
        return {
            group: _network.init_params(group_key, self.widths, features)
            for group, group_key in zip(groups, jax.random.split(key, len(groups)), strict=True)
        }

    def lstm_optimizer(self, params: chex.ArrayTree) -> _optimizer.LSTMOptimizer:
        """Returns the optimizer with the given parameters."""
        return _optimizer.LSTMOptimizer(
            params, self.grouping, self.log_sign_exponent, self.output_scale
        )

    def transformation(self, params: chex.ArrayTree) -> optax.GradientTransformation:
        """Returns the optimizer with the given parameters, as an optax transformation."""
        return _optimizer.l2l(self.lstm_optimizer(params))


class LSTMResult(NamedTuple):
    """Result of `train_lstm`.

    Attributes:
      optimizer: The LSTM with the best validation score.
      score: Mean logarithm of its losses along the validation episodes.
      learning_rate: The selected learning rate of the meta-optimizer.
      history: One entry per validation, as in `BackpropagationResult`.
    """

    optimizer: _optimizer.LSTMOptimizer
    score: float
    learning_rate: float
    history: list[dict[str, Any]]


def train_lstm(
    family: Family,
    config: LSTMConfig | None = None,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> LSTMResult:
    """Trains an LSTM optimizer on tasks of one family.

    Args:
      family: Family of the training tasks.
      config: Hyperparameters; `LSTMConfig()` if None.
      seed: Random seed of the whole training.
      folder: Folder for checkpoints; an interrupted training continues from the latest one.
      show_progress: True to show progress.

    Returns:
      The LSTM, and the history.

    Raises:
      ValueError: `folder` holds another training.

    Example:
      >>> from alphaopt_jax.baselines.bptt import BackpropagationConfig
      >>> from alphaopt_jax.tasks.papers import l2l
      >>> short = BackpropagationConfig(
      ...     horizon=10, unroll=5, episodes=2, validate_every=1, learning_rates=(1e-2,)
      ... )
      >>> result = train_lstm(l2l.quadratics(), LSTMConfig(training=short), show_progress=False)
      >>> len(result.history)
      3
    """
    config = LSTMConfig() if config is None else config
    trainable = bptt.TrainableOptimizer("LSTM", config.transformation, config.init)
    result = bptt.train(
        [family], trainable, config.training, seed=seed, folder=folder, show_progress=show_progress
    )
    return LSTMResult(
        config.lstm_optimizer(result.params), result.score, result.learning_rate, result.history
    )

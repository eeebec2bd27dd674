"""How the LSTM optimizer learns: by backpropagation through time."""

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
    """Constants of the LSTM and of its training.

    Attributes:
      widths: H of each layer.
      grouping: One of `optimizer.GROUPINGS`: which parameters share an LSTM.
      log_sign_exponent: p of `network.log_sign`; 0 shows the gradient as it is.
      output_scale: What the LSTM's output is multiplied by.
      training: Constants of the training.
    """

    widths: tuple[int, ...] = (20, 20)
    grouping: str = "all"
    log_sign_exponent: float = 10.0
    output_scale: float = 0.1
    training: bptt.BackpropagationConfig = dataclasses.field(
        default_factory=bptt.BackpropagationConfig
    )

    def init(self, key: chex.PRNGKey) -> chex.ArrayTree:
        """Fresh parameters, by group. Consumes `key`."""
        groups = _optimizer.GROUPS[self.grouping]
        features = _optimizer.num_features(self.log_sign_exponent)
        return {
            group: _network.init_params(group_key, self.widths, features)
            for group, group_key in zip(groups, jax.random.split(key, len(groups)), strict=True)
        }

    def learned(self, params: chex.ArrayTree) -> _optimizer.LSTMOptimizer:
        """The optimizer with these parameters."""
        return _optimizer.LSTMOptimizer(
            params, self.grouping, self.log_sign_exponent, self.output_scale
        )

    def make(self, params: chex.ArrayTree) -> optax.GradientTransformation:
        """The same as an optax transformation."""
        return _optimizer.l2l(self.learned(params))


class LSTMResult(NamedTuple):
    """What comes out of `train_lstm`.

    Attributes:
      optimizer: The LSTM with the best validation.
      score: Mean log of the losses along its validation episodes.
      learning_rate: Of the LSTM's own Adam, as chosen.
      history: A line for each validation, as in `backpropagation.BackpropagationResult`.
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
    show: bool = True,
) -> LSTMResult:
    """Trains an LSTM optimizer over tasks of one family.

    Args:
      family: What to train on.
      config: The constants.
      seed: Decides everything that is drawn.
      folder: Where to keep checkpoints; a training that was interrupted goes on from the last.
      show: Whether to show progress.

    Returns:
      The LSTM and its history.

    Raises:
      ValueError: `folder` holds another training.

    Example:
      >>> from alphaopt_jax.baselines.backpropagation import BackpropagationConfig
      >>> from alphaopt_jax.tasks.papers import l2l
      >>> short = BackpropagationConfig(
      ...     horizon=10, unroll=5, episodes=2, validate_every=1, learning_rates=(1e-2,)
      ... )
      >>> result = train_lstm(l2l.quadratics(), LSTMConfig(training=short), show=False)
      >>> len(result.history)
      3
    """
    config = LSTMConfig() if config is None else config
    result = bptt.train(
        [family],
        config.make,
        config.init,
        config.training,
        label="LSTM",
        seed=seed,
        folder=folder,
        show=show,
    )
    return LSTMResult(
        config.learned(result.params), result.score, result.learning_rate, result.history
    )

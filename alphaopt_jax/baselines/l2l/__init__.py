"""The LSTM optimizer of *Learning to learn by gradient descent* (Andrychowicz et al. 2016)."""

from alphaopt_jax.baselines.l2l._optimizer import (
    LSTMOptimizer,
    LSTMState,
    l2l,
    load_lstm,
    save_lstm,
)
from alphaopt_jax.baselines.l2l._training import LSTMConfig, LSTMResult, train_lstm

__all__ = [
    "LSTMConfig",
    "LSTMOptimizer",
    "LSTMResult",
    "LSTMState",
    "l2l",
    "load_lstm",
    "save_lstm",
    "train_lstm",
]

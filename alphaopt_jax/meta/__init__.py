"""Meta-training: an agent learns over a distribution of tasks."""

from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.meta.training import MetaTrainingResult, Schedule, meta_train

__all__ = ["MetaConfig", "MetaTrainingResult", "Schedule", "meta_train"]

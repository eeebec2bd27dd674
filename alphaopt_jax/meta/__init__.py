"""Meta-training: reinforcement learning of an agent over a distribution of tasks."""

from alphaopt_jax.meta._devices import all_devices_mesh
from alphaopt_jax.meta.config import MetaConfig, rotated_config
from alphaopt_jax.meta.method import Method
from alphaopt_jax.meta.training import MetaTrainingResult, RunOptions, Schedule, meta_train

__all__ = [
    "MetaConfig",
    "MetaTrainingResult",
    "Method",
    "RunOptions",
    "Schedule",
    "all_devices_mesh",
    "meta_train",
    "rotated_config",
]

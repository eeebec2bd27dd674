"""Tasks to optimize: the interface, and landscapes, networks, data sets and families of tasks."""

from alphaopt_jax.tasks.landscapes import LANDSCAPES, Landscape
from alphaopt_jax.tasks.task import Family, Task

__all__ = ["LANDSCAPES", "Family", "Landscape", "Task"]

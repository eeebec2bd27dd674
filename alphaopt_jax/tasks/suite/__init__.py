"""The test suite: tasks for comparing optimizers, none of which an agent is trained on."""

from alphaopt_jax.tasks.suite.catalog import LARGE, SUITE, SuiteTask, num_parameters

__all__ = ["LARGE", "SUITE", "SuiteTask", "num_parameters"]

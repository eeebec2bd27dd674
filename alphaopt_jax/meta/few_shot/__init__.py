"""Few-shot learning: meta-training on episodes of Omniglot, and meta-tests with a frozen agent."""

from alphaopt_jax.meta.few_shot._optimizers import frozen_optimizer
from alphaopt_jax.meta.few_shot.config import FewShotConfig
from alphaopt_jax.meta.few_shot.initialization import (
    Initialization,
    load_initialization,
    save_initialization,
)
from alphaopt_jax.meta.few_shot.testing import Curves, Learner, MetaTestPlan, meta_test
from alphaopt_jax.meta.few_shot.training import FewShotResult, train_few_shot

__all__ = [
    "Curves",
    "FewShotConfig",
    "FewShotResult",
    "Initialization",
    "Learner",
    "MetaTestPlan",
    "frozen_optimizer",
    "load_initialization",
    "meta_test",
    "save_initialization",
    "train_few_shot",
]

"""AlphaOpt: an optimizer that is a reinforcement-learning agent.

>>> import alphaopt_jax as alphaopt
>>> tx = alphaopt.alphaopt()
"""

from alphaopt_jax._agent.agent import Agent, load_agent, save_agent
from alphaopt_jax._optimizer.inspection import (
    agent_from_state,
    eval_params,
    learning_rates,
    metrics,
    new_episode,
)
from alphaopt_jax._optimizer.state import AlphaOptState
from alphaopt_jax._optimizer.transform import alphaopt, scale_by_alphaopt
from alphaopt_jax.config import AgentConfig, AlphaOptConfig, LearningConfig, PPOConfig, StepConfig
from alphaopt_jax.evaluation import evaluate
from alphaopt_jax.meta import MetaConfig, Schedule, meta_train

__all__ = [
    "Agent",
    "AgentConfig",
    "AlphaOptConfig",
    "AlphaOptState",
    "LearningConfig",
    "MetaConfig",
    "PPOConfig",
    "Schedule",
    "StepConfig",
    "agent_from_state",
    "alphaopt",
    "eval_params",
    "evaluate",
    "learning_rates",
    "load_agent",
    "meta_train",
    "metrics",
    "new_episode",
    "save_agent",
    "scale_by_alphaopt",
]

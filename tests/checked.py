"""The modules whose functions have the shapes of their arrays in their signatures.

Others are not checked: beartype cannot read all that stands in theirs, such as `typing.Self`.
"""

import os

CHECKS = os.environ.get("ALPHAOPT_TESTS_CHECK_SHAPES", "1") != "0"
"""It takes a twentieth of the time; `.ci/run` checks in one of its two runs."""
MODULES = tuple(
    f"alphaopt_jax.{name}"
    for name in (
        "acting",
        "arguments",
        "baselines.initializations",
        "baselines.l2l.network",
        "baselines.rollouts",
        "credit",
        "explorers",
        "guard",
        "inspection",
        "learner",
        "learning",
        "looking",
        "memory",
        "meta.environment",
        "meta.exploration",
        "meta.method",
        "meta.population",
        "meta.ppo",
        "observation",
        "policy",
        "rounding",
        "samples",
        "state",
        "stepping",
        "tasks.landscapes",
        "tasks.networks",
    )
)

"""Modules whose shape annotations are checked while the tests run.

Others are not checked: beartype cannot evaluate some annotations, such as `typing.Self`.
"""

import os

CHECKS = os.environ.get("ALPHAOPT_TESTS_CHECK_SHAPES", "1") != "0"
"""Checks take a twentieth of the time; `.ci/run` enables them in one of its two runs."""
MODULES = tuple(
    f"alphaopt_jax.{name}"
    for name in (
        "_agent.action",
        "_optimizer.checks",
        "baselines._inner_loop",
        "baselines.maml",
        "baselines.l2l._network",
        "tasks.rollouts",
        "_learning.reward",
        "_learning.explorers",
        "_optimizer.safeguards",
        "_optimizer.inspection",
        "_learning.online",
        "_learning.ppo",
        "_optimizer.coordinate_rates",
        "_agent.history",
        "_agent.leaves",
        "_agent.schedule",
        "_agent.statistics",
        "meta._environment",
        "meta._episode",
        "meta._exploration",
        "meta.method",
        "meta._population",
        "meta.ppo",
        "_agent.observation",
        "_agent.network",
        "_optimizer.stochastic_rounding",
        "_agent.sampling",
        "_optimizer.state",
        "_optimizer.plan",
        "_optimizer.units",
        "_optimizer.step",
        "tasks.landscapes",
        "tasks.networks",
    )
)

"""Runs of all optimizers on one landscape."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax.tasks.landscapes import Landscape
from benchmarks.landscapes import episodes
from benchmarks.landscapes.episodes import AgentRunner, Episode
from benchmarks.landscapes.optimizers import BASELINES


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All results on one landscape: S seeds, E episodes.

    Attributes:
      landscape: The landscape.
      whole: First episodes with learning, all T steps; leading axis S.
      steps_first: `int[S]`, steps to the target in them.
      steps_on: `int[S, E]`, steps to the target in every episode, with learning.
      off: First episodes without learning; leading axis S.
      steps_off: `int[S, E]`, steps to the target without learning.
      steps_pretrained: As `steps_on`, of the pretrained agent, which learns on.
      baselines: Episodes by baseline; the leading axis is the learning rate.
      practice: Points visited by the first seed in each episode, up to the target.
      agent: The first seed's agent after all episodes.
    """

    landscape: Landscape
    whole: Episode
    steps_first: np.ndarray
    steps_on: np.ndarray
    off: Episode
    steps_off: np.ndarray
    steps_pretrained: np.ndarray
    baselines: dict[str, Episode]
    practice: list[np.ndarray]
    agent: alphaopt.Agent


class Runners:
    """Compiled programs for all landscapes.

    Attributes:
      whole: Whole episodes with learning.
      practice: Repeated episodes with learning, which usually end at the target.
      pretrained: The same, of the pretrained agent.
      frozen: Whole episodes without learning.
      num_steps: Steps in an episode.
    """

    def __init__(self, num_steps: int, *, whole_episodes: bool):
        """Creates the runners.

        Args:
          num_steps: Steps in an episode.
          whole_episodes: Whether repeated episodes continue after the target is reached.
        """
        self.num_steps = num_steps
        self.whole = AgentRunner(learn=True, num_steps=num_steps, stop_at_target=False)
        self.practice, self.pretrained = (
            AgentRunner(
                learn=True, num_steps=num_steps, stop_at_target=not whole_episodes, agent=agent
            )
            for agent in (None, "base")
        )
        self.frozen = AgentRunner(learn=False, num_steps=num_steps, stop_at_target=False)


def measure(
    landscape: Landscape,
    runners: Runners,
    seeds: list[int],
    num_episodes: int,
    on_episode: Callable[[], None],
) -> Outcome:
    """Runs all optimizers on one landscape.

    Args:
      landscape: Landscape to minimize.
      runners: Compiled programs.
      seeds: Seeds of the agents.
      num_episodes: E, repeated episodes of each agent.
      on_episode: Called twice for every repeated episode.
    """
    _, whole = runners.whole.run(landscape, runners.whole.init(landscape, seeds))

    def run_practice(runner: AgentRunner) -> tuple[optax.OptState, np.ndarray, list[np.ndarray]]:
        """The states after all episodes, the steps of each, and the first seed's paths."""
        states = runner.init(landscape, seeds)
        steps, paths = [], []
        for _ in range(num_episodes):
            states, episode = runner.run(landscape, runner.new_episode(states))
            steps.append(episodes.steps_to_target(landscape, episode.losses))
            paths.append(episode.points[0, : steps[-1][0] + 1])
            on_episode()
        return states, np.stack(steps, axis=1), paths

    states, steps_on, practice = run_practice(runners.practice)
    _, steps_pretrained, _ = run_practice(runners.pretrained)
    # Without learning nothing is random, so all episodes are the same.
    _, off = runners.frozen.run(landscape, runners.frozen.init(landscape, seeds))
    steps_off = episodes.steps_to_target(landscape, off.losses)
    return Outcome(
        landscape=landscape,
        whole=whole,
        steps_first=episodes.steps_to_target(landscape, whole.losses),
        steps_on=steps_on,
        off=off,
        steps_off=np.repeat(steps_off[:, None], num_episodes, axis=1),
        steps_pretrained=steps_pretrained,
        baselines={
            name: episodes.run_baselines(landscape, name, runners.num_steps) for name in BASELINES
        },
        practice=practice,
        agent=alphaopt.agent_from_state(episodes.first(states)),
    )


def best_rate(landscape: Landscape, runs: Episode) -> int:
    """Index of the best learning rate among the runs of a baseline.

    The best is the first to reach the target among those that end within it, or the one with the
    lowest final loss if none does.
    """
    final = episodes.gaps(landscape, runs.losses[:, -1])
    steps = episodes.steps_to_target(landscape, runs.losses)
    stays = final <= episodes.TARGET
    return int(np.argmin(np.where(stays, steps, np.inf) if stays.any() else final))

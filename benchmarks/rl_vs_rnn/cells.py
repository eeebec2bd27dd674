"""The cells of the comparison: each network trained by each learner."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

from alphaopt_jax.baselines.bptt import BackpropagationConfig
from benchmarks.rl_vs_rnn import learners, networks, ppo, tasks

POLICY, LSTM = "AlphaOpt's policy", "LSTM"
PPO, BPTT, EVOLUTION = "PPO", "BPTT", "evolution"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One network trained by one learner.

    Attributes:
      network: Name of the network.
      learner: Name of the learner.
      rates: Learning rates to choose from.
    """

    network: str
    learner: str
    rates: tuple[float, ...]

    @property
    def name(self) -> str:
        """The names of network and learner."""
        return f"{self.network}, {self.learner}"


NETWORKS: Mapping[str, networks.LearnedOptimizer] = {
    network.name: network
    for network in (networks.feedforward(), networks.recurrent(), networks.PublishedLSTM())
}
PUBLISHED = networks.PublishedLSTM().name
_RATES = {PPO: (1e-3, 3e-3, 1e-2), BPTT: (1e-3, 3e-3, 1e-2), EVOLUTION: (3e-3, 1e-2, 3e-2)}
CELLS = (
    *(
        Cell(network, learner, rates)
        for network in NETWORKS
        if network != PUBLISHED
        for learner, rates in _RATES.items()
    ),
    Cell(PUBLISHED, BPTT, _RATES[BPTT]),
)


def make_learner(cell: Cell, rate: float) -> learners.Learner:
    """The learner of a cell with a learning rate."""
    network = NETWORKS[cell.network]
    if cell.learner == PPO:
        if not isinstance(network, networks.Network):
            raise TypeError(f"PPO adds noise to log rates, and {cell.network} has none.")
        return ppo.PPO(network, ppo.PPOConfig(horizon=tasks.HORIZON, learning_rate=rate))
    if cell.learner == EVOLUTION:
        config = learners.EvolutionConfig(horizon=tasks.HORIZON, learning_rate=rate)
        return learners.Evolution(network, config)
    return learners.BackpropagationLearner(
        network,
        BackpropagationConfig(
            horizon=tasks.HORIZON, objective="log_loss", tasks=4, learning_rates=(rate,)
        ),
    )

"""Learning within a training: explorers, rewards, and PPO on their rollouts."""

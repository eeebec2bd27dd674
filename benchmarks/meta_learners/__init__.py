"""Ways to meta-train an agent: PPO and evolution strategies."""

"""The agent: observation, actor-critic, actions, and agent files."""

"""The agent: what it observes, its actor-critic, its actions, and how it is saved."""

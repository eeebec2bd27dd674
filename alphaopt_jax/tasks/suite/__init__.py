"""The test suite: tasks that no agent is trained on, for comparing optimizers."""

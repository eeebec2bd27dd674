"""MNIST: Flax's example CNN with only the optimizer replaced."""

"""Flax's example CNN on MNIST with only the optimizer replaced."""

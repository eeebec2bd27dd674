"""Learned optimizers and initializations from the literature, with their training."""

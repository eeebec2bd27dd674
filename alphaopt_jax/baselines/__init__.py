"""The other learned optimizers of the field, as optax transformations and with their training."""

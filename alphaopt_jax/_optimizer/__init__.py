"""The optax transformation: one step, its state, and what keeps a step from doing harm."""

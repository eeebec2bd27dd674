"""The optax transformation: one step, its state and safeguards."""

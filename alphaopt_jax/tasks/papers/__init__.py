"""Tasks of the papers whose optimizers are the baselines."""

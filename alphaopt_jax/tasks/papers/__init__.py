"""The tasks of the papers whose optimizers are rebuilt here."""

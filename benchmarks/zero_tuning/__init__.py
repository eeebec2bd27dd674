"""One setting for all tasks, against optimizers tuned on each."""

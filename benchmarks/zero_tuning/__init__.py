"""One setting for all tasks, compared with optimizers that are tuned on each task."""

"""`learn=True` beside the same agent frozen."""

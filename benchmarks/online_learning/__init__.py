"""Online learning: `learn=True` against the same agent frozen."""

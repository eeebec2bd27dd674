"""Situations that users of other optimizers reported, with others of the same kind."""

"""Few-shot learning: meta-training on episodes of Omniglot, and testing with a frozen agent."""

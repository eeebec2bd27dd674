"""Few-shot learning on Omniglot with a pretrained optimizer."""

"""What is optimized: landscapes, networks, data sets."""

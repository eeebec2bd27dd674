"""Cost of one optimizer step in time and memory, beside Adam."""

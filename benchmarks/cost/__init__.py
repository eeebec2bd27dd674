"""Time and memory of one optimizer step, compared with Adam."""

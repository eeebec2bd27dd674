"""The optimizers of Li & Malik 2016 and 2017."""

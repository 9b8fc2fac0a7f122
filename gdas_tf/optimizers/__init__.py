"""The optimizers of the method."""

"""TensorFlow below the layers: operations with the gradients that are fast, and constants of a graph."""

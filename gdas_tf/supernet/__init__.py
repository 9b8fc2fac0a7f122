"""The supernet: the network of all candidates that a search trains."""

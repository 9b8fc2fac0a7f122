"""The training of the supernet and of the derived network."""

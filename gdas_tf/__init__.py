"""gdas-tf: search a convolutional cell with GDAS, retrain the network built of it, export it."""

__version__ = "0.2.0"

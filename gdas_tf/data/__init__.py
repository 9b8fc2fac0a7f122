"""Labelled images, and the batches made of them."""

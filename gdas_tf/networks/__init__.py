"""Networks made of a genotype, as plain Keras models."""

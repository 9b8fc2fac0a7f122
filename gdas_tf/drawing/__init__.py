"""Pictures of cells, and of the curves of a search and of a retraining."""

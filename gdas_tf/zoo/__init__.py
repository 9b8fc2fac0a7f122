"""The zoo: published cells and networks by name, each with its figures and their sources (`entries.ZOO`)."""

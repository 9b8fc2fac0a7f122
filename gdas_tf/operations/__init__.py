"""The candidate operations of a search."""

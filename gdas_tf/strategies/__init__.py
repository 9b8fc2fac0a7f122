"""Strategies of search: what is sampled, and what is derived of it."""

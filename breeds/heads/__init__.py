"""Heads: what is trained on the features, and the one safe file format for all of them."""

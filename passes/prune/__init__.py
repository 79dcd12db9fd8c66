"""Structured pruning: which channels belong together, what removing them means, and the passes that remove them."""

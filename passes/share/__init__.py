"""Passes that let weights share values: codebooks in the graph."""

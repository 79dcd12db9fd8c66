"""What a decoder raises where the data contradicts itself."""

__all__ = ["CodingError"]


class CodingError(ValueError):
    """Coded data is damaged: it can't be what an encoder wrote."""

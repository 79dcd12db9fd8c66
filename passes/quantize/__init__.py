"""Lossy rewrites to integer arithmetic."""

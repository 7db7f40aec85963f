"""Generators of 3D scenes that learn from pictures against a critic."""

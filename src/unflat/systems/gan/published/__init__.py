"""Generators that others have trained, read from their files."""

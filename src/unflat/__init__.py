"""Flat pictures into 3D."""

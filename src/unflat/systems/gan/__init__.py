"""Generative models of objects, learned from single views of many: parts and systems."""

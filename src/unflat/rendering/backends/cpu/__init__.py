"""Fused rendering on the CPU."""

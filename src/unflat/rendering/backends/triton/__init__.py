"""Fused rendering on CUDA devices."""

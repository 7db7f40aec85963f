"""Fused marching on the CPU: lookups, network and quadrature in one compiled loop, on every core.

Needs numba (``pip install "unflat[fast]"``). Compiled once on a computer, some fifteen seconds for
each kind of field, and kept on disk. This package can be imported without it; `backend` cannot.
"""

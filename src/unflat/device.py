"""Where to compute: the name a person gives, made definite."""

from unflat.errors import UserError


def choose_device(name: str) -> str:
    """A device of torch that is there: "cpu", "cuda" or "mps".

    Args:
        name: one of these, or "auto": a CUDA GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device was found; use --device cpu.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: this computer has no such device; use --device cpu.")
    return name

"""Whether a backend does on this very computer what the reference does."""

import torch
from torch import Tensor, nn

from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.rendering.backends.contract import Backend, Marching, Rays
from unflat.rendering.backends.reference import Reference

_PICTURE, _GRADIENT = 1e-4, 1e-3


def disagreement(backend: Backend, device: torch.device | str) -> str | None:
    """What is wrong with a backend's picture or gradients of a small tri-plane, if anything.

    A kernel that was tried on other hardware only is asked this before it is trusted.

    Args:
        backend: one that marches tri-planes.
        device: where.

    Returns:
        Half a sentence; None if pictures agree to 1e-4 and gradients to 1e-3 of their size.
    """
    generator = torch.Generator().manual_seed(0)
    decoder = FeatureDecoder(16, 32)
    with torch.no_grad():
        for part in decoder.parameters():
            part.copy_(0.3 * torch.randn(part.shape, generator=generator))
    planes = nn.Parameter(torch.randn(1, 3, 16, 9, 12, generator=generator))
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    field = TriplaneField(planes, decoder, box).to(device)
    origins = 0.3 * torch.randn(1, 40, 3, generator=generator)
    origins[..., 2] -= 2.0
    edges = torch.linspace(0.5, 3.5, 22).expand(1, 40, -1)
    lines = [part.to(device) for part in (origins, torch.eye(3)[2].expand(1, 40, 3), edges)]
    results: list[list[Tensor]] = []
    try:
        for way in (Reference(), backend):
            marched = way.march(field, Rays(*(part.contiguous() for part in lines)), Marching())
            loss = marched.features.square().sum() + marched.weights.square().sum()
            gradients = torch.autograd.grad(loss, list(field.parameters()))
            results.append([marched.features, marched.weights, *gradients])
    except Exception as error:  # whatever a compiler or a driver may raise
        return f"it fails with {type(error).__name__}: {str(error).splitlines()[0]}"
    for place, (expected, found) in enumerate(zip(*results, strict=True)):
        most = _PICTURE if place < 2 else _GRADIENT * float(expected.detach().abs().max())
        apart = float((found - expected).detach().abs().max())
        if not apart <= most:
            return f"it is off by {apart:.2g} where {most:.2g} is allowed"
    return None

"""Fused rendering on CUDA devices, by Triton kernels; Triton comes with torch's CUDA builds.

A tri-plane with a small decoder is gathered, decoded and summed along rays in one kernel, forward
and backward; see `kernels`. Without a device the same kernels run, slowly, in Triton's interpreter:
that is for tests, and asked for by the environment variable ``TRITON_INTERPRET=1``.
"""

import os

import torch
from torch import Tensor

from unflat.fields.field import Field, FieldOutput
from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.rendering.backends.contract import Marched, Marching, Rays

LARGEST_CHANNELS = 64
"""Of a plane."""
LARGEST_HIDDEN = 128
"""Width of the decoder's hidden layer."""
LARGEST_OUT = 64
"""Channels of what is seen."""
MOST_WEIGHTS = 2**14
"""Of the decoder, its sides rounded up by `tile`; more would not fit the 99 KiB that the smallest
multiprocessor has for a program."""
LEAST_TILE = 16
"""What matrix products in kernels want of every side."""
LEAST_CAPABILITY = (8, 0)
"""Ampere; older cards have not been tried."""
_MOST_NUMBERS = 2**31  # of one scene's planes: places in them are 32-bit

_FLOATS = (torch.float32, torch.bfloat16)


class Triton:
    """Tri-planes on CUDA devices, in float32 or, under autocast or where planes are, bfloat16.

    In bfloat16 only the planes are stored so; they are summed in float32, and products on the way
    forward take TF32's 10 bits of mantissa. A ray ends by itself where its light does, so that
    neither chunks nor other scenes change a picture. Sums of gradients are made in no fixed order
    and round accordingly. Derivatives are of the first order only.
    """

    name = "triton"

    def refuses(self, field: Field, rays: Rays) -> str | None:
        """Other fields and decoders, places and precisions; sizes that registers cannot hold."""
        if type(field) is not TriplaneField:
            return "it marches TriplaneField alone"
        decoder = field.decoder
        if type(decoder) is not FeatureDecoder:
            return f"it knows FeatureDecoder alone, not {type(decoder).__name__}"
        tensors = (field.planes, *decoder.parameters(), *rays[:3])
        return _refuses_place(tensors) or _refuses_sizes(field, decoder) or _refuses_rays(rays)

    def pays(self, field: Field, rays: Rays) -> bool:
        """Always."""
        return True

    def march(self, field: Field, rays: Rays, how: Marching) -> Marched:
        """Light along the rays; differentiable once."""
        from unflat.rendering.backends.triton.march import march

        if not isinstance(field, TriplaneField):
            raise ValueError(f"{type(field).__name__} is not marched by Triton")
        return march(field, rays, how)

    def pays_to_ask(self, field: Field, points: Tensor) -> bool:
        """Always."""
        return True

    def ask(self, field: Field, points: Tensor) -> FieldOutput | None:
        """It has no quicker way than the field's own."""
        return None


def interpreted() -> bool:
    """Whether kernels are asked to run in Triton's interpreter, on any machine."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def tile(size: int) -> int:
    """A size as kernels have it: the next power of two, at least LEAST_TILE."""
    return max(LEAST_TILE, 1 << (size - 1).bit_length())


def padded_weights(decoder: FeatureDecoder) -> int:
    """Numbers in the decoder's matrices as kernels have them."""
    (hidden, channels), out = decoder.into.weight.shape, decoder.out.weight.shape[0]
    return tile(hidden) * (tile(channels) + tile(out))


def _refuses_place(tensors: tuple[Tensor, ...]) -> str | None:
    """Where they are, and in which precision."""
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        return f"field and rays are on {sorted(map(str, devices))}"
    device = devices.pop()
    if device.type != "cuda" and not interpreted():
        return f"it needs a CUDA device, not {device.type}"
    if device.type == "cuda" and not interpreted():
        if torch.version.hip is not None:
            return "it has not been tried on ROCm"
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            return f"it needs compute capability {LEAST_CAPABILITY}, not {capability}"
    strange = {str(tensor.dtype) for tensor in tensors if tensor.dtype not in _FLOATS}
    return f"it knows float32 and bfloat16, not {sorted(strange)}" if strange else None


def _refuses_sizes(field: TriplaneField, decoder: FeatureDecoder) -> str | None:
    """What registers and 32-bit places cannot hold."""
    hidden, channels = decoder.into.weight.shape
    sizes = (
        ("channels", channels, LARGEST_CHANNELS),
        ("hidden", hidden, LARGEST_HIDDEN),
        ("out", decoder.out.weight.shape[0] - 1, LARGEST_OUT),
        ("rounded number of weights", padded_weights(decoder), MOST_WEIGHTS),
        ("numbers of a scene's planes", field.planes[0].numel(), _MOST_NUMBERS - 1),
    )
    return next(
        (f"{name} is {size}, above {most}" for name, size, most in sizes if size > most), None
    )


def _refuses_rays(rays: Rays) -> str | None:
    """Precision, and gradients that it does not make."""
    if any(tensor is not None and tensor.dtype != torch.float32 for tensor in rays):
        return "rays must be float32"
    if torch.is_grad_enabled() and rays.edges.requires_grad:
        return "edges get no gradients"
    return None

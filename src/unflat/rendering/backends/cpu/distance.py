"""Tri-planes of signed distances (`unflat.fields.DistanceTriplaneField`) for the march."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unflat.fields.distance import LEAST, DistanceDecoder, DistanceTriplaneField, LaplaceDensity
from unflat.rendering.backends.cpu.triplane import Triplane, TriplaneGradients, arrays, gradient


class DistanceAdapter:
    """`DistanceTriplaneField`, marched as other tri-planes are; its features are the choices."""

    gradients: ClassVar[type] = TriplaneGradients
    tables: ClassVar[tuple[str, ...]] = ("table",)
    cameras: ClassVar[bool] = True

    def refuses(self, field: DistanceTriplaneField) -> str | None:
        """Other decoders and densities, and other precisions."""
        for part, known in ((field.decoder, DistanceDecoder), (field.density, LaplaceDensity)):
            if type(part) is not known:
                return f"it does not know {type(part).__name__}"
        if field.planes.dtype not in (torch.float32, torch.bfloat16):
            return f"planes are {field.planes.dtype}; it takes float32 and bfloat16"
        for name, part in (
            ("decoder", field.decoder.into.weight),
            ("density", field.density.thinness),
        ):
            if part.dtype != torch.float32:
                return f"the {name} is {part.dtype}; it takes float32"
        if field.align_corners and field.planes.shape[-1] != field.planes.shape[-2]:
            return f"planes of {tuple(field.planes.shape[-2:])} have no corners to align"
        return None

    def tensors(self, field: DistanceTriplaneField) -> dict[str, Tensor]:
        """Planes, the two layers as they are used, and the density's two numbers likewise."""
        into, into_bias, out, out_bias = field.decoder.layers()
        numbers = torch.stack([field.density.thinness, field.density.beta])
        return {
            "table": field.planes,
            "into": into,
            "into_bias": into_bias,
            "out": out,
            "out_bias": out_bias,
            "laplace": numbers.clamp_min(LEAST),
        }

    def channels(self, field: DistanceTriplaneField) -> int:
        """Colors of the palette."""
        return field.decoder.out.weight.shape[0] - 1

    def arrays(self, field: DistanceTriplaneField, tensors: Mapping[str, Tensor]) -> Triplane:
        """Sizes padded with zeros."""
        side = field.planes.shape[-1]
        stretch = (side - 1) / side if field.align_corners else 1.0
        return arrays(tensors, field.bounds, stretch)

    def gradient(
        self, name: str, array: np.ndarray, field: DistanceTriplaneField, tensor: Tensor
    ) -> Tensor:
        """Without the padding, in the order of the tensor."""
        return gradient(name, array, tensor)

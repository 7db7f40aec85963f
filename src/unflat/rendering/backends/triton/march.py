"""The kernels as one differentiable function of planes, decoder and rays."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd import Function

from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.rendering.backends.contract import Marched, Marching, Rays
from unflat.rendering.backends.triton import kernels
from unflat.rendering.backends.triton.backend import tile

MOST_RAYS, LEAST_RAYS = 32, 16
"""Of a program: fewer where the decoder is wider than EG3D's (32, 64, 4), so that registers hold
them; with `WARPS`, next to nothing is spilled on sm_80 and sm_90."""
WIDE = 64 * (32 + 16)
"""Weights of a decoder above which it is wide, its sides rounded up by `tile`."""
WARPS = 8


class Inputs(NamedTuple):
    """Tensors as the caller has them; derivatives go to all but edges and bounds."""

    planes: Tensor
    into: Tensor
    into_bias: Tensor
    out: Tensor
    out_bias: Tensor
    origins: Tensor
    directions: Tensor
    edges: Tensor
    lengths: Tensor | None
    bounds: Tensor | None
    """Of the field; None: all of space, contracted."""


class Plan(NamedTuple):
    """What is not a tensor."""

    how: Marching
    half: bool
    """Planes are stored in bfloat16."""


def march(field: TriplaneField, rays: Rays, how: Marching) -> Marched:
    """Features and weights of all rays, differentiable once.

    Raises:
        ValueError: the field or the occupancy grid has another number of scenes than the rays, or
            the grid is on another device.
    """
    decoder = field.decoder
    if not isinstance(decoder, FeatureDecoder):
        raise ValueError(f"the decoder is a {type(decoder).__name__}, not a FeatureDecoder")
    if len(field.planes) != len(rays.edges):
        raise ValueError(f"{len(field.planes)} scenes, but rays of {len(rays.edges)}")
    device, grid = rays.edges.device, how.occupancy
    if grid is not None and len(grid.cells) not in (1, len(rays.edges)):
        raise ValueError(f"a grid of {len(grid.cells)} scenes for {len(rays.edges)} scenes")
    if grid is not None and not grid.cells.device == grid.bounds.device == device:
        raise ValueError(f"the occupancy grid is on {grid.cells.device}, the rays are on {device}")
    half = field.planes.dtype == torch.bfloat16 or torch.is_autocast_enabled(device.type)
    inputs = Inputs(
        planes=field.planes,
        into=decoder.into.weight,
        into_bias=decoder.into.bias,
        out=decoder.out.weight,
        out_bias=decoder.out.bias,
        origins=rays.origins,
        directions=rays.directions,
        edges=rays.edges,
        lengths=rays.lengths,
        bounds=getattr(field, "bounds", None),
    )
    return Marched(*_March.apply(Plan(how, half), *inputs))


class _March(Function):
    """Forward kernel; its derivative is `_Derivative`."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *given: Any) -> tuple[Tensor, Tensor]:
        inputs = Inputs(*given)
        (batch, rays), n = inputs.origins.shape[:2], inputs.edges.shape[-1] - 1
        features = inputs.edges.new_zeros(batch, rays, len(inputs.out) - 1)
        weights = inputs.edges.new_zeros(batch, rays, n)
        constants = {"PRECISION": "tf32" if plan.half else "ieee"}
        _launch(kernels.forward, inputs, plan, (features, weights), constants)
        ctx.plan = plan
        ctx.save_for_backward(features, weights, *inputs)
        return features, weights

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = Inputs(*ctx.needs_input_grad[1:])
        grads = Inputs(*_Derivative.apply(ctx.plan, wanted, *grad, *ctx.saved_tensors))
        return (None, *(one if want else None for one, want in zip(grads, wanted, strict=True)))


class _Derivative(Function):
    """Backward kernel; a function of its own so that a second derivative can be refused."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        wanted: Inputs,
        grad_features: Tensor,
        grad_weights: Tensor,
        features: Tensor,
        weights: Tensor,
        *given: Any,
    ) -> tuple[Tensor | None, ...]:
        inputs = Inputs(*given)
        constants = {
            "PRECISION": "ieee",
            "OF_PLANES": bool(wanted.planes),
            "OF_DECODER": any(wanted[1:5]),
            "OF_RAYS": bool(wanted.origins or wanted.directions),
            "OF_LENGTHS": bool(wanted.lengths),
        }
        batch, three, channels, height, width = inputs.planes.shape
        zeros = inputs.edges.new_zeros
        planes = zeros((batch, three, height, width, channels) if constants["OF_PLANES"] else 0)
        decoder = [zeros(one.shape if constants["OF_DECODER"] else 0) for one in inputs[1:5]]
        rays = [zeros(one.shape if constants["OF_RAYS"] else 0) for one in inputs[5:7]]
        lengths = zeros(weights.shape if constants["OF_LENGTHS"] else 0)
        pulls = (grad_features.float().contiguous(), grad_weights.float().contiguous())
        tables = (features, weights, *pulls, planes, *decoder, *rays, lengths)
        _launch(kernels.backward, inputs, plan, tables, constants)
        if constants["OF_PLANES"]:
            planes = planes.permute(0, 1, 4, 2, 3)
        return (planes, *decoder, *rays, None, lengths, None)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> None:
        raise NotImplementedError(
            "the fused Triton march has first derivatives only; for create_graph=True march with"
            ' unflat.rendering.backends.use("reference")'
        )


def _launch(
    kernel: Any,
    inputs: Inputs,
    plan: Plan,
    tables: tuple[Tensor, ...],
    constants: Mapping[str, str | bool],
) -> None:
    """Runs a kernel over all rays.

    Args:
        kernel: of `kernels`.
        inputs: field and rays.
        plan: how.
        tables: what else it reads and writes, in its order.
        constants: what else it is compiled for.
    """
    batch, rays = inputs.edges.shape[:2]
    if batch == 0 or rays == 0:
        return
    with torch.cuda.device_of(inputs.edges):
        known = {**_constants(inputs, plan), **constants}
        kernel[(triton.cdiv(rays, known["R"]), batch)](
            *_read_by_kernels(inputs, plan), *tables, *_numbers(inputs, plan), **known
        )


def _read_by_kernels(inputs: Inputs, plan: Plan) -> tuple[Tensor, ...]:
    """Field and rays as kernels read them: planes with a texel's channels side by side."""
    planes = inputs.planes.to(torch.bfloat16 if plan.half else torch.float32)
    decoder = [tensor.float().contiguous() for tensor in inputs[1:5]]
    rays = [tensor.contiguous() for tensor in inputs[5:8]]
    nothing = rays[-1]  # an address that is not read
    grid = plan.how.occupancy
    return (
        planes.permute(0, 1, 3, 4, 2).contiguous(),
        *decoder,
        nothing if inputs.bounds is None else inputs.bounds.float().contiguous(),
        nothing if grid is None else grid.cells.contiguous(),
        nothing if grid is None else grid.bounds.float().contiguous(),
        *rays,
        nothing if inputs.lengths is None else inputs.lengths.contiguous(),
    )


def _numbers(inputs: Inputs, plan: Plan) -> tuple[int | float, ...]:
    """Numbers that may change from call to call."""
    height, width = inputs.planes.shape[-2:]
    rays, edges = inputs.edges.shape[1:]
    scenes, z, y, x = (0, 0, 0, 0) if plan.how.occupancy is None else plan.how.occupancy.cells.shape
    apart = x * y * z if scenes > 1 else 0  # one grid serves all scenes
    return rays, edges - 1, height, width, x, y, z, apart, float(plan.how.least_light)


def _constants(inputs: Inputs, plan: Plan) -> dict[str, Any]:
    """What kernels are compiled for."""
    (hidden, channels), out, grid = inputs.into.shape, len(inputs.out), plan.how.occupancy
    wide = tile(hidden) * (tile(channels) + tile(out)) > WIDE
    return {
        "CHANNELS": channels,
        "HIDDEN": hidden,
        "OUT": out,
        "C": tile(channels),
        "H": tile(hidden),
        "K": tile(out),
        "R": LEAST_RAYS if wide else MOST_RAYS,
        "CONTRACTED": inputs.bounds is None,
        "CELLS": grid is not None,
        "EMPTY_OUTSIDE": grid is not None and grid.empty_outside,
        "LENGTHS": inputs.lengths is not None,
        "OPAQUE_LAST": plan.how.opaque_last,
        "BLOCK": plan.how.block,
        "num_warps": WARPS,
        "num_stages": 1,  # many programs at once hide waiting better than buffers of one would
    }

"""Fields of objects as tensors and plain values, and back: what the file of an object holds.

What is sampled (planes, voxels) is kept in half precision, what is computed with (decoders) in
single precision. A new kind of field is a new line of `PACKINGS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from unflat.fields.field import Field
from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.fields.voxels import VoxelField

Packed = tuple[dict[str, Any], dict[str, Tensor]]
"""JSON values, and tensors by name."""


class Packing(NamedTuple):
    """How one kind of field is taken apart and put together."""

    of: type
    """Fields of exactly this type."""
    pack: Callable[[Any], Packed]
    """The field apart; its values may be empty."""
    unpack: Callable[[dict[str, Any], dict[str, Tensor]], Field]
    """The field of what ``pack`` gave."""


def pack_object_field(field: Field) -> Packed:
    """What a field in a box is, in JSON's values, and its tensors.

    Raises:
        ValueError: there is no packing for its type, or for what it is made of.
    """
    for kind, packing in PACKINGS.items():
        if type(field) is packing.of:
            about, tensors = packing.pack(field)
            return {"kind": kind, **about}, tensors
    known = ", ".join(packing.of.__name__ for packing in PACKINGS.values())
    raise ValueError(f"no packing for {type(field).__name__}; there are some for {known}")


def unpack_object_field(about: dict[str, Any], tensors: dict[str, Tensor]) -> Field:
    """The field that ``pack_object_field`` took apart.

    Raises:
        KeyError: something is missing.
        ValueError: an unknown kind.
    """
    if about["kind"] not in PACKINGS:
        raise ValueError(f"unknown kind of field: {about['kind']}")
    return PACKINGS[about["kind"]].unpack(about, tensors)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, named without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _pack_triplane(field: TriplaneField) -> Packed:
    if type(field.decoder) is not FeatureDecoder:
        raise ValueError(f"no packing for a tri-plane with a {type(field.decoder).__name__}")
    if not hasattr(field, "bounds"):
        raise ValueError("a tri-plane over all of space is no object: it needs bounds")
    state = {f"decoder.{name}": value for name, value in field.decoder.state_dict().items()}
    return {}, {"planes": field.planes.half(), "bounds": field.bounds, **state}


def _unpack_triplane(about: dict[str, Any], tensors: dict[str, Tensor]) -> TriplaneField:
    state = under("decoder.", tensors)
    hidden, channels = state["into.weight"].shape
    decoder = FeatureDecoder(channels, hidden, len(state["out.bias"]) - 1)
    decoder.load_state_dict(state)
    return TriplaneField(tensors["planes"].float(), decoder, tensors["bounds"].float()).eval()


def _pack_voxels(field: VoxelField) -> Packed:
    densest = max(float(field.density.max()), 1e-12)  # half precision ends at 65504
    return {"densest": densest}, {
        "density": (field.density / densest).half(),
        "features": field.features.half(),
        "bounds": field.bounds,
    }


def _unpack_voxels(about: dict[str, Any], tensors: dict[str, Tensor]) -> VoxelField:
    density = tensors["density"].float() * about["densest"]
    return VoxelField(density, tensors["features"].float(), tensors["bounds"].float())


PACKINGS: dict[str, Packing] = {
    "triplane": Packing(TriplaneField, _pack_triplane, _unpack_triplane),
    "voxels": Packing(VoxelField, _pack_voxels, _unpack_voxels),
}
"""By the name that stands in the file."""

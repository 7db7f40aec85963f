"""Fields of objects as tensors and plain values, and back: what the file of an object holds.

What is sampled (planes, voxels) is kept in half precision, what is computed with (decoders,
palettes) in single precision. A new kind of field is a new line of `PACKINGS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from unflat.fields.distance import (
    DistanceDecoder,
    DistanceTriplaneField,
    LaplaceDensity,
    PaletteField,
)
from unflat.fields.distance_voxels import DistanceVoxelField
from unflat.fields.field import Field
from unflat.fields.siren import DistanceSirenField, SirenField
from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.fields.voxels import VoxelField
from unflat.nn.siren import FilmSiren

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


def _pack_triplane(field: TriplaneField) -> Packed:
    if type(field.decoder) is not FeatureDecoder:
        raise ValueError(f"no packing for a tri-plane with a {type(field.decoder).__name__}")
    if not hasattr(field, "bounds"):
        raise ValueError("a tri-plane over all of space is no object: it needs bounds")
    state = _named("decoder.", field.decoder.state_dict())
    return {}, {"planes": field.planes.half(), "bounds": field.bounds, **state}


def _unpack_triplane(about: dict[str, Any], tensors: dict[str, Tensor]) -> TriplaneField:
    state = _under("decoder.", tensors)
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


def _pack_distance_voxels(field: DistanceVoxelField) -> Packed:
    return {"softness": field.softness}, {
        "distances": field.distances.half(),
        "features": field.features.half(),
        "bounds": field.bounds,
    }


def _unpack_distance_voxels(
    about: dict[str, Any], tensors: dict[str, Tensor]
) -> DistanceVoxelField:
    return DistanceVoxelField(
        tensors["distances"].float(),
        tensors["features"].float(),
        tensors["bounds"].float(),
        about["softness"],
    )


def _pack_distances(field: DistanceTriplaneField) -> Packed:
    return {"align_corners": field.align_corners}, {
        "planes": field.planes.half(),
        "bounds": field.bounds,
        **_named("decoder.", field.decoder.state_dict()),
        **_named("density.", field.density.state_dict()),
    }


def _unpack_distances(about: dict[str, Any], tensors: dict[str, Tensor]) -> DistanceTriplaneField:
    state = _under("decoder.", tensors)
    hidden, channels = state["into.weight"].shape
    decoder = DistanceDecoder(channels, hidden, len(state["out.bias"]) - 1)
    decoder.load_state_dict(state)
    return DistanceTriplaneField(
        tensors["planes"].float(),
        decoder,
        _density(tensors),
        tensors["bounds"].float(),
        align_corners=about["align_corners"],
    ).eval()


def _pack_palette(field: PaletteField) -> Packed:
    about, tensors = pack_object_field(field.field)
    return {"choices": about}, {"palette": field.palette, **_named("choices/", tensors)}


def _unpack_palette(about: dict[str, Any], tensors: dict[str, Tensor]) -> PaletteField:
    choices = unpack_object_field(about["choices"], _under("choices/", tensors))
    return PaletteField(choices, tensors["palette"])


def _pack_siren(field: SirenField | DistanceSirenField) -> Packed:
    network = field.network
    about = {name: getattr(network, name) for name in _SIREN}
    tensors = {"film": field.film, "bounds": field.bounds}
    tensors |= _named("network.", network.state_dict())
    if isinstance(field, DistanceSirenField):
        tensors |= _named("density.", field.density.state_dict())
    return about, tensors


def _unpack_siren(about: dict[str, Any], tensors: dict[str, Tensor]) -> SirenField:
    return SirenField(_siren(about, tensors), tensors["film"], tensors["bounds"]).eval()


def _unpack_siren_distances(
    about: dict[str, Any], tensors: dict[str, Tensor]
) -> DistanceSirenField:
    network = _siren(about, tensors)
    return DistanceSirenField(network, tensors["film"], _density(tensors), tensors["bounds"]).eval()


def _siren(about: dict[str, Any], tensors: dict[str, Tensor]) -> FilmSiren:
    network = FilmSiren(**{name: about[name] for name in _SIREN})
    network.load_state_dict(_under("network.", tensors))
    return network


def _density(tensors: dict[str, Tensor]) -> LaplaceDensity:
    density = LaplaceDensity(1.0 if "density.alpha" in tensors else None)
    density.load_state_dict(_under("density.", tensors))
    return density


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


_SIREN = ("width", "depth", "out", "view_dependent")

PACKINGS: dict[str, Packing] = {
    "triplane": Packing(TriplaneField, _pack_triplane, _unpack_triplane),
    "distance_triplane": Packing(DistanceTriplaneField, _pack_distances, _unpack_distances),
    "palette": Packing(PaletteField, _pack_palette, _unpack_palette),
    "siren": Packing(SirenField, _pack_siren, _unpack_siren),
    "distance_siren": Packing(DistanceSirenField, _pack_siren, _unpack_siren_distances),
    "voxels": Packing(VoxelField, _pack_voxels, _unpack_voxels),
    "distance_voxels": Packing(DistanceVoxelField, _pack_distance_voxels, _unpack_distance_voxels),
}
"""By the name that stands in the file."""

"""Fields as tensors and plain values, and back: what a Scene file holds.

Planes are kept in half precision, photos in 8 bits as they came, voxels in 8 bits of their densest.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from unflat.fields.cutout import CutoutField
from unflat.fields.detail import DetailField, HiddenSheet
from unflat.fields.edited import EditedField, Inserted
from unflat.fields.viewspace import (
    SURFACE_CHANNELS,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
)
from unflat.fields.voxels import VoxelField
from unflat.geometry.projective import Frame

SavedField = ViewSpaceField | DetailField | EditedField


def pack_field(field: SavedField) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a field is, in JSON's values, and its tensors."""
    if isinstance(field, EditedField):
        return _pack_edited(field)
    if isinstance(field, DetailField):
        about, tensors = pack_field(field.base)
        tensors["photo"] = _eight_bit(field.photo)
        tensors["surface"] = field.disparity.half()
        tensors["spread"] = field.spread.half()
        if field.hidden is not None:
            tensors["hidden_rgb"] = _eight_bit(field.hidden.rgb)
            tensors["hidden_surface"] = field.hidden.disparity.half()
            tensors["hidden_mask"] = field.hidden.mask.to(torch.uint8)
        about = {"kind": "detail", "jump": field.jump, "base": about}
        if field.around is not None:
            about["reach"] = field.reach
            tensors["around_rgb"] = _eight_bit(field.around.rgb)
            tensors["around_surface"] = field.around.disparity.half()
            tensors["around_mask"] = field.around.mask.to(torch.uint8)
        return about, tensors
    tensors = {name: plane.half() for name, plane in field.planes._asdict().items()}
    state = {f"decoder.{name}": value for name, value in field.decoder.state_dict().items()}
    return {
        "kind": "viewspace",
        "surface": field.decoder.surface,
        "frame": dataclasses.asdict(field.frame),
    }, tensors | state


def unpack_field(about: dict[str, Any], tensors: dict[str, Tensor]) -> SavedField:
    """The field that ``pack_field`` took apart.

    Raises:
        KeyError: something is missing.
        ValueError: an unknown kind.
    """
    if about["kind"] == "edited":
        return _unpack_edited(about, tensors)
    if about["kind"] == "detail":
        base = unpack_field(about["base"], tensors)
        if not isinstance(base, ViewSpaceField):
            raise ValueError(f"a detail field over {about['base']['kind']} is unknown")
        return DetailField(
            base,
            tensors["photo"].float() / 255,
            tensors["surface"].float(),
            tensors["spread"].float(),
            _unpack_sheet("hidden", tensors),
            around=_unpack_sheet("around", tensors),
            reach=about.get("reach", 1.0),
            jump=about["jump"],
        )
    if about["kind"] != "viewspace":
        raise ValueError(f"unknown kind of field: {about['kind']}")
    planes = ViewSpacePlanes(*(tensors[name].float() for name in ViewSpacePlanes._fields))
    decoder = ViewSpaceDecoder(planes.uv.shape[1] - SURFACE_CHANNELS, about["surface"])
    prefix = "decoder."
    decoder.load_state_dict(
        {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    )
    return ViewSpaceField(planes, decoder, Frame(**about["frame"])).eval()


def _pack_edited(field: EditedField) -> tuple[dict[str, Any], dict[str, Tensor]]:
    base, tensors = pack_field(field.base)
    objects: list[dict[str, Any]] = []
    for index, (part, placement) in enumerate(field.objects):
        if isinstance(part, CutoutField):
            about, own = pack_field(part.base)
            own["mask"] = (part.mask > 0.5).to(torch.uint8)
            objects.append({"kind": "cutout", "farthest": part.farthest, "base": about})
        else:
            about, own = _pack_voxels(part)
            objects.append(about)
        tensors |= {f"object{index}/{name}": value for name, value in own.items()}
        tensors[f"object{index}/placement"] = placement
    return {"kind": "edited", "base": base, "objects": objects}, tensors


def _unpack_edited(about: dict[str, Any], tensors: dict[str, Tensor]) -> EditedField:
    objects: list[Inserted] = []
    for index, kind in enumerate(about["objects"]):
        start = f"object{index}/"
        own = {name[len(start) :]: tensors[name] for name in tensors if name.startswith(start)}
        if kind["kind"] == "cutout":
            base, mask = _unpack_base(kind["base"], own), own["mask"].float()
            part = CutoutField(base, kind["farthest"], mask)
        elif kind["kind"] == "voxels":
            part = _unpack_voxels(kind, own)
        else:
            raise ValueError(f"unknown kind of object: {kind['kind']}")
        objects.append(Inserted(part, own["placement"].float()))
    own = {name: value for name, value in tensors.items() if "/" not in name}
    return EditedField(_unpack_base(about["base"], own), objects)


def _unpack_base(about: dict[str, Any], tensors: dict[str, Tensor]) -> ViewSpaceField | DetailField:
    base = unpack_field(about, tensors)
    if isinstance(base, EditedField):
        raise ValueError("an edited field is no base of another; its objects lie side by side")
    return base


def _pack_voxels(field: VoxelField) -> tuple[dict[str, Any], dict[str, Tensor]]:
    densest = float(field.density.max())
    return {"kind": "voxels", "densest": densest}, {
        "density": _eight_bit(field.density / max(densest, 1e-12)),
        "rgb": _eight_bit(field.features),
        "bounds": field.bounds,
    }


def _unpack_voxels(about: dict[str, Any], tensors: dict[str, Tensor]) -> VoxelField:
    density = tensors["density"].float() * (about["densest"] / 255)
    return VoxelField(density, tensors["rgb"].float() / 255, tensors["bounds"].float())


def _eight_bit(values: Tensor) -> Tensor:
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def _unpack_sheet(name: str, tensors: dict[str, Tensor]) -> HiddenSheet | None:
    if f"{name}_mask" not in tensors:
        return None
    return HiddenSheet(
        tensors[f"{name}_rgb"].float() / 255,
        tensors[f"{name}_surface"].float(),
        tensors[f"{name}_mask"].float(),
    )

"""Fields as tensors and plain values, and back: what a Scene file holds.

Planes are kept in half precision, photos in 8 bits as they came.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from unflat.fields.detail import DetailField, HiddenSheet
from unflat.fields.viewspace import (
    SURFACE_CHANNELS,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
)
from unflat.geometry.projective import Frame

SavedField = ViewSpaceField | DetailField


def pack_field(field: SavedField) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a field is, in JSON's values, and its tensors."""
    if isinstance(field, DetailField):
        about, tensors = pack_field(field.base)
        tensors["photo"] = (field.photo * 255).round().clamp(0, 255).to(torch.uint8)
        tensors["surface"] = field.disparity.half()
        tensors["spread"] = field.spread.half()
        if field.hidden is not None:
            tensors["hidden_rgb"] = (field.hidden.rgb * 255).round().clamp(0, 255).to(torch.uint8)
            tensors["hidden_surface"] = field.hidden.disparity.half()
            tensors["hidden_mask"] = field.hidden.mask.to(torch.uint8)
        return {"kind": "detail", "jump": field.jump, "base": about}, tensors
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
    if about["kind"] == "detail":
        base = unpack_field(about["base"], tensors)
        if not isinstance(base, ViewSpaceField):
            raise ValueError(f"a detail field over {about['base']['kind']} is unknown")
        hidden = None
        if "hidden_mask" in tensors:
            hidden = HiddenSheet(
                tensors["hidden_rgb"].float() / 255,
                tensors["hidden_surface"].float(),
                tensors["hidden_mask"].float(),
            )
        return DetailField(
            base,
            tensors["photo"].float() / 255,
            tensors["surface"].float(),
            tensors["spread"].float(),
            hidden,
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

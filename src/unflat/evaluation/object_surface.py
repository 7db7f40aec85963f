"""The surface of generated objects: is it closed and in one piece, is its distance a distance.

The gradient of a signed distance has length 1. Meshes are those that a person gets, closed where
the field's box cuts the object; how many objects are cut stands beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.evaluation.object_maker import FieldMaker, ObjectMaker
from unflat.evaluation.result import Column, Table
from unflat.export.isosurface import mesh_of_field, mesh_report
from unflat.export.mesh import Mesh
from unflat.fields.field import Bounded, Distanced, Field

RESOLUTION = 64
"""Points along the longest side of the grid for marching cubes."""
NEAR = 0.02
"""How far from the surface gradients are asked, as a share of the box's longest side."""
_POINTS = 4096  # at which gradients are asked, of each object
_CUT = 0.01  # cells from a face of the box: what is nearer lies in it

TABLE = Table(
    title="Surface",
    columns=(
        Column(key="gradient_median", label="|grad d|", form="{:.3f}", better=""),
        Column(key="gradient_p10", label="10th percentile", form="{:.3f}", better=""),
        Column(key="gradient_p90", label="90th percentile", form="{:.3f}", better=""),
        Column(key="with_surface", label="has a surface", form="{:.1%}"),
        Column(key="watertight", label="watertight", form="{:.1%}"),
        Column(key="cut_by_box", label="cut by the box", form="{:.1%}", better="lower"),
        Column(key="main_share", label="area of the main part", form="{:.1%}"),
        Column(key="parts", label="parts, median", form="{:.0f}", better=""),
    ),
)


@dataclass(frozen=True, kw_only=True)
class FoundSurface:
    """The surface of one object."""

    is_watertight: bool
    """Whether every edge of the mesh has two triangles."""
    is_cut: bool
    """Whether the box cuts it."""
    main_share: float
    """Area of the largest connected part over that of all."""
    parts: int
    """How many parts there are."""
    gradient: Float[Tensor, " points"] | None
    """|grad d| near the surface; None of a field without a distance."""


def find_surface(
    field: Field, *, resolution: int = RESOLUTION, seed: int = 0
) -> FoundSurface | None:
    """The mesh of a field in a box, and gradients near it; None if there is no surface.

    Args:
        field: a batch of one, of colors.
        resolution: as in `mesh_of_field`.
        seed: of the points at which gradients are asked.

    Raises:
        ValueError: the field has no bounds.
    """
    if not isinstance(field, Bounded):
        raise ValueError(f"{type(field).__name__} has no bounds: nothing says where it ends")
    try:
        mesh = mesh_of_field(field, resolution)  # pyright: ignore[reportArgumentType]  (both)
    except UserError:  # it says that nothing is inside
        return None
    report, bounds = mesh_report(mesh), field.bounds.detach().float().cpu()
    edge = _CUT * float((bounds[1] - bounds[0]).max()) / (resolution - 1)
    inner = np.stack([bounds[0].numpy() + edge, bounds[1].numpy() - edge])
    is_cut = bool(((mesh.vertices < inner[0]) | (mesh.vertices > inner[1])).any())
    gradient = None
    if isinstance(field, Distanced):
        gradient = _gradients(field, mesh, bounds, seed, field.bounds.device)
    return FoundSurface(
        is_watertight=report.watertight,
        is_cut=is_cut,
        main_share=report.main_share,
        parts=report.parts,
        gradient=gradient,
    )


def surface_figures(
    maker: ObjectMaker | FieldMaker,
    numbers: Sequence[int],
    *,
    resolution: int = RESOLUTION,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures over some objects of a maker; none if it has no fields in a box.

    A surface, watertight: shares of all objects asked. Cut, main part, parts: of those with a
    surface. Gradients: of all points of all objects together.
    """
    if not isinstance(maker, FieldMaker):
        return {}
    fields = [maker.field(number) for number in numbers]
    asked = [field for field in fields if isinstance(field, Bounded)]
    if not asked:
        return {}
    every = [find_surface(field, resolution=resolution, seed=seed) for field in asked]
    found = [one for one in every if one is not None]
    figures: dict[str, Any] = {
        "with_surface": len(found) / len(asked),
        "watertight": sum(one.is_watertight for one in found) / len(asked),
    }
    if found:
        figures |= {
            "cut_by_box": sum(one.is_cut for one in found) / len(found),
            "main_share": sum(one.main_share for one in found) / len(found),
            "parts": float(np.median([one.parts for one in found])),
        }
    slopes = [one.gradient for one in found if one.gradient is not None]
    if slopes:
        places = torch.tensor([0.1, 0.5, 0.9])
        names = ("gradient_p10", "gradient_median", "gradient_p90")
        figures |= dict(zip(names, torch.cat(slopes).quantile(places).tolist(), strict=True))
    return figures


def _gradients(
    field: Distanced, mesh: Mesh, bounds: Float[Tensor, "2 3"], seed: int, device: torch.device
) -> Float[Tensor, " points"]:
    """Lengths of the distance's gradient at vertices that are moved at random, up to `NEAR`."""
    random = np.random.default_rng(seed)
    reach = NEAR * float((bounds[1] - bounds[0]).max())
    chosen = random.choice(len(mesh.vertices), min(_POINTS, len(mesh.vertices)), replace=False)
    moved = mesh.vertices[chosen] + random.uniform(-reach, reach, (len(chosen), 3))
    points = torch.from_numpy(moved).float()[None]
    points = torch.minimum(torch.maximum(points, bounds[0]), bounds[1]).to(device)
    with torch.enable_grad():
        points.requires_grad_()
        (slope,) = torch.autograd.grad(field.distance(points).sum(), points)
    return slope[0].norm(dim=-1).cpu()

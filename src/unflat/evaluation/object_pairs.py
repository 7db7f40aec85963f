"""Is a generated object one thing in space: what one camera sees, carried to another one.

Both figures see a surface where the object covers at least half of a pixel, and its colors without
the white behind it. They know no truth: a picture on a card that stands still passes, so outlines
from all around belong beside them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.evaluation.object_maker import ObjectViews, turned_about_up
from unflat.evaluation.result import Column, Table
from unflat.geometry import Camera
from unflat.metrics import depth_agreement, reprojection_error

ANGLES_DEG = (15.0, 45.0)
"""Azimuths between the two cameras."""


def pair_cameras(camera: Camera, angles_deg: Sequence[float] = ANGLES_DEG) -> Camera:
    """Each camera, and the same turned about the world's up axis by each angle: (n, 1 + angles).

    Args:
        camera: batch (n,).
        angles_deg: azimuths that are added.
    """
    every = [turned_about_up(camera, angle) for angle in (0.0, *angles_deg)]
    return Camera(
        camera_to_world=torch.stack([one.camera_to_world for one in every], dim=1),
        intrinsics=torch.stack([one.intrinsics for one in every], dim=1),
        kind=camera.kind,
    )


def pair_figures(
    views: ObjectViews, camera: Camera, angles_deg: Sequence[float] = ANGLES_DEG
) -> dict[str, Float[Tensor, " n"]]:
    """Figures of each object, NaN where there is nothing to compare.

    Of each angle, the mean over both directions: ``reprojection_error_15`` (void pairs, with too
    few valid pixels, count for the validity alone), ``reprojection_validity_15``,
    ``depth_agreement_15``, ``depth_error_15``, ``depth_compared_15``.

    Args:
        views: through `pair_cameras`.
        camera: these.
        angles_deg: theirs.
    """
    figures: dict[str, Tensor] = {}
    images, depths = views.colors, views.surface_depth
    for place, angle in enumerate(angles_deg, start=1):
        found: dict[str, list[Tensor]] = {}
        for a, b in ((0, place), (place, 0)):
            colors = reprojection_error(
                *(images[:, a], depths[:, a], camera[:, a]),
                *(images[:, b], depths[:, b], camera[:, b]),
            )
            depth = depth_agreement(depths[:, a], camera[:, a], depths[:, b], camera[:, b])
            for name, value in (
                ("reprojection_error", torch.where(colors.is_void, torch.nan, colors.error)),
                ("reprojection_validity", colors.validity),
                ("depth_agreement", depth.agreement),
                ("depth_error", depth.error),
                ("depth_compared", depth.compared),
            ):
                found.setdefault(name, []).append(value)
        for name, both in found.items():
            figures[f"{name}_{angle:g}"] = torch.stack(both).nanmean(dim=0)
    return figures


def pair_table(angles_deg: Sequence[float] = ANGLES_DEG) -> Table:
    """The figures of all angles."""
    columns = [Column(key="empty", label="empty", form="{:.1%}", better="lower")]
    for angle in angles_deg:
        columns += [
            Column(
                key=f"depth_agreement_{angle:g}",
                label=f"{angle:g} deg: depths agree",
                form="{:.1%}",
            ),
            Column(key=f"depth_error_{angle:g}", label="difference", form="{:.2%}", better="lower"),
            Column(key=f"depth_compared_{angle:g}", label="compared", form="{:.1%}", better=""),
            Column(
                key=f"reprojection_error_{angle:g}",
                label="reprojection",
                form="{:.4f}",
                better="lower",
            ),
            Column(key=f"reprojection_validity_{angle:g}", label="valid", form="{:.1%}"),
        ]
    return Table(title="Two cameras of one object", columns=columns)

"""From a field to pictures: where rays are cut, how light is summed, which pixels see what."""

from unflat.rendering.cast import Cast, Casting, cast
from unflat.rendering.forward_warp import Warped, fill_holes, forward_warp
from unflat.rendering.guide import Guide
from unflat.rendering.layered import LayeredPicture
from unflat.rendering.occupancy import OccupancyGrid
from unflat.rendering.quadrature import integrate, termination_variance, transmittance, weights
from unflat.rendering.rasterize import Rasterized, rasterize, silhouette
from unflat.rendering.render import RayOutput, RenderOptions, RenderOutput, render, render_rays
from unflat.rendering.sampling import (
    Spacing,
    box_limits,
    even_edges,
    from_distance,
    guided_edges,
    importance_edges,
    merge_edges,
    stratified_edges,
    to_distance,
)

__all__ = [
    "Cast",
    "Casting",
    "Guide",
    "LayeredPicture",
    "OccupancyGrid",
    "Rasterized",
    "RayOutput",
    "RenderOptions",
    "RenderOutput",
    "Spacing",
    "Warped",
    "box_limits",
    "cast",
    "even_edges",
    "fill_holes",
    "forward_warp",
    "from_distance",
    "guided_edges",
    "importance_edges",
    "integrate",
    "merge_edges",
    "rasterize",
    "render",
    "render_rays",
    "silhouette",
    "stratified_edges",
    "termination_variance",
    "to_distance",
    "transmittance",
    "weights",
]

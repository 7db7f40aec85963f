"""What leaves unflat: meshes, splats, videos, pictures and the one-file viewer."""

from unflat.export.isosurface import MeshReport, mesh_of_field, mesh_report, solid_level
from unflat.export.layer import Layer, disparity_jumps, layer_points
from unflat.export.mesh import Mesh, mesh_from_layers, write_mesh
from unflat.export.mesh_formats import Texture
from unflat.export.picture import (
    colorize_disparity,
    colorize_normals,
    contact_sheet,
    preview_strip,
    to_uint8,
    write_depth,
    write_png,
)
from unflat.export.splats import (
    Splats,
    read_splats,
    splats_from_layers,
    splats_from_mesh,
    write_splats,
)
from unflat.export.texture import can_texture, textured
from unflat.export.video import write_video
from unflat.export.viewer import write_viewer
from unflat.export.viewer_mesh import write_mesh_viewer

__all__ = [
    "Layer",
    "Mesh",
    "MeshReport",
    "Splats",
    "Texture",
    "can_texture",
    "colorize_disparity",
    "colorize_normals",
    "contact_sheet",
    "disparity_jumps",
    "layer_points",
    "mesh_from_layers",
    "mesh_of_field",
    "mesh_report",
    "preview_strip",
    "read_splats",
    "solid_level",
    "splats_from_layers",
    "splats_from_mesh",
    "textured",
    "to_uint8",
    "write_depth",
    "write_mesh",
    "write_mesh_viewer",
    "write_png",
    "write_splats",
    "write_video",
    "write_viewer",
]

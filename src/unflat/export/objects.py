"""Objects that were put into a scene, as layers of its canonical view and as triangles.

layers = peel([*scene_layers, *object_layers(placed, camera, (256, 256))])
mesh = join_meshes([scene_mesh, object_mesh(placed)])
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.export.layer import Layer
from unflat.export.mesh import Mesh, mesh_from_layers, vertex_normals
from unflat.fields.cutout import CutoutField
from unflat.fields.edited import Inserted, object_limits, to_object
from unflat.fields.voxels import VoxelField
from unflat.geometry.camera import Camera
from unflat.geometry.rays import depth_per_distance, image_rays
from unflat.rendering.layered import LayeredPicture
from unflat.rendering.objects import camera_in_object, cutout_front, own_camera
from unflat.rendering.quadrature import weights
from unflat.rendering.sampling import even_edges

MOST_LAYERS = 5
"""Behind these nothing is ever uncovered by the turns that a scene allows."""

_SAMPLES = 192  # along a ray through an object's box
_CHUNK = 8192  # rays
_SURFACE = 0.3  # of the densest: where the surface of voxels is drawn
_CUTOUT_SIDE = 256  # pixels of the mesh of a cutout


@torch.no_grad()
def object_layers(placed: Inserted, camera: Camera, size: tuple[int, int]) -> list[Layer]:
    """An object alone as depth pictures: its front, and for voxels its back.

    Args:
        placed: in the camera's world.
        camera: the canonical camera.
        size: height and width.
    """
    if isinstance(placed.field, CutoutField):
        return [_cutout_layer(placed.field, placed.object_to_world, camera, size)]
    rays = image_rays(camera, *size)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    forward = depth_per_distance(camera, rays).flatten()
    near, far = object_limits(placed, origins, directions)
    hit = (far > near).nonzero().flatten()
    shape = (2, len(origins))
    depth, rgb = origins.new_ones(shape), origins.new_zeros(*shape, 3)
    mask = torch.zeros(shape, dtype=torch.bool)
    share = even_edges(_SAMPLES)
    for some in hit.split(_CHUNK):
        edges = near[some, None] + (far - near)[some, None] * share
        middles = (edges[:, 1:] + edges[:, :-1]) / 2
        points = origins[some, None] + middles[..., None] * directions[some, None]
        found = placed.field(to_object(points, placed.object_to_world)[None])
        density = found.density[0] / placed.object_to_world[:3, 0].norm()
        for side, turn in enumerate((lambda values: values, lambda values: values.flip(1))):
            light = weights(turn(density), turn(edges.diff(dim=-1)), opaque_last=False)
            opacity = light.sum(-1)
            divisor = opacity.clamp_min(1e-6)
            depth[side, some] = (light * turn(middles)).sum(-1) / divisor * forward[some]
            rgb[side, some] = (light[..., None] * turn(found.features[0])).sum(1) / divisor[:, None]
            mask[side, some] = opacity > 0.5
    return [
        Layer(
            rgb[side].reshape(*size, 3).clamp(0, 1),
            torch.where(mask[side], depth[side], 1.0).reshape(size),
            mask[side].reshape(size),
        )
        for side in (0, 1)
    ]


def peel(layers: list[Layer]) -> list[Layer]:
    """The same surfaces sorted: at each pixel the nearest first.

    Args:
        layers: of one size and camera, in any order.
    """
    depth = torch.stack(
        [torch.where(layer.mask, layer.depth, torch.inf) for layer in layers]
    )  # layers height width
    ordered, place = depth.sort(dim=0, stable=True)
    rgb = torch.stack([layer.rgb for layer in layers])
    rgb = rgb.gather(0, place[..., None].expand_as(rgb))
    there = torch.isfinite(ordered)
    count = min(MOST_LAYERS, max(1, int(there.flatten(1).any(dim=1).sum())))
    return [
        Layer(rgb[number], torch.where(there[number], ordered[number], 1.0), there[number])
        for number in range(count)
    ]


def object_mesh(placed: Inserted) -> Mesh:
    """An object's surface with vertex colours, in the scene world.

    Voxels give a closed surface; a cutout gives what its own photo shows, a relief.
    """
    if isinstance(placed.field, CutoutField):
        camera = own_camera(placed.field)
        rgb, inverse, there = cutout_front(placed.field, (_CUTOUT_SIDE, _CUTOUT_SIDE))
        layer = Layer(rgb.permute(1, 2, 0), 1 / inverse.clamp_min(1e-6), there)
        mesh = mesh_from_layers([layer], camera)
    else:
        mesh = _voxel_mesh(placed.field)
    matrix = placed.object_to_world.double().numpy()
    vertices = (mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
    return Mesh(vertices, mesh.faces, mesh.colors, vertex_normals(vertices, mesh.faces))


def join_meshes(meshes: list[Mesh]) -> Mesh:
    """All triangles in one mesh; every part must have normals."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]
    return Mesh(
        vertices=np.concatenate([mesh.vertices for mesh in meshes]),
        faces=np.concatenate(faces),
        colors=np.concatenate([mesh.colors for mesh in meshes]),
        normals=np.concatenate([mesh.normals for mesh in meshes if mesh.normals is not None]),
    )


def _cutout_layer(
    cutout: CutoutField, object_to_world: Tensor, camera: Camera, size: tuple[int, int]
) -> Layer:
    rgb, inverse, there = cutout_front(cutout, size)
    picture = LayeredPicture([rgb], [inverse], [there], own_camera(cutout))
    local, scale = camera_in_object(camera, object_to_world)
    found = picture.seen(local)
    mask = found.visible[0]
    depth = torch.where(mask, scale / found.inverse_depth[0].clamp_min(1e-6), 1.0)
    return Layer(found.image[0].permute(1, 2, 0), depth, mask)


def _voxel_mesh(field: VoxelField) -> Mesh:
    """Marching cubes on the density, what it encloses filled; in the voxels' own space."""
    from scipy.ndimage import binary_fill_holes
    from skimage.measure import marching_cubes

    density = field.density[0].clamp_min(0).numpy()
    level = _SURFACE * float(density.max())
    # What a shell encloses counts as matter, or it would have a second surface inside.
    enclosed = np.asarray(binary_fill_holes(density > level)) & (density <= level)
    padded = np.pad(np.where(enclosed, density.max(), density), 1)
    corners, faces, _, _ = marching_cubes(padded, level)
    low, high = (bound.double().numpy() for bound in field.bounds)
    side = (high - low) / np.array(density.shape[::-1])
    vertices = low + (corners[:, ::-1] - 0.5) * side
    points = torch.from_numpy(vertices).float()[None]
    colors = _colors_of(field, points)
    # The grid is stored z first: read as x, y, z the triangles turn over.
    faces = faces[:, ::-1].copy() if _is_inside_out(vertices, faces) else faces
    return Mesh(vertices.astype(np.float32), faces.astype(np.int64), colors)


def _colors_of(field: VoxelField, points: Float[Tensor, "1 n 3"]) -> np.ndarray:
    rgb = field(points).features[0].clamp(0, 1)
    return (rgb * 255).round().to(torch.uint8).numpy()


def _is_inside_out(vertices: np.ndarray, faces: np.ndarray) -> bool:
    """Whether triangles are clockwise seen from outside: the signed volume is negative."""
    a, b, c = (vertices[faces[:, corner]] - vertices.mean(0) for corner in range(3))
    return float((a * np.cross(b, c)).sum()) < 0

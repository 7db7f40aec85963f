"""Triangle meshes: made from a layered depth picture, written as GLB, PLY or OBJ.

write_mesh(mesh_from_layers(scene.layers(), scene.camera), "cat.glb", describe="a cat")
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from PIL import Image

from unflat.errors import UserError
from unflat.export.layer import Layer, disparity_jumps, layer_points, surface_mask
from unflat.export.mesh_formats import Texture, write_glb, write_material, write_obj, write_ply
from unflat.files import atomic_path
from unflat.geometry.camera import Camera

SCENE_TO_FILE = np.array([1.0, -1.0, -1.0], dtype=np.float32)
"""Signs that turn the scene world (y down, z away) into a file's world (y up, front +z).

They turn it back as well.
"""

_ENDINGS = (".glb", ".ply", ".obj")


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise as seen from outside, or by the camera that saw them.

    Attributes:
        vertices: world units.
        faces: indices into ``vertices``.
        colors: sRGB, 8 bit, of each vertex.
        normals: unit length, outwards, or towards the camera's side.
        world: the scene world (OpenCV axes, y down), or the object world (y up, front +z).
        texture: shown instead of ``colors`` by formats that know textures.
    """

    vertices: Float32[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    colors: UInt8[np.ndarray, "vertices 3"]
    normals: Float32[np.ndarray, "vertices 3"] | None = None
    world: Literal["scene", "object"] = "scene"
    texture: Texture | None = None

    @property
    def to_file(self) -> Float32[np.ndarray, "3"]:
        """Signs that turn its world into a file's, and a file's into its world."""
        return SCENE_TO_FILE if self.world == "scene" else np.ones(3, dtype=np.float32)


def mesh_from_layers(layers: list[Layer], camera: Camera, jump: float = 0.1) -> Mesh:
    """One mesh of all layers, a vertex for each pixel, cut open where depth jumps.

    At a cut the surface behind goes on for one pixel below the edge in front, so that the
    canonical view shows no crack.

    Args:
        layers: front first, as ``Scene.layers`` gives them.
        camera: the canonical camera.
        jump: relative step in disparity at which the surface is cut.
    """
    parts = [_layer_mesh(layer, camera, jump) for layer in layers]
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=True)]
    return Mesh(
        vertices=np.concatenate([part.vertices for part in parts]),
        faces=np.concatenate(faces),
        colors=np.concatenate([part.colors for part in parts]),
        normals=np.concatenate([vertex_normals(part.vertices, part.faces) for part in parts]),
    )


def vertex_normals(
    vertices: Float32[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float32[np.ndarray, "vertices 3"]:
    """Unit normals: the mean of the faces at a vertex, by area; (0, 0, -1) where there is none."""
    corner = vertices[faces].astype(np.float64)
    crossed = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.stack(
        [
            np.bincount(faces.ravel(), np.repeat(crossed[:, axis], 3), len(vertices))
            for axis in range(3)
        ],
        axis=1,
    )
    total = total.astype(np.float64)  # bincount of no faces counts in integers
    length = np.linalg.norm(total, axis=1, keepdims=True)
    unit = np.divide(total, length, out=np.zeros_like(total), where=length > 0)
    unit[length[:, 0] == 0] = (0.0, 0.0, -1.0)
    return unit.astype(np.float32)


def write_mesh(mesh: Mesh, path: str | Path, *, describe: str = "") -> Path:
    """The path of the file written: GLB, PLY or OBJ by its suffix, y up and front +z.

    A mesh without texture gets vertex colours; GLB stores them linear, as glTF asks. A texture
    goes into the GLB; an OBJ's lies beside it as ``NAME.png``, with ``NAME.mtl``; PLY, which is
    binary, keeps vertex colours. GLB says in ``extras`` that units are unknown.

    Args:
        mesh: in either world.
        path: ends in .glb, .ply or .obj.
        describe: a sentence for people who do not see the model; kept in the file.

    Raises:
        UserError: another suffix, an empty mesh, or a place that can not be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise UserError(f"{path}: no mesh is written with this ending; use .glb, .ply or .obj.")
    if len(mesh.faces) == 0:
        raise UserError(f"{path}: the scene has no surface to write; lower the depth jump limit.")
    normals = mesh.normals
    if normals is None:
        normals = vertex_normals(mesh.vertices, mesh.faces)
    describe = " ".join(describe.split())
    vertices, normals = mesh.vertices * mesh.to_file, normals * mesh.to_file
    arrays = (vertices, mesh.faces, mesh.colors, normals)
    if ending == ".obj" and mesh.texture is not None:
        with atomic_path(path.with_suffix(".png")) as temporary:
            Image.fromarray(mesh.texture.image).save(temporary)
        with atomic_path(path.with_suffix(".mtl")) as temporary:
            write_material(temporary, path.with_suffix(".png").name)
    with atomic_path(path) as temporary:
        if ending == ".ply":
            write_ply(temporary, *arrays, describe)
        elif ending == ".obj":
            write_obj(temporary, *arrays, describe, mesh.texture, path.with_suffix(".mtl").name)
        else:
            write_glb(temporary, *arrays, describe, mesh.texture)
    return path


def _layer_mesh(layer: Layer, camera: Camera, jump: float) -> Mesh:
    mask = surface_mask(layer)
    points = layer_points(layer, camera).numpy().reshape(-1, 3).astype(np.float32)
    colors = (layer.rgb.detach().cpu().numpy().reshape(-1, 3).clip(0, 1) * 255 + 0.5).astype(
        np.uint8
    )
    depth = np.where(mask, layer.depth.detach().cpu().numpy(), 1.0).astype(np.float64)
    disparity = np.where(mask, 1 / depth, 0.0)
    right, down = disparity_jumps(disparity, mask, jump)
    faces = grid_faces(disparity, mask, right, down)
    skirt = _Skirt(disparity, mask, right, down)
    if len(skirt.faces):
        # A point moves along its pixel's ray, so only the depth of the copy is new.
        behind = Layer(
            layer.rgb,
            layer.depth.new_tensor((1 / skirt.disparity).reshape(mask.shape)),
            layer.mask.new_ones(mask.shape),
        )
        moved = layer_points(behind, camera).numpy().reshape(-1, 3).astype(np.float32)
        points = np.concatenate([points, moved])
        colors = np.concatenate([colors, skirt.blend(colors)])
        faces = np.concatenate([faces, skirt.faces])
    used = np.unique(faces)
    place = np.zeros(len(points), dtype=np.int64)
    place[used] = np.arange(len(used))
    return Mesh(vertices=points[used], faces=place[faces], colors=colors[used])


def grid_faces(
    disparity: Float[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
    right: Bool[np.ndarray, "height width-1"],
    down: Bool[np.ndarray, "height-1 width"],
) -> Int[np.ndarray, "faces 3"]:
    """Triangles over a pixel grid, vertex number = row * width + column, none across a cut.

    Each square of four pixels is split along the diagonal that keeps more triangles, else along
    the one with the smaller step in disparity.

    Args:
        disparity: of the pixels.
        mask: pixels that exist.
        right: cuts between a pixel and its right neighbour.
        down: cuts between a pixel and its lower neighbour.
    """
    height, width = disparity.shape
    index = np.arange(height * width).reshape(height, width)
    a, b, c, d = _corners(index)
    has_a, has_b, has_c, has_d = _corners(mask)
    ab, cd, ac, bd = ~right[:-1], ~right[1:], ~down[:, :-1], ~down[:, 1:]
    acb = has_a & has_c & has_b & ab & ac
    bcd = has_b & has_c & has_d & cd & bd
    acd = has_a & has_c & has_d & ac & cd
    adb = has_a & has_d & has_b & ab & bd
    at_a, at_b, at_c, at_d = _corners(disparity)
    more = acd.astype(int) + adb - acb - bcd
    falling = (more > 0) | ((more == 0) & (np.abs(at_a - at_d) < np.abs(at_b - at_c)))
    chosen = [
        (acb & ~falling, (a, c, b)),
        (bcd & ~falling, (b, c, d)),
        (acd & falling, (a, c, d)),
        (adb & falling, (a, d, b)),
    ]
    return np.concatenate([np.stack([side[keep] for side in sides], 1) for keep, sides in chosen])


class _Skirt:
    """The surface behind a cut, drawn on for one pixel under the one in front.

    In each cut square the nearer corners get a copy at the farther ones' disparity. A pixel has
    at most one copy (number: height * width + its own), the mean of what its squares ask for.
    """

    def __init__(
        self, disparity: np.ndarray, mask: np.ndarray, right: np.ndarray, down: np.ndarray
    ) -> None:
        count = disparity.size
        index = np.arange(count).reshape(disparity.shape)
        whole = np.logical_and.reduce(_corners(mask))
        cut = whole & (right[:-1] | right[1:] | down[:, :-1] | down[:, 1:])
        corner = np.stack([part[cut] for part in _corners(index)], 1)  # squares 4
        value = disparity.ravel()[corner]
        near = value > (value.min(1, keepdims=True) + value.max(1, keepdims=True)) / 2
        self._shares = (~near / np.maximum((~near).sum(1, keepdims=True), 1))[:, None, :]
        self._pixels, self._near, self._corner, self._count = corner[near], near, corner, count
        mean = self._gather(value)
        self.disparity = np.where(mean > 0, mean, 1.0)
        ends = np.where(near, corner + count, corner)
        # A lone near corner is cut off, so that the far triangle is the one the grid has.
        falling = (near.sum(1) == 1) & (near[:, 1] | near[:, 2])
        rising = np.concatenate([ends[~falling][:, [0, 2, 1]], ends[~falling][:, [1, 2, 3]]])
        turned = np.concatenate([ends[falling][:, [0, 2, 3]], ends[falling][:, [0, 3, 1]]])
        faces = np.concatenate([rising, turned])
        self.faces = faces[(faces >= count).any(1)]

    def blend(self, colors: np.ndarray) -> np.ndarray:
        """Colours of the copies, [height * width, 3]."""
        channels = [
            self._gather(colors[self._corner, channel].astype(float)) for channel in range(3)
        ]
        return (np.stack(channels, 1) + 0.5).astype(np.uint8)

    def _gather(self, value: np.ndarray) -> np.ndarray:
        """Per pixel, the mean over its squares of the mean over their far corners."""
        far = np.broadcast_to((value[:, None, :] * self._shares).sum(-1), value.shape)[self._near]
        total = np.bincount(self._pixels, far, self._count)
        return total / np.maximum(np.bincount(self._pixels, minlength=self._count), 1)


def _corners(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Top left, top right, bottom left, bottom right of each square of four pixels."""
    return grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]

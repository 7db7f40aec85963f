"""Colored meshes of other programs: GLB, OBJ, PLY and what else trimesh reads.

surface = read_object_mesh("chair.glb")
surface.triangles.shape, surface.colors_at(faces, shares)
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from unflat.data.pictures import DECODE_ERRORS
from unflat.errors import UserError
from unflat.export.mesh import Mesh

ENDINGS = (".glb", ".gltf", ".obj", ".ply", ".off", ".stl")
"""Of files that are read."""

_PLAIN = 0.7  # grey of a mesh without any color, sRGB
_KNOWN_SRGB = "trimesh"  # a generator that writes vertex colors as sRGB, against glTF's letter


@dataclass(frozen=True)
class SurfacePart:
    """Triangles that get their colors in one way.

    Attributes:
        triangles: corners, in the object world (y up, front +z).
        colors: of the corners, sRGB in [0, 1]; they multiply a texture.
        uv: of the corners in the texture, (0, 0) its lower left corner.
        texture: sRGB in [0, 1].
    """

    triangles: Float[np.ndarray, "faces 3 3"]
    colors: Float[np.ndarray, "faces 3 3"]
    uv: Float[np.ndarray, "faces 3 2"] | None = None
    texture: Float[np.ndarray, "height width 3"] | None = None

    def colors_at(
        self, faces: Int[np.ndarray, " n"], shares: Float[np.ndarray, "n 3"]
    ) -> Float[np.ndarray, "n 3"]:
        """Colors at points of triangles, sRGB in [0, 1].

        Args:
            faces: number of each point's triangle.
            shares: of its corners, summing to 1.
        """
        colors = (self.colors[faces] * shares[..., None]).sum(1)
        if self.uv is None or self.texture is None:
            return colors
        height, width = self.texture.shape[:2]
        u, v = (self.uv[faces] * shares[..., None]).sum(1).T
        column = np.floor(u % 1 * width).astype(int).clip(0, width - 1)
        row = np.floor((1 - v) % 1 * height).astype(int).clip(0, height - 1)
        return colors * self.texture[row, column]


@dataclass(frozen=True)
class ObjectSurface:
    """A colored surface in the object world.

    Attributes:
        parts: at least one triangle in all.
        has_light: colors already hold light and shadow, as those of a photo do.
    """

    parts: list[SurfacePart]
    has_light: bool = False

    @property
    def triangles(self) -> Float[np.ndarray, "faces 3 3"]:
        """Of all parts, in order."""
        return np.concatenate([part.triangles for part in self.parts])

    @property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lowest and highest corner."""
        corners = self.triangles.reshape(-1, 3)
        return np.stack([corners.min(0), corners.max(0)])


def surface_of_mesh(mesh: Mesh) -> ObjectSurface:
    """A mesh of unflat's, in the scene world or the object world, as an object.

    Raises:
        ValueError: it has no triangle.
    """
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no triangle")
    vertices = mesh.vertices.astype(np.float64) * mesh.to_file
    colors = mesh.colors.astype(np.float64) / 255
    return ObjectSurface([SurfacePart(vertices[mesh.faces], colors[mesh.faces])], has_light=True)


def read_object_mesh(path: str | Path) -> ObjectSurface:
    """The mesh of a file, its parts where the file places them.

    Textures and vertex colors are kept; opacity, roughness and other materials are not. A file
    whose materials are unlit counts as one that has its light already.

    Raises:
        UserError: no such file, no mesh, damaged, or without an extent.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give a mesh (glb, obj, ply).")
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: is no mesh unflat can read (glb, gltf, obj, ply, off, stl).")
    try:
        scene = trimesh.load_scene(path, process=False)
        about = gltf_header(path)
        parts: list[SurfacePart] = []
        for node in scene.graph.nodes_geometry:
            to_world, name = scene.graph[node]
            mesh = scene.geometry[name]
            if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
                parts.append(_part(mesh, to_world, _is_linear(about)))
        extent = _extent(parts)
    except DECODE_ERRORS as error:
        detail = f"{type(error).__name__}: {error}".split("\n")[0][:80].rstrip(".")
        raise UserError(f"{path}: is no whole mesh ({detail}); write it again.") from error
    if not parts:
        raise UserError(f"{path}: holds no triangle; export a surface, not points or lines.")
    if not 0 < extent < np.inf:
        raise UserError(f"{path}: has no extent, or an endless one; write the mesh again.")
    return ObjectSurface(parts, has_light=_is_unlit(about))


def _extent(parts: list[SurfacePart]) -> float:
    """Longest side of all parts' box; 0 without parts, not finite where a corner is not."""
    if not parts:
        return 0.0
    corners = np.concatenate([part.triangles.reshape(-1, 3) for part in parts])
    longest = float((corners.max(0) - corners.min(0)).max())
    return longest if np.isfinite(corners).all() else np.inf


def _part(mesh: Any, to_world: np.ndarray, linear: bool) -> SurfacePart:
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    triangles = (vertices @ to_world[:3, :3].T + to_world[:3, 3])[mesh.faces]
    material = getattr(mesh.visual, "material", None)
    if material is None:
        colors = _plain_colors(mesh)
        return SurfacePart(triangles, _to_srgb(colors) if linear else colors)
    factor, image = _base_color(material)
    colors = np.broadcast_to(factor, (len(triangles), 3, 3))
    painted = mesh.visual.vertex_attributes.get("color")
    if painted is not None:
        colors = colors * _to_srgb(_shares(painted))[mesh.faces]
    if image is None or mesh.visual.uv is None:
        return SurfacePart(triangles, colors)
    texture = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    uv = np.asarray(mesh.visual.uv, dtype=np.float64)[mesh.faces]
    return SurfacePart(triangles, colors, np.nan_to_num(uv), texture)


def _shares(values: Any) -> np.ndarray:
    """Red, green and blue in [0, 1], of numbers in any of glTF's ways to store them."""
    given = np.asarray(values)
    largest = np.iinfo(given.dtype).max if np.issubdtype(given.dtype, np.integer) else 1
    return (given[..., :3].astype(np.float64) / largest).clip(0, 1)


def _plain_colors(mesh: Any) -> np.ndarray:
    """Colors of all corners as the file has them: its faces' own, or its vertices'."""
    if not mesh.visual.defined:
        return np.full((len(mesh.faces), 3, 3), _PLAIN)
    if mesh.visual.kind == "face":
        return np.repeat(_shares(mesh.visual.face_colors)[:, None], 3, axis=1)
    return _shares(mesh.visual.vertex_colors)[mesh.faces]


def _base_color(material: Any) -> tuple[np.ndarray, Any]:
    """The color that everything is multiplied with, sRGB, and the texture's picture, if any."""
    factor = getattr(material, "baseColorFactor", None)
    if hasattr(material, "baseColorTexture"):  # glTF's, in linear light
        plain = np.ones(3) if factor is None else np.asarray(factor[:3], dtype=np.float64)
        plain = plain / 255 if plain.max() > 1 else plain
        return _to_srgb(plain), material.baseColorTexture
    image = getattr(material, "image", None)
    diffuse = np.asarray(material.main_color[:3], dtype=np.float64) / 255
    return np.ones(3) if image is not None else diffuse, image


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    low, high = 12.92 * linear, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high).clip(0, 1)


def gltf_header(path: Path) -> dict[str, Any]:
    """The JSON of a glTF file, empty for others; raises what decoders raise on damaged ones."""
    if path.suffix.lower() == ".gltf":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix.lower() != ".glb":
        return {}
    with path.open("rb") as file:
        (length,) = struct.unpack("<I", file.read(20)[12:16])  # of the first chunk
        return json.loads(file.read(length))


def _is_linear(about: dict[str, Any]) -> bool:
    """Whether vertex colors are in linear light, as glTF says they are."""
    return bool(about) and _KNOWN_SRGB not in about.get("asset", {}).get("generator", "")


def _is_unlit(about: dict[str, Any]) -> bool:
    materials = about.get("materials", [])
    unlit = ["KHR_materials_unlit" in material.get("extensions", {}) for material in materials]
    return bool(unlit) and all(unlit)

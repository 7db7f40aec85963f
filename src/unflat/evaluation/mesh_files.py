"""Meshes named after objects, in a tar or a folder, as any program may have written them.

meshes = MeshFiles("objects-val-meshes.tar")
meshes.read("2729d2194879da43cb4acaec75cc3333").vertices
"""

import io
import posixpath
from pathlib import Path

import numpy as np

from unflat.data.file_tree import open_tree
from unflat.data.pictures import DECODE_ERRORS
from unflat.errors import UserError
from unflat.evaluation.lifter import Picture
from unflat.metrics import Triangles

ENDINGS = ("glb", "obj", "ply", "off", "stl")
"""Of files that are looked for, the first that is there."""


class MeshFiles:
    """Files ``NAME.glb`` (or .obj, .ply, .off, .stl), y up and front +z; keeps `Lifter`.

    Args:
        path: an uncompressed tar or a folder.

    Raises:
        UserError: no such file or folder, or no mesh in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the spelling.")
        self.name = self.path.name
        self._files = open_tree(self.path)
        names = [posixpath.splitext(file) for file in self._files.files("")]
        self.names = sorted({stem for stem, ending in names if ending[1:].lower() in ENDINGS})
        if not self.names:
            raise UserError(
                f"{path}: holds no mesh; put one file NAME.glb, .obj or .ply for each object there."
            )

    def describe(self) -> dict[str, object]:
        """The folder's name and how many meshes it has."""
        return {"meshes": self.path.name, "count": len(self.names)}

    def lift(self, picture: Picture, seed: int) -> Triangles:
        """The mesh of the object's name."""
        return self.read(picture.name)

    def read(self, name: str) -> Triangles:
        """All triangles of a file, its parts where the file places them.

        Raises:
            UserError: no file of that name, damaged, or without a face.
        """
        import trimesh

        there = self._files.files("")
        file = next((f"{name}.{end}" for end in ENDINGS if f"{name}.{end}" in there), None)
        if file is None:
            raise UserError(f"{self.path}: has no mesh of {name}; add {name}.glb, .obj or .ply.")
        ending = file.rsplit(".", 1)[1]
        try:
            content = io.BytesIO(self._files.read(file))
            scene = trimesh.load_scene(content, file_type=ending, process=False)
            mesh = scene.to_mesh()
            vertices = np.asarray(mesh.vertices, dtype=np.float64)
            faces = np.asarray(mesh.faces, dtype=np.int64)
        except DECODE_ERRORS as error:
            detail = f"{type(error).__name__}: {error}".split("\n")[0][:80]
            raise UserError(f"{self.path}: {file} cannot be read ({detail}).") from error
        if not len(faces):
            raise UserError(f"{self.path}: {file} holds no face; write the mesh again.")
        if not np.isfinite(vertices).all():
            raise UserError(
                f"{self.path}: {file} holds vertices that are not finite; write the mesh again."
            )
        return Triangles(vertices, faces)

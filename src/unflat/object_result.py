"""What of a result folder is made otherwise for an object than for the scene of a photo."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unflat.errors import UserError
from unflat.export import (
    Mesh,
    can_texture,
    colorize_disparity,
    colorize_normals,
    mesh_report,
    preview_strip,
    splats_from_mesh,
    textured,
    write_depth,
    write_mesh,
    write_mesh_viewer,
    write_png,
    write_splats,
)
from unflat.geometry import Camera, turn_around
from unflat.object_scene import ObjectScene, depth_of
from unflat.report import Report
from unflat.scene import Frames

_OF_MESH = ("glb", "ply", "obj", "splat", "html")
_TEXTURED = ("glb", "obj")
_PREVIEW_WIDTH = 1024
_STILL_FRAMES = 12
"""Views that the viewer keeps for browsers without WebGL2."""
_NORMAL_SAMPLES = 32
"""Slopes are asked on the surface, which takes more to find than its colours do."""
_SIDES = (("from the left", -45.0), ("from the right", 45.0), ("from behind", 180.0))


def write_object_files(
    scene: ObjectScene,
    folder: Path,
    files: Mapping[str, str],
    report: Report,
    *,
    name: str,
    describe: str,
    info: Mapping[str, object],
    film: Frames | None = None,
    optional: Sequence[str] = (),
) -> None:
    """Write an object in formats that are no videos; adds to ``report.files``.

    Args:
        scene: to write.
        folder: where to; exists.
        files: names by format, in the order in which they are written.
        report: gets stages, files and figures.
        name: of the object.
        describe: a sentence for people who do not see it.
        info: for the viewer.
        film: once around, if there is one.
        optional: formats that are left out, with a warning, if the object has no surface.

    Raises:
        UserError: it has no surface, and a format that needs one is not optional.
    """
    of_mesh = {kind: file for kind, file in files.items() if kind in _OF_MESH}
    mesh = _mesh(scene, of_mesh, report, name, optional) if of_mesh else None
    if mesh is not None:
        _write_of_mesh(scene, mesh, folder, files, report, describe)
    with_page = mesh is not None and "html" in files
    if not with_page and "depth" not in files:
        return
    with report.stage("front"):
        front = scene.render()
    if mesh is not None and with_page:
        images = [] if film is None else list(film.images)
        with report.stage("viewer"):
            write_mesh_viewer(
                mesh,
                scene.camera,
                folder / files["html"],
                title=name,
                info=info,
                picture=front.rgb[0],
                pivot=scene.pivot,
                frames=images[:: max(1, -(-len(images) // _STILL_FRAMES))],
                describe=describe,
            )
        report.files.append(files["html"])
    if "depth" in files:
        scale = write_depth(depth_of(front)[0], folder / files["depth"])
        report.figures["depth_units_per_level"] = scale
        report.files += [files["depth"], Path(files["depth"]).with_suffix(".npy").name]


def write_object_preview(scene: ObjectScene, folder: Path) -> None:
    """``input.png`` if it was made from a picture, and ``preview.png``: all sides in one strip."""
    pictures: list[tuple[str, Any]] = []
    if scene.photo is not None:
        write_png(scene.photo, folder / "input.png")
        pictures.append(("input", scene.photo))
    count = len(pictures) + 1 + len(_SIDES) + 2
    size = (_PREVIEW_WIDTH // count, _PREVIEW_WIDTH // count)
    samples = scene.quick_samples
    front = scene.render(size=size, samples=samples)
    pictures.append(("front" if scene.photo is None else "reconstruction", front.rgb[0]))
    for label, degrees in _SIDES:
        seen = scene.render(_turned(scene, degrees), size, samples)
        pictures.append((label, seen.rgb[0]))
    depth = depth_of(front)[0]
    nearness = torch.where(depth.isfinite(), 1 / depth, torch.nan)
    pictures.append(("depth, near is bright", colorize_disparity(nearness)))
    normals = scene.normals(size=size, samples=max(samples, _NORMAL_SAMPLES))
    pictures.append(("normals, up is green", colorize_normals(normals[0])))
    write_png(preview_strip(pictures, _PREVIEW_WIDTH), folder / "preview.png")


def _mesh(
    scene: ObjectScene,
    files: Mapping[str, str],
    report: Report,
    name: str,
    optional: Sequence[str],
) -> Mesh | None:
    """Its surface; None, with a warning, if it has none and nobody insists."""
    with report.stage("mesh") as stage:
        try:
            mesh = scene.mesh()
        except UserError as error:
            if any(kind not in optional for kind in files):
                raise
            stage.note = "none"
            report.warn(f"no {', '.join(files.values())}: {error}", about=name)
            return None
        found = mesh_report(mesh)
        stage.note = str(found)
        report.figures["mesh"] = dataclasses.asdict(found)
        return mesh


def _write_of_mesh(
    scene: ObjectScene,
    mesh: Mesh,
    folder: Path,
    files: Mapping[str, str],
    report: Report,
    describe: str,
) -> None:
    """All files that hold its surface, but for the page."""
    with_texture = [kind for kind in _TEXTURED if kind in files]
    painted = _painted(scene, mesh, with_texture, report) if with_texture else mesh
    for kind in with_texture:
        write_mesh(painted, folder / files[kind], describe=describe)
        report.files.append(files[kind])
        if kind == "obj" and painted.texture is not None:
            report.files += [Path(files[kind]).with_suffix(end).name for end in (".mtl", ".png")]
    if "ply" in files:
        write_mesh(mesh, folder / files["ply"], describe=describe)
        report.files.append(files["ply"])
    if "splat" in files:
        with report.stage("splats") as stage:
            splats = splats_from_mesh(mesh)
            write_splats(splats, folder / files["splat"])
            stage.note = f"{len(splats.centers)} splats, one for each vertex"
        report.files.append(files["splat"])


def _painted(scene: ObjectScene, mesh: Mesh, kinds: Sequence[str], report: Report) -> Mesh:
    """The mesh with a texture; as it is, with a warning, where that cannot be made."""
    named = " and ".join(kinds)
    if not can_texture():
        report.warn(
            f"{named} with vertex colours, without a texture, which needs the mesh extra: "
            'pip install "unflat[mesh]"'
        )
        return mesh
    with report.stage("texture") as stage:
        try:
            painted = textured(mesh, scene.field)
        except UserError as error:
            stage.note = "none"
            report.warn(f"{named} with vertex colours, without a texture: {error}")
            return mesh
        assert painted.texture is not None
        side = len(painted.texture.image)
        stage.note = (
            f"{side} x {side} texels on {len(painted.faces)} of {len(mesh.faces)} triangles"
        )
        is_closed = _is_closed(painted)
        report.figures["texture"] = {
            "side_texels": side,
            "faces": len(painted.faces),
            "watertight": is_closed,
        }
    if not is_closed and _is_closed(mesh):
        report.warn(f"{named} of fewer triangles, which are not closed; ply has all, closed")
    return painted


def _is_closed(mesh: Mesh) -> bool:
    """Whether it is watertight once vertices at one place are one."""
    places, number = np.unique(mesh.vertices, axis=0, return_inverse=True)
    welded = Mesh(places, number.reshape(-1)[mesh.faces], mesh.colors[: len(places)])
    return mesh_report(welded).watertight


def _turned(scene: ObjectScene, degrees: float) -> Camera:
    """The canonical camera, moved around the object; to its right is positive."""
    azimuth = scene.pivot.new_tensor([math.radians(degrees)])
    start = scene.camera.camera_to_world[0]
    pose = turn_around(start, scene.pivot, azimuth, torch.zeros_like(azimuth))
    return dataclasses.replace(scene.camera, camera_to_world=pose)

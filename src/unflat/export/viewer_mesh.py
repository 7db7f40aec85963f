"""A page to look at an object from all around: one HTML file that asks nothing of the network.

    write_mesh_viewer(scene.mesh(), scene.camera, "car/viewer.html", title="car",
                      info={"model": "eg3d"}, picture=scene.render().rgb[0])

The mesh goes in as packed numbers; viewer_mesh.js draws it with WebGL2, viewer_around.js says how
it turns, viewer.js is the page around it.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from unflat.errors import UserError
from unflat.export.mesh import Mesh
from unflat.export.picture import Picture, disparity_table, to_uint8
from unflat.export.viewer_page import at_most, deflated, image_uri, pack_words, page
from unflat.files import atomic_path
from unflat.geometry.camera import Camera

_LARGEST_PICTURE = 512
_LARGEST_FRAME = 256
_SCRIPTS = ("viewer_unpack.js", "viewer_gl.js", "viewer_mesh.js", "viewer_around.js")


def write_mesh_viewer(
    mesh: Mesh,
    camera: Camera,
    path: str | Path,
    *,
    title: str,
    info: Mapping[str, object],
    picture: Picture,
    pivot: Float[Tensor, "3"] | None = None,
    frames: Sequence[Picture] = (),
    describe: str = "",
) -> Path:
    """The path of the page written.

    Its first frame is the canonical view. Open it by double click; scripts on other pages and
    tests steer it by ``window.unflat.setCamera(yawDeg, pitchDeg)``, degrees by which the camera
    moves to its right and up, as `unflat.geometry.turn_around` does. Colours are shown as they are,
    without shading: they hold their own light.

    Args:
        mesh: in the object world, with vertex colours.
        camera: the canonical camera; with or without a batch axis of 1.
        path: of the page, as in ``viewer.html``.
        title: shown above the object.
        info: what the object is (model, picture, licence, confidence, date), shown behind "i".
        picture: the canonical view; shown where scripts are off or WebGL2 is missing.
        pivot: what the camera turns about at first; the point of its axis nearest to the middle of
            the mesh's box if not given.
        frames: views made beforehand, all around, shown where WebGL2 is missing.
        describe: the object in words for people who do not see it; from the title if not given.

    Raises:
        UserError: the mesh has no triangle, or ``path`` can not be written.
        ValueError: the mesh is in the scene world.
    """
    path = Path(path)
    if mesh.world != "object":
        raise ValueError("a mesh of the scene world is shown by its layers: see write_viewer")
    if len(mesh.faces) == 0:
        raise UserError(f"{path}: the object has no surface to show; look at its pictures.")
    shown = to_uint8(picture)
    describe = " ".join(describe.split()) or f"3D object {title}"
    data = {
        **_stand(mesh, camera, pivot),
        "mesh": _packed(mesh),
        "aspect": shown.shape[1] / shown.shape[0],
        "table": base64.b64encode(disparity_table().tobytes()).decode(),
        "info": {str(name): value for name, value in info.items()},
        "describe": describe,
        "fileStem": path.stem,
        "frames": [image_uri(at_most(to_uint8(frame), _LARGEST_FRAME), 80) for frame in frames],
    }
    still = image_uri(at_most(shown, _LARGEST_PICTURE), 92)
    text = page(title, describe, [still], data, _SCRIPTS)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _stand(mesh: Mesh, camera: Camera, pivot: Float[Tensor, "3"] | None) -> dict[str, object]:
    """Where the camera is, what it turns about, and what depths it can see while it does."""
    pose = camera.camera_to_world.detach().cpu().double().reshape(4, 4).numpy()
    forward, position = pose[:3, 2], pose[:3, 3]
    if pivot is None:
        middle = (mesh.vertices.min(0) + mesh.vertices.max(0)).astype(np.float64) / 2
        center = position + ((middle - position) @ forward) * forward
    else:
        center = pivot.detach().cpu().double().numpy()
    distance = float(max((center - position) @ forward, 1e-6))
    reach = float(np.linalg.norm(mesh.vertices - center, axis=1).max())
    nearest = max(distance - reach, 0.05 * distance)
    return {
        "pose": pose[:3].tolist(),
        "pivot": center.tolist(),
        "distance": distance,
        "azimuthDeg": math.degrees(math.atan2(-forward[0], -forward[2])),
        "elevationDeg": math.degrees(math.asin(float(np.clip(-forward[1], -1, 1)))),
        "intrinsics": camera.intrinsics.detach().cpu().double().reshape(4).tolist(),
        "orthographic": camera.kind == "orthographic",
        "disparityRange": [1 / (distance + reach), 1 / nearest],
    }


def _packed(mesh: Mesh) -> dict[str, object]:
    """Corners as 16-bit shares of their box, triangles and colours as differences."""
    low, high = mesh.vertices.min(0).astype(np.float64), mesh.vertices.max(0).astype(np.float64)
    shares = (mesh.vertices - low) / np.maximum(high - low, 1e-12)
    words = np.round(shares * 65535).astype(np.uint16)
    return {
        "low": low.tolist(),
        "high": high.tolist(),
        "words": [deflated(pack_words(words[None, :, axis])) for axis in range(3)],
        "triangles": deflated(_pack_indices(mesh.faces)),
        "colors": deflated(_pack_colors(mesh.colors)),
    }


def _pack_indices(faces: Int[np.ndarray, "faces 3"]) -> bytes:
    """Zigzagged differences from index to index: all highest bytes first, all lowest ones last."""
    step = np.diff(faces.ravel().astype(np.int64), prepend=0)
    zigzag = (step << 1) ^ (step >> 63)
    return b"".join(((zigzag >> bits) & 255).astype(np.uint8).tobytes() for bits in (24, 16, 8, 0))


def _pack_colors(colors: UInt8[np.ndarray, "vertices 3"]) -> bytes:
    """Differences from vertex to vertex, modulo 256: all reds, all greens, all blues."""
    return np.diff(colors, axis=0, prepend=np.zeros((1, 3), np.uint8)).T.tobytes()

"""Gaussian splats: made from layers or a mesh, written as a PLY that viewers open.

write_splats(splats_from_layers(scene.layers(), scene.camera), "cat.ply")
write_splats(splats_from_mesh(object_scene.mesh()), "chair.ply")
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from unflat.errors import UserError
from unflat.export.layer import Layer, disparity_jumps, layer_points, surface_mask
from unflat.export.mesh import SCENE_TO_FILE, Mesh, vertex_normals
from unflat.files import atomic_path
from unflat.geometry.camera import Camera

FIELDS = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
"""Order of the float32 properties in the file."""

_SH_0 = 0.28209479177387814
"""Constant spherical harmonic, 1 / (2 sqrt(pi)): rgb = 0.5 + _SH_0 * f_dc."""
_SPREAD = 0.65
"""Standard deviation in pixel steps; 4 neighbours then hide what is behind to over 93 %."""
_THICKNESS = 0.05
"""Share of the smaller spread: flat, but with an inverse that float32 can hold."""
_LONGEST = 4.0
"""Largest stretch of a splat on a slanted surface, in pixel steps."""
_OPACITY = 0.99
_OPACITY_LIMIT = 1e-4
"""Distance of a written opacity from 0 and 1, where its logit would be infinite."""


@dataclass(frozen=True)
class Splats:
    """Gaussians in scene world (OpenCV axes, y down).

    Attributes:
        centers: world units.
        scales: standard deviation along the gaussian's own axes, above 0, world units.
        rotations: unit quaternions w x y z, from the gaussian's axes to the world's.
        colors: sRGB in [0, 1].
        opacities: at the centre, in [0, 1].
    """

    centers: Float32[np.ndarray, "splats 3"]
    scales: Float32[np.ndarray, "splats 3"]
    rotations: Float32[np.ndarray, "splats 4"]
    colors: Float32[np.ndarray, "splats 3"]
    opacities: Float32[np.ndarray, " splats"]


def splats_from_layers(layers: list[Layer], camera: Camera, jump: float = 0.1) -> Splats:
    """One flat gaussian for each pixel, lying in its surface, a little larger than the pixel.

    Where a pixel has no neighbour on its own surface, its gaussian faces the camera.

    Args:
        layers: front first, as ``Scene.layers`` gives them.
        camera: the canonical camera.
        jump: relative step in disparity at which a surface ends.
    """
    parts = [_layer_splats(layer, camera, jump) for layer in layers]
    return Splats(
        *(
            np.concatenate([getattr(part, name) for part in parts]).astype(np.float32)
            for name in ("centers", "scales", "rotations", "colors", "opacities")
        )
    )


def splats_from_mesh(mesh: Mesh) -> Splats:
    """One flat gaussian for each vertex, lying in the surface, in the scene world.

    Its standard deviation is 0.65 of the mean edge at the vertex: meshes of even grids are covered
    well, large triangles show gaps.

    Args:
        mesh: in either world.
    """
    turn = mesh.to_file * SCENE_TO_FILE
    vertices = (mesh.vertices * turn).astype(np.float64)
    normals = mesh.normals
    if normals is None:
        normals = vertex_normals(mesh.vertices, mesh.faces)
    ends = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1)
    total = np.bincount(ends.ravel(), np.repeat(edges, 2), len(vertices))
    used = np.bincount(ends.ravel(), minlength=len(vertices))
    kept = used > 0
    spread = _SPREAD * (total[kept] / used[kept])[:, None]
    third = (normals * turn)[kept].astype(np.float64)
    least = np.eye(3)[np.abs(third).argmin(axis=1)]  # the axis farthest from the normal
    first, _ = _unit(np.cross(least, third))
    frame = np.stack([first, np.cross(third, first), third], axis=2)
    return Splats(
        centers=vertices[kept].astype(np.float32),
        scales=(spread * [1, 1, _THICKNESS]).astype(np.float32),
        rotations=_quaternions(frame).astype(np.float32),
        colors=(mesh.colors[kept] / 255).astype(np.float32),
        opacities=np.full(int(kept.sum()), _OPACITY, dtype=np.float32),
    )


def write_splats(splats: Splats, path: str | Path) -> Path:
    """The path of the PLY written: standard fields only, harmonics of order 0, y up.

    Opacity is written as its logit, scale as its logarithm.

    Raises:
        UserError: another suffix, no splats, or a place that can not be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".ply":
        raise UserError(f"{path}: splats are written as .ply; give a name with this ending.")
    if len(splats.centers) == 0:
        raise UserError(f"{path}: the scene has no surface to write; check the picture.")
    opacity = splats.opacities.clip(_OPACITY_LIMIT, 1 - _OPACITY_LIMIT)
    table = np.concatenate(
        [
            splats.centers * [1, -1, -1],
            (splats.colors - 0.5) / _SH_0,
            np.log(opacity / (1 - opacity))[:, None],
            np.log(splats.scales),
            _half_turn(splats.rotations),
        ],
        axis=1,
    ).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", "comment unflat: y up, units unknown"]
    header += [f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in FIELDS] + ["end_header", ""]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.tobytes())
    return path


def read_splats(path: str | Path) -> Splats:
    """Splats of a file that ``write_splats`` wrote, back in scene world.

    Raises:
        UserError: no such file, another kind of PLY, or a file cut short.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the name.") from None
    head, end, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    names = tuple(line.split()[-1] for line in lines if line.startswith("property float "))
    counts = [int(line.split()[-1]) for line in lines if line.startswith("element vertex ")]
    if not end or not data.startswith(b"ply\n") or names != FIELDS or len(counts) != 1:
        raise UserError(f"{path}: is not a splat file of unflat; export the scene again.")
    if len(body) != counts[0] * len(FIELDS) * 4:
        raise UserError(f"{path}: the file is cut short; export the scene again.")
    table = np.frombuffer(body, "<f4").reshape(-1, len(FIELDS)).astype(np.float32)
    turn = np.array([1, -1, -1], dtype=np.float32)
    return Splats(
        centers=table[:, :3] * turn,
        scales=np.exp(table[:, 7:10]),
        rotations=-_half_turn(table[:, 10:14]),
        colors=table[:, 3:6] * np.float32(_SH_0) + np.float32(0.5),
        opacities=1 / (1 + np.exp(-table[:, 6])),
    )


def _layer_splats(layer: Layer, camera: Camera, jump: float) -> Splats:
    mask = surface_mask(layer)
    height, width = mask.shape
    points = layer_points(layer, camera).numpy().astype(np.float64)
    disparity = np.where(mask, 1 / np.where(mask, layer.depth.detach().cpu().numpy(), 1), 0.0)
    right, down = disparity_jumps(disparity, mask, jump)
    pose = camera.camera_to_world.detach().cpu().double().reshape(4, 4).numpy()
    fx, fy = camera.intrinsics.detach().cpu().double().reshape(4)[:2].tolist()
    far = 1 / np.where(mask, disparity, 1) if camera.kind == "perspective" else np.ones_like(mask)
    steps = (far / (fx * width), far / (fy * height))
    along_u = _tangent(points, ~right & mask[:, 1:] & mask[:, :-1], pose[:3, 0], steps[0])
    turned = _tangent(
        points.swapaxes(0, 1), (~down & mask[1:] & mask[:-1]).T, pose[:3, 1], steps[1].T
    )
    along_u, along_v = along_u[mask], turned.swapaxes(0, 1)[mask]
    first, length_u = _unit(along_u)
    across = along_v - (along_v * first).sum(1, keepdims=True) * first
    second, length_v = _unit(across)
    third = np.cross(first, second)
    spread = _SPREAD * np.concatenate([length_u, length_v], 1)
    scales = np.concatenate([spread, _THICKNESS * spread.min(1, keepdims=True)], 1)
    return Splats(
        centers=points[mask].astype(np.float32),
        scales=scales.astype(np.float32),
        rotations=_quaternions(np.stack([first, second, third], axis=2)).astype(np.float32),
        colors=layer.rgb.detach().cpu().numpy()[mask].astype(np.float32).clip(0, 1),
        opacities=np.full(int(mask.sum()), _OPACITY, dtype=np.float32),
    )


def _tangent(
    points: np.ndarray, joined: np.ndarray, facing: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """Mean step to the joined neighbours in a row, [rows, columns, 3].

    At most ``_LONGEST`` times ``step``; ``step * facing`` for a pixel without neighbours.
    """
    forward = np.diff(points, axis=1) * joined[..., None]
    total = np.zeros_like(points)
    total[:, :-1] += forward
    total[:, 1:] += forward
    count = np.zeros(points.shape[:2])
    count[:, :-1] += joined
    count[:, 1:] += joined
    mean = total / np.maximum(count, 1)[..., None]
    mean = np.where(count[..., None] > 0, mean, step[..., None] * facing)
    length = np.linalg.norm(mean, axis=-1)
    return mean * np.minimum(1, _LONGEST * step / np.maximum(length, 1e-30))[..., None]


def _unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return vectors / length, length


def _quaternions(
    rotations: Float[np.ndarray, "splats 3 3"],
) -> Float[np.ndarray, "splats 4"]:
    """Unit quaternions w x y z, w at least 0, of rotation matrices.

    Each is a column of the symmetric 4x4 matrix 4 q q^T, the one with the largest diagonal: no
    division by a number near 0.
    """
    r = rotations
    x, y, z = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    outer = np.empty((len(r), 4, 4))
    outer[:, 0, 0], outer[:, 1, 1] = 1 + x + y + z, 1 + x - y - z
    outer[:, 2, 2], outer[:, 3, 3] = 1 - x + y - z, 1 - x - y + z
    outer[:, 0, 1] = outer[:, 1, 0] = r[:, 2, 1] - r[:, 1, 2]
    outer[:, 0, 2] = outer[:, 2, 0] = r[:, 0, 2] - r[:, 2, 0]
    outer[:, 0, 3] = outer[:, 3, 0] = r[:, 1, 0] - r[:, 0, 1]
    outer[:, 1, 2] = outer[:, 2, 1] = r[:, 1, 0] + r[:, 0, 1]
    outer[:, 1, 3] = outer[:, 3, 1] = r[:, 0, 2] + r[:, 2, 0]
    outer[:, 2, 3] = outer[:, 3, 2] = r[:, 2, 1] + r[:, 1, 2]
    largest = np.argmax(np.einsum("nii->ni", outer), axis=1)
    column = outer[np.arange(len(r)), largest]
    unit = column / np.linalg.norm(column, axis=1, keepdims=True)
    return np.where(unit[:, :1] < 0, -unit, unit)


def _half_turn(quaternions: np.ndarray) -> np.ndarray:
    """The rotations followed by diag(1, -1, -1): the product (0, 1, 0, 0) q."""
    w, x, y, z = quaternions.T
    return np.stack([-x, w, -z, y], axis=1)

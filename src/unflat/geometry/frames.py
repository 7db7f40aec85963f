"""The same camera in the words of other programs, and the same point in other worlds.

`to_x(camera)` gives what program x stores, `from_x(...)` the camera; there and back is the
identity. Here are the general ones (OpenGL, Blender, COLMAP, PyTorch3D); those of published
image-to-3D code are in `unflat.geometry.published_frames`. docs/conventions.md draws all axes.

    stored = to_colmap(camera, height=480, width=640)
    camera = from_colmap(stored, height=480, width=640)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera, invert_rigid, rigid
from unflat.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion


def z_up_to_object(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Points of a z-up world whose front is -y, in the object world: (x, y, z) -> (x, z, -y)."""
    x, y, z = points.unbind(dim=-1)
    return torch.stack([x, z, -y], dim=-1)


def object_to_z_up(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Points of the object world in a z-up world whose front is -y: (x, y, z) -> (x, -z, y)."""
    x, y, z = points.unbind(dim=-1)
    return torch.stack([x, -z, y], dim=-1)


def scene_to_export(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Points of the scene world (y down, z forward) as files hold them (y up, z backward).

    The half-turn about x, diag(1, -1, -1), is its own inverse; it keeps handedness, so faces keep
    their winding and normals turn in the same way.
    """
    return points * points.new_tensor([1.0, -1.0, -1.0])


def camera_z_up_to_object(camera: Camera) -> Camera:
    """A camera of a z-up world in the object world, its own axes unchanged."""
    return _turn_world(camera, z_up_to_object)


def camera_object_to_z_up(camera: Camera) -> Camera:
    """A camera of the object world in a z-up world, its own axes unchanged."""
    return _turn_world(camera, object_to_z_up)


def camera_scene_to_export(camera: Camera) -> Camera:
    """A camera of the scene world in the world of exported files, its own axes unchanged."""
    return _turn_world(camera, scene_to_export)


def to_scene_world(camera: Camera, canonical: Camera) -> Camera:
    """Cameras as the canonical one sees them: in the scene world, where it is the identity.

    Args:
        camera: any batch.
        canonical: a single camera (or a batch that broadcasts) of the same world.
    """
    return Camera(
        camera_to_world=canonical.world_to_camera @ camera.camera_to_world,
        intrinsics=camera.intrinsics,
        kind=camera.kind,
    )


def flip_camera_axes(camera_to_world: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """OpenCV camera axes (x right, y down, z forward) to OpenGL's (y up, z backward) or back."""
    return camera_to_world * camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0])


class OpenGLCamera(NamedTuple):
    """The two matrices of a classic OpenGL pipeline, for column vectors.

    clip = projection @ view @ (x, y, z, 1). Divided by its last number, x (right) and y (up) are in
    [-1, 1] inside the picture: u = (1 + x) / 2, v = (1 - y) / 2.
    """

    view: Float[Tensor, "*batch 4 4"]
    """World to camera; the camera's x is right, y up, and it looks along -z."""
    projection: Float[Tensor, "*batch 4 4"]
    """As of glFrustum or glOrtho, depth range [-1, 1]."""


def to_opengl(camera: Camera, near: float = 0.1, far: float = 100.0) -> OpenGLCamera:
    """View and projection matrix; `near` and `far` (depths, world units) only set the z-buffer."""
    fx, fy, cx, cy = camera.intrinsics.unbind(dim=-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    span = far - near
    if camera.kind == "perspective":
        rows = [
            [2.0 * fx, zero, 1.0 - 2.0 * cx, zero],
            [zero, 2.0 * fy, 2.0 * cy - 1.0, zero],
            [zero, zero, -(far + near) / span * one, -2.0 * far * near / span * one],
            [zero, zero, -one, zero],
        ]
    else:
        rows = [
            [2.0 * fx, zero, zero, 2.0 * cx - 1.0],
            [zero, 2.0 * fy, zero, 1.0 - 2.0 * cy],
            [zero, zero, -2.0 / span * one, -(far + near) / span * one],
            [zero, zero, zero, one],
        ]
    projection = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    return OpenGLCamera(invert_rigid(flip_camera_axes(camera.camera_to_world)), projection)


def from_opengl(stored: OpenGLCamera) -> Camera:
    """The camera of a view and a projection matrix; the last row tells the kind.

    Raises:
        ValueError: perspective and orthographic matrices in one batch.
    """
    projection = stored.projection
    last = projection[..., 3, 3]
    if not bool((last == last.flatten()[0]).all()):
        raise ValueError("projection: perspective and orthographic matrices in one batch")
    is_perspective = bool((last == 0.0).all())
    column = projection[..., :2, 2] if is_perspective else -projection[..., :2, 3]
    center = 0.5 - 0.5 * column * column.new_tensor([1.0, -1.0])
    focal = 0.5 * torch.stack([projection[..., 0, 0], projection[..., 1, 1]], dim=-1)
    return Camera(
        camera_to_world=flip_camera_axes(invert_rigid(stored.view)),
        intrinsics=torch.cat([focal, center], dim=-1),
        kind="perspective" if is_perspective else "orthographic",
    )


class BlenderCamera(NamedTuple):
    """A Blender camera object with horizontal sensor fit (pictures at least as wide as high)."""

    matrix_world: Float[Tensor, "*batch 4 4"]
    """Camera to world; the camera's x is right, y up, and it looks along -z."""
    angle_x: Float[Tensor, "*batch"] | None
    """Field of view across the width in radians (`camera_angle_x` of NeRF's files)."""
    ortho_scale: Float[Tensor, "*batch"] | None
    """Width of the view in world units; given if and only if `angle_x` is not."""
    shift: Float[Tensor, "*batch 2"]
    """shift_x, shift_y: the view moves right and up by so many picture widths."""


def to_blender(camera: Camera, aspect: float = 1.0, z_up: bool = True) -> BlenderCamera:
    """What a Blender file holds.

    Args:
        camera: pixels must be square.
        aspect: width over height of the picture, at least 1.
        z_up: whether Blender's world is z up, front -y (its habit) or the camera's own world.

    Raises:
        ValueError: pixels are not square, or the picture is higher than wide.
    """
    if aspect < 1.0:
        raise ValueError(f"aspect is {aspect}; Blender's horizontal sensor fit wants at least 1")
    fx, fy, cx, cy = camera.intrinsics.unbind(dim=-1)
    if not torch.allclose(fx * aspect, fy, rtol=1e-4):
        raise ValueError(f"intrinsics: pixels are not square at aspect {aspect}; Blender's are")
    if z_up:
        camera = camera_object_to_z_up(camera)
    is_perspective = camera.kind == "perspective"
    return BlenderCamera(
        matrix_world=flip_camera_axes(camera.camera_to_world),
        angle_x=2.0 * torch.atan(0.5 / fx) if is_perspective else None,
        ortho_scale=None if is_perspective else 1.0 / fx,
        shift=torch.stack([0.5 - cx, (cy - 0.5) / aspect], dim=-1),
    )


def from_blender(stored: BlenderCamera, aspect: float = 1.0, z_up: bool = True) -> Camera:
    """The camera of a Blender file.

    Args:
        stored: as in the file.
        aspect: width over height of the picture, at least 1.
        z_up: whether to turn the z-up world to the object world or leave the world as it is.

    Raises:
        ValueError: both or neither of `angle_x` and `ortho_scale` are given.
    """
    if stored.angle_x is not None and stored.ortho_scale is None:
        fx = 0.5 / torch.tan(0.5 * stored.angle_x)
    elif stored.ortho_scale is not None and stored.angle_x is None:
        fx = 1.0 / stored.ortho_scale
    else:
        raise ValueError("stored: give either angle_x or ortho_scale")
    shift_x, shift_y = stored.shift.unbind(dim=-1)
    camera = Camera(
        camera_to_world=flip_camera_axes(stored.matrix_world),
        intrinsics=torch.stack([fx, fx * aspect, 0.5 - shift_x, 0.5 + shift_y * aspect], dim=-1),
        kind="orthographic" if stored.angle_x is None else "perspective",
    )
    return camera_z_up_to_object(camera) if z_up else camera


class ColmapCamera(NamedTuple):
    """One image and its PINHOLE camera in a COLMAP model.

    x = rotation(qvec) X + tvec in OpenCV axes; pixel = (fx x/z + cx, fy y/z + cy), in which the
    centre of the upper left pixel is (0.5, 0.5).
    """

    qvec: Float[Tensor, "*batch 4"]
    """World-to-camera quaternion (w, x, y, z)."""
    tvec: Float[Tensor, "*batch 3"]
    """World-to-camera translation."""
    params: Float[Tensor, "*batch 4"]
    """fx, fy, cx, cy in pixels."""


def to_colmap(camera: Camera, height: int, width: int) -> ColmapCamera:
    """What images.txt and cameras.txt hold; the world is not turned.

    Raises:
        ValueError: the camera is orthographic, which COLMAP does not have.
    """
    if camera.kind != "perspective":
        raise ValueError("camera is orthographic; COLMAP's are perspective")
    motion = camera.world_to_camera
    pixels = camera.intrinsics.new_tensor([width, height, width, height])
    return ColmapCamera(
        qvec=quaternion_from_rotation(motion[..., :3, :3]),
        tvec=motion[..., :3, 3],
        params=camera.intrinsics * pixels,
    )


def from_colmap(stored: ColmapCamera, height: int, width: int) -> Camera:
    """The camera of an image and its PINHOLE parameters; the world is not turned."""
    motion = rigid(rotation_from_quaternion(stored.qvec), stored.tvec)
    pixels = stored.params.new_tensor([width, height, width, height])
    return Camera(camera_to_world=invert_rigid(motion), intrinsics=stored.params / pixels)


class PyTorch3DCamera(NamedTuple):
    """Arguments of PyTorch3D's PerspectiveCameras or OrthographicCameras with in_ndc=True.

    x = X @ R + T for row vectors; the camera's x is left, y up, z forward. NDC = focal x/z + point
    (orthographic: without z), also left and up; the shorter side of the picture spans [-1, 1].
    """

    R: Float[Tensor, "*batch 3 3"]  # PyTorch3D's own spelling
    """World-to-camera rotation for row vectors."""
    T: Float[Tensor, "*batch 3"]
    """World-to-camera translation."""
    focal_length: Float[Tensor, "*batch 2"]
    """In NDC units."""
    principal_point: Float[Tensor, "*batch 2"]
    """In NDC units, left and up."""


def to_pytorch3d(camera: Camera, aspect: float = 1.0) -> PyTorch3DCamera:
    """What PyTorch3D's cameras are made from; the world is not turned.

    Args:
        camera: its kind chooses the class.
        aspect: width over height of the picture.
    """
    turn = camera.intrinsics.new_tensor([-1.0, -1.0, 1.0])
    reach = _ndc_reach(camera.intrinsics, aspect)
    motion = camera.world_to_camera
    return PyTorch3DCamera(
        R=camera.rotation * turn,
        T=motion[..., :3, 3] * turn,
        focal_length=2.0 * reach * camera.intrinsics[..., :2],
        principal_point=2.0 * reach * (0.5 - camera.intrinsics[..., 2:]),
    )


def from_pytorch3d(
    stored: PyTorch3DCamera, aspect: float = 1.0, is_orthographic: bool = False
) -> Camera:
    """The camera of PyTorch3D's arguments, which do not tell their class."""
    turn = stored.T.new_tensor([-1.0, -1.0, 1.0])
    reach = _ndc_reach(stored.focal_length, aspect)
    rotation = stored.R * turn
    position = -(rotation @ (stored.T * turn)[..., None])[..., 0]
    focal, center = 0.5 * stored.focal_length / reach, 0.5 - 0.5 * stored.principal_point / reach
    return Camera(
        camera_to_world=rigid(rotation, position),
        intrinsics=torch.cat([focal, center], dim=-1),
        kind="orthographic" if is_orthographic else "perspective",
    )


def _ndc_reach(like: Tensor, aspect: float) -> Tensor:
    """Largest NDC x and y inside the picture: 1 for the shorter side."""
    return like.new_tensor([max(aspect, 1.0), max(1.0 / aspect, 1.0)])


def _turn_world(camera: Camera, turn: Callable[[Tensor], Tensor]) -> Camera:
    # The columns of a camera-to-world matrix are three directions and a point of the world.
    columns = turn(camera.camera_to_world[..., :3, :].mT).mT
    return Camera(
        camera_to_world=torch.cat([columns, camera.camera_to_world[..., 3:, :]], dim=-2),
        intrinsics=camera.intrinsics,
        kind=camera.kind,
    )

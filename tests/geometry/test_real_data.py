"""The conventions against pictures and depths that another program rendered."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unflat.geometry.camera import Camera
from unflat.geometry.frames import camera_z_up_to_object, to_scene_world
from unflat.geometry.pose import orbit_coordinates, orbit_pose
from unflat.geometry.published_frames import from_zero123
from unflat.geometry.rays import pixel_grid
from unflat.geometry.trajectory import turn_about_pivot


@pytest.fixture(scope="module")
def rendered() -> Path:
    """The folder of rendered sets: UNFLAT_DATA, or a `shared/data` beside the repository."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("UNFLAT_DATA", beside))
    if not (folder / "scenes-val.tar").is_file():
        pytest.skip("needs the rendered data sets in the folder UNFLAT_DATA")
    return folder


def read_members(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in wanted:
                stream = tar.extractfile(member)
                assert stream is not None
                found[member.name] = stream.read()
                if len(found) == len(wanted):
                    break
    assert found.keys() == wanted
    return found


def read_array(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def load_scene(archive: Path, name: str) -> tuple[Camera, torch.Tensor, dict]:
    """Cameras of 9 views in the set's own z-up world, inverse depths, and what the file says."""
    names = {f"{name}/meta.json", *(f"{name}/invdepth_{k}.png" for k in range(9))}
    files = read_members(archive, names)
    meta = json.loads(files[f"{name}/meta.json"])
    poses = torch.tensor([view["cam2world"] for view in meta["views"]], dtype=torch.float64)
    size = [meta["width"], meta["height"], meta["width"], meta["height"]]
    pixels = torch.tensor([meta[key] for key in ("fl_x", "fl_y", "cx", "cy")], dtype=torch.float64)
    intrinsics = (pixels / torch.tensor(size)).expand(9, 4)
    stack = np.stack([read_array(files[f"{name}/invdepth_{k}.png"]) for k in range(9)])
    inverse_depth = torch.from_numpy(stack.astype(np.float64) * 4.0 / 65535.0)
    return Camera(camera_to_world=poses, intrinsics=intrinsics), inverse_depth, meta


def agreement(cameras: Camera, inverse_depth: torch.Tensor, k: int) -> tuple[float, float]:
    """Share of canonical points that view k can see, and share of those inside its depth range.

    The range is that of the 3x3 pixels around where the point falls, widened by 2 %.
    """
    side = inverse_depth.shape[-1]
    uv = pixel_grid(side, side, dtype=torch.float64).reshape(-1, 2)
    finite = inverse_depth[0].flatten() > 0.0
    points = cameras[0].unproject(uv[finite], 1.0 / inverse_depth[0].flatten()[finite])
    seen, depth = cameras[k].project(points)
    pixel = torch.floor(seen * side).long()
    inside = ((pixel >= 1) & (pixel < side - 1)).all(dim=-1) & (depth > 0.0)
    around = inverse_depth[k].unfold(0, 3, 1).unfold(1, 3, 1).reshape(side - 2, side - 2, 9)
    column, row = (pixel[inside] - 1).unbind(dim=-1)
    near, far = around[row, column].amax(dim=-1), around[row, column].amin(dim=-1)
    inverse = 1.0 / depth[inside]
    # Where the view's own surface is clearly nearer, the point is hidden.
    unoccluded = inverse > 0.97 * inverse_depth[k][row + 1, column + 1]
    good = (inverse <= 1.02 * near) & (inverse >= 0.98 * far)
    return float(unoccluded.double().mean()), float(good[unoccluded].double().mean())


@pytest.mark.parametrize("name", ["0000", "0004"])
def test_depths_of_a_scene_agree_between_its_views(rendered: Path, name: str):
    cameras, inverse_depth, _ = load_scene(rendered / "scenes-val.tar", name)
    for k in range(9):
        visible, good = agreement(cameras, inverse_depth, k)
        assert visible > 0.3
        assert good > 0.98
    # Mirrored rows are what a wrong sign of y would look like: the check must notice.
    assert agreement(cameras, inverse_depth.flip(1), 3)[1] < 0.9


def test_scene_world_cameras_turn_about_the_pivot(rendered: Path):
    cameras, inverse_depth, meta = load_scene(rendered / "scenes-val.tar", "0000")
    local = to_scene_world(cameras, cameras[0])
    torch.testing.assert_close(local.camera_to_world[0], torch.eye(4).double())
    visible, good = agreement(local, inverse_depth, 2)
    assert visible > 0.3
    assert good > 0.98
    # The pivot is on the canonical axis, and every view is one of ours, turned about it.
    depth = meta["median_depth"]
    pivot = cameras[0].to_camera(torch.tensor([meta["pivot"]], dtype=torch.float64))[0]
    torch.testing.assert_close(pivot, torch.tensor([0.0, 0.0, depth]).double(), atol=1e-6, rtol=0)
    for k, view in enumerate(meta["views"]):
        backward = -local.forward[k]
        angle = torch.acos(-backward[2].clamp(min=-1.0))
        assert float(angle) == pytest.approx(np.radians(view["angle_deg"]), abs=1e-6)
        across = torch.nn.functional.normalize(backward[:2], dim=0) * angle
        turned = turn_about_pivot(across[0], -across[1], depth)
        torch.testing.assert_close(turned, local.camera_to_world[k], atol=1e-6, rtol=0.0)


def test_srn_poses_look_at_the_object_from_where_they_say(rendered: Path):
    archive = rendered / "planes-srn.tar"
    with tarfile.open(archive) as tar:
        first = next(member.name for member in tar if "/pose/" in member.name)
    stem = first.rsplit("/pose/", 1)[0]
    wanted = {f"{stem}/pose/{k:06d}.txt" for k in range(4)}
    wanted |= {f"{stem}/rgb/{k:06d}.png" for k in range(4)} | {f"{stem}/intrinsics.txt"}
    files = read_members(archive, wanted)
    focal = float(files[f"{stem}/intrinsics.txt"].split()[0])
    for k in range(4):
        numbers = np.array(files[f"{stem}/pose/{k:06d}.txt"].split(), dtype=np.float64)
        stored = Camera(
            camera_to_world=torch.from_numpy(numbers.reshape(4, 4)),
            intrinsics=torch.tensor([focal / 128.0, focal / 128.0, 0.5, 0.5]).double(),
        )
        camera = camera_z_up_to_object(stored)
        elevation, azimuth, radius = orbit_coordinates(camera.position)
        assert float(radius) == pytest.approx(1.3, abs=1e-5)
        assert -10.001 <= np.degrees(float(elevation)) <= 70.001
        ours = orbit_pose(elevation, azimuth, radius)
        torch.testing.assert_close(ours, camera.camera_to_world, atol=1e-5, rtol=0.0)
        # The object, with a bounding box around the origin, is seen around the projected origin.
        image = read_array(files[f"{stem}/rgb/{k:06d}.png"])[..., :3]
        rows, columns = np.nonzero((image < 250).any(axis=-1))
        center, _ = camera.project(torch.zeros(1, 3, dtype=torch.float64))
        assert columns.min() < 128.0 * float(center[0, 0]) < columns.max()
        assert rows.min() < 128.0 * float(center[0, 1]) < rows.max()


def glb_vertices(content: bytes) -> torch.Tensor:
    """Positions of all meshes of a GLB file in its own axes (y up)."""
    length = int.from_bytes(content[12:16], "little")
    header = json.loads(content[20 : 20 + length])
    binary = content[20 + length + 8 :]
    found = []
    for mesh in header["meshes"]:
        for primitive in mesh["primitives"]:
            accessor = header["accessors"][primitive["attributes"]["POSITION"]]
            view = header["bufferViews"][accessor["bufferView"]]
            start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
            assert accessor["componentType"] == 5126  # float32
            numbers = np.frombuffer(binary, np.float32, 3 * accessor["count"], start)
            found.append(numbers.reshape(-1, 3))
    return torch.from_numpy(np.concatenate(found).astype(np.float64))


def test_zero123_views_see_the_mesh_inside_their_silhouette(rendered: Path):
    """Vertices of the mesh fall on the object's pixels, and fill its extent, from every side.

    The mesh files have y up and front +z: they are in the object world as they are.
    """
    with tarfile.open(rendered / "objects-val-meshes.tar") as tar:
        member = next(member for member in tar if member.name.endswith(".glb"))
        stream = tar.extractfile(member)
        assert stream is not None
        vertices = glb_vertices(stream.read())
    uid = Path(member.name).stem
    wanted = {f"{uid}/{k:03d}.{end}" for k in range(6) for end in ("npy", "png")}
    files = read_members(rendered / "objects-zero123.tar", wanted)
    for k in range(6):
        matrix = np.load(io.BytesIO(files[f"{uid}/{k:03d}.npy"]), allow_pickle=False)
        camera = from_zero123(torch.from_numpy(matrix))
        _, _, radius = orbit_coordinates(camera.position)
        assert 1.499 < float(radius) < 2.201
        aim, _ = camera.project(torch.zeros(1, 3, dtype=torch.float64))
        torch.testing.assert_close(aim, torch.full((1, 2), 0.5).double(), atol=1e-5, rtol=0.0)
        alpha = read_array(files[f"{uid}/{k:03d}.png"])[..., 3] > 0
        padded = np.pad(alpha, 1)
        grown = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).any(axis=(2, 3))
        pixel = np.floor(camera.project(vertices)[0].numpy() * 128.0).astype(int).clip(0, 127)
        assert grown[pixel[:, 1], pixel[:, 0]].mean() > 0.98
        rows, columns = np.nonzero(alpha)
        extent = [columns.min(), columns.max(), rows.min(), rows.max()]
        mesh = [pixel[:, 0].min(), pixel[:, 0].max(), pixel[:, 1].min(), pixel[:, 1].max()]
        np.testing.assert_allclose(mesh, extent, atol=2)

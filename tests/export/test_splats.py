import struct

import numpy as np
import pytest
import torch

from unflat.errors import UserError
from unflat.export import Layer, Splats, read_splats, splats_from_layers, write_splats
from unflat.export.splats import FIELDS


def parse(path) -> dict[str, np.ndarray]:
    """A reader of its own: header lines, then little-endian floats one by one."""
    with path.open("rb") as file:
        assert file.readline() == b"ply\n"
        assert file.readline() == b"format binary_little_endian 1.0\n"
        names, count = [], 0
        while (line := file.readline().decode().split()) != ["end_header"]:
            if line[:2] == ["element", "vertex"]:
                count = int(line[2])
            elif line[0] == "property":
                assert line[1] == "float"
                names.append(line[2])
        rows = [struct.unpack(f"<{len(names)}f", file.read(4 * len(names))) for _ in range(count)]
        assert file.read() == b""
    return {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}


def matrix(quaternions: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternions.T
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1),
        ],
        1,
    )


def test_file_has_the_standard_fields_upright_with_their_activations(
    tmp_path, marked_layers, camera
):
    splats = splats_from_layers(marked_layers, camera)
    fields = parse(write_splats(splats, tmp_path / "a.ply"))
    assert tuple(fields) == FIELDS
    rgb = 0.5 + 0.28209479177387814 * np.stack([fields[f"f_dc_{i}"] for i in range(3)], 1)
    centers = np.stack([fields[axis] for axis in "xyz"], 1)
    red = centers[np.abs(rgb - (1, 0, 0)).max(1) < 0.01].mean(0)
    green = centers[np.abs(rgb - (0, 1, 0)).max(1) < 0.01].mean(0)
    blue = centers[np.abs(rgb - (0, 0, 1)).max(1) < 0.01].mean(0)
    assert red[1] > 0.5 > -0.5 > green[1]
    assert blue[2] == pytest.approx(-2, abs=1e-5)
    assert red[2] == pytest.approx(-4, abs=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-fields["opacity"])), 0.99, atol=1e-5)
    np.testing.assert_allclose(np.exp(fields["scale_0"]), splats.scales[:, 0], rtol=1e-5)
    rotations = matrix(np.stack([fields[f"rot_{i}"] for i in range(4)], 1))
    assert np.median(np.abs(rotations[:, 2, 2])) > 0.999, "the short axis looks at the viewer"


def test_size_is_the_pixels_footprint_a_little_enlarged(marked_layers, camera):
    splats = splats_from_layers(marked_layers[1:], camera)
    step = 4.0 / (float(camera.intrinsics[..., 0]) * 48)
    np.testing.assert_allclose(splats.scales[:, :2], 0.65 * step, rtol=1e-4)
    assert (splats.scales[:, 2] < 0.1 * splats.scales[:, 1]).all()


def test_neighbours_hide_what_is_behind_them():
    """Alpha of a wall of splats, at a corner between four pixels and at a centre."""
    y, x = np.mgrid[-4:5, -4:5]
    for point in ((0.0, 0.0), (0.5, 0.5)):
        squared = ((x - point[0]) ** 2 + (y - point[1]) ** 2) / 0.65**2
        assert 1 - np.prod(1 - 0.99 * np.exp(-squared / 2)) > 0.93


def test_splats_lie_in_a_slanted_surface(camera):
    v = (torch.arange(32) + 0.5) / 32 - 0.5
    fy = float(camera.intrinsics[..., 1])
    # The plane z + y = 3, seen at y = v z / fy.
    depth = (3 / (1 + v / fy))[:, None].expand(32, 32)
    layer = Layer(torch.rand(32, 32, 3), depth.clone(), torch.ones(32, 32, dtype=torch.bool))
    splats = splats_from_layers([layer], camera)
    normals = matrix(splats.rotations)[:, :, 2]
    wanted = np.array([0, 1, 1]) / np.sqrt(2)
    assert np.abs(normals @ wanted).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(splats.rotations, axis=1), 1, atol=1e-6)


def test_lonely_pixels_face_the_camera(camera):
    depth = torch.full((9, 9), 2.0)
    depth[4, 4] = 1.0
    layer = Layer(torch.rand(9, 9, 3), depth, torch.ones(9, 9, dtype=torch.bool))
    splats = splats_from_layers([layer], camera)
    alone = splats.centers[:, 2] == 1
    assert alone.sum() == 1
    np.testing.assert_allclose(
        np.abs(matrix(splats.rotations)[alone][0, :, 2]), (0, 0, 1), atol=1e-6
    )
    step = 1.0 / (float(camera.intrinsics[..., 0]) * 9)
    np.testing.assert_allclose(splats.scales[alone][0, :2], 0.65 * step, rtol=1e-4)


def test_reading_gives_back_what_was_written(tmp_path):
    random = np.random.default_rng(0)
    quaternions = random.normal(size=(50, 4)).astype(np.float32)
    splats = Splats(
        centers=random.normal(size=(50, 3)).astype(np.float32),
        scales=np.exp(random.normal(size=(50, 3))).astype(np.float32),
        rotations=(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).astype(
            np.float32
        ),
        colors=random.uniform(size=(50, 3)).astype(np.float32),
        opacities=random.uniform(0.01, 0.99, size=50).astype(np.float32),
    )
    path = write_splats(splats, tmp_path / "a.ply")
    back = read_splats(path)
    for name in ("centers", "scales", "rotations", "colors", "opacities"):
        np.testing.assert_allclose(getattr(back, name), getattr(splats, name), atol=2e-6, rtol=2e-6)
    turn = np.diag([1, -1, -1])
    fields = parse(path)
    in_file = matrix(np.stack([fields[f"rot_{i}"] for i in range(4)], 1))
    np.testing.assert_allclose(in_file, turn @ matrix(splats.rotations), atol=1e-5)


def test_extreme_opacities_stay_finite(tmp_path):
    one = np.ones((2, 3), dtype=np.float32)
    unit = np.array([[1, 0, 0, 0]] * 2, dtype=np.float32)
    splats = Splats(one, one, unit, one, np.array([0, 1], dtype=np.float32))
    assert np.isfinite(parse(write_splats(splats, tmp_path / "a.ply"))["opacity"]).all()


def test_mistakes_are_sentences(tmp_path, marked_layers, camera):
    splats = splats_from_layers(marked_layers, camera)
    with pytest.raises(UserError, match=r"a\.splat: splats are written as \.ply"):
        write_splats(splats, tmp_path / "a.splat")
    with pytest.raises(UserError, match=r"no\.ply: there is no such file"):
        read_splats(tmp_path / "no.ply")
    path = write_splats(splats, tmp_path / "a.ply")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="cut short"):
        read_splats(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not a splat file"):
        read_splats(path)

"""Splats of an object's mesh: they lie in its surface, cover it, and stand upright in the file."""

import dataclasses

import numpy as np
import pytest

from made_figure import RED, YELLOW, Figure
from unflat.data.object_mesh import surface_of_mesh
from unflat.export import Mesh, mesh_of_field, read_splats, splats_from_mesh, write_splats


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return mesh_of_field(Figure(), 40)


def axes(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices, written out."""
    w, x, y, z = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)


def in_file(mesh, path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres, normals and colours as another program reads them."""
    splats = read_splats(write_splats(splats_from_mesh(mesh), path))
    turn = np.array([1, -1, -1])
    return splats.centers * turn, axes(splats.rotations)[:, :, 2] * turn, splats.colors


def test_they_lie_in_the_surface_upright(mesh, tmp_path):
    centers, normals, colors = in_file(mesh, tmp_path / "figure.ply")
    np.testing.assert_allclose(centers, mesh.vertices, atol=1e-6)
    np.testing.assert_allclose(normals, mesh.normals, atol=1e-3)
    np.testing.assert_allclose(colors * 255, mesh.colors, atol=0.01)
    red = centers[np.abs(colors - np.array(RED)).max(1) < 0.01].mean(0)
    nose = centers[np.abs(colors - np.array(YELLOW)).max(1) < 0.01].mean(0)
    assert red[1] > 0.3
    assert nose[2] > 0.3


def test_nothing_shines_through(mesh):
    splats = splats_from_mesh(mesh)
    random = np.random.default_rng(0)
    faces = mesh.faces[random.integers(0, len(mesh.faces), 300)]
    shares = random.dirichlet([1, 1, 1], 300)
    points = (mesh.vertices[faces] * shares[..., None]).sum(1) * [1, -1, -1]
    apart = points[:, None] - splats.centers[None]
    local = np.einsum("pnk,nka->pna", apart, axes(splats.rotations))[..., :2] / splats.scales[:, :2]
    bell = splats.opacities * np.exp(-0.5 * (local**2).sum(-1))
    bell[np.linalg.norm(apart, axis=-1) > 0.15] = 0  # seen from above, not through the object
    assert np.prod(1 - bell, axis=1).max() < 0.35
    assert np.prod(1 - bell, axis=1).mean() < 0.08


def test_both_worlds_give_the_same_file_and_the_same_object(mesh, tmp_path):
    turn = np.array([1, -1, -1], dtype=np.float32)
    assert mesh.normals is not None
    turned = dataclasses.replace(
        mesh, vertices=mesh.vertices * turn, normals=mesh.normals * turn, world="scene"
    )
    for one, other in zip(
        in_file(mesh, tmp_path / "a.ply"), in_file(turned, tmp_path / "b.ply"), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-3)
    np.testing.assert_array_equal(
        surface_of_mesh(mesh).triangles, surface_of_mesh(turned).triangles
    )
    assert surface_of_mesh(mesh).triangles.max((0, 1)) == pytest.approx(mesh.vertices.max(0))

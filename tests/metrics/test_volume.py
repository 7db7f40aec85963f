import math
import time

import numpy as np
import pytest
from made_surfaces import cube, flipped, joined, sphere, split

from unflat.metrics import volumetric_iou
from unflat.metrics.shape import Triangles
from unflat.metrics.volume import cube_about, occupancy, orient_outward

ROOM = np.array([[-1.0, -1, -1], [1, 1, 1]])


def middles(resolution, bounds=ROOM):
    steps = (np.arange(resolution) + 0.5) / resolution
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    return bounds[0] + grid * (bounds[1] - bounds[0])


def winding_number(surface, points):
    """Solid angles over 4 pi (Van Oosterom and Strackee 1983), summed triangle by triangle."""
    total = np.zeros(points.shape[:-1])
    for face in surface.faces:
        a, b, c = (surface.vertices[i] - points for i in face)
        la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
        above = (a * np.cross(b, c)).sum(-1)
        below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        total += 2 * np.arctan2(above, below)
    return total / (4 * math.pi)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_shifted_cubes_share_a_known_fraction(shift):
    found = volumetric_iou(cube(1.0), cube(1.0, (shift, 0.0, 0.0)), 64)
    assert found == pytest.approx(max(0.0, 1 - shift) / (1 + min(shift, 1)), abs=0.02)


def test_concentric_spheres_share_the_cube_of_their_radii():
    found = volumetric_iou(sphere(0.4), sphere(0.5), 64)
    assert found == pytest.approx(0.8**3, abs=0.01)


def test_volume_of_a_sphere_in_given_bounds():
    inside = occupancy(sphere(0.8, (0.1, 0.0, -0.1), 4), 64, ROOM)
    expected = np.linalg.norm(middles(64) - [0.1, 0.0, -0.1], axis=-1) < 0.8
    assert (inside == expected).mean() > 0.999
    clipped = occupancy(sphere(0.8, (0.9, 0.0, 0.0), 4), 64, ROOM)
    expected = np.linalg.norm(middles(64) - [0.9, 0.0, 0.0], axis=-1) < 0.8
    assert (clipped == expected).mean() > 0.998


def test_inside_is_where_the_winding_number_is():
    generator = np.random.default_rng(0)
    bent = sphere(0.7, subdivisions=2)
    bent = Triangles(bent.vertices * [1.0, 0.5, 0.9] + 0.1 * np.sin(5 * bent.vertices), bent.faces)
    points = generator.uniform(-1, 1, (300, 3))
    inside = occupancy(bent, 40, ROOM)
    voxel = ((points + 1) * 20).astype(int)
    asked = middles(40)[tuple(voxel.T)]
    assert (inside[tuple(voxel.T)] == (winding_number(bent, asked) > 0.5)).all()


@pytest.mark.parametrize("bend", [split, flipped, lambda s: split(flipped(s, 5))])
def test_winding_and_split_vertices_change_nothing(bend):
    for surface in (cube(1.1), sphere(0.7)):
        assert (occupancy(bend(surface), 32, ROOM) == occupancy(surface, 32, ROOM)).all()


@pytest.mark.parametrize("side", range(6))
def test_a_box_without_a_lid_is_full(side):
    keep = np.delete(np.arange(12), [2 * side, 2 * side + 1])
    open_box = Triangles(cube(1.1).vertices, cube().faces[keep])
    found = occupancy(flipped(open_box, side), 40, ROOM)
    assert (found == occupancy(cube(1.1), 40, ROOM)).all()
    # the lidless box by its true winding number is the same but for the rim
    truly = winding_number(open_box, middles(40)) > 0.5
    assert (found == truly).mean() > 0.97


def test_a_sheet_has_no_inside():
    sheet = Triangles(cube().vertices, cube().faces[:2])
    assert not occupancy(sheet, 16, ROOM).any()
    assert math.isnan(volumetric_iou(sheet, sheet, 16))
    assert volumetric_iou(sheet, cube(), 16) == 0


def test_parts_that_overlap_unite_and_cavities_are_filled():
    overlapping = joined(cube(0.8, (-0.2, 0.0, 0.0)), cube(0.8, (0.2, 0.0, 0.0)))
    wide = Triangles(cube(0.8).vertices * [1.5, 1, 1], cube().faces)
    assert (occupancy(flipped(overlapping), 40, ROOM) == occupancy(wide, 40, ROOM)).all()
    hollow = joined(cube(1.1), Triangles(cube(0.5).vertices, cube().faces[:, ::-1]))
    assert (occupancy(hollow, 40, ROOM) == occupancy(cube(1.1), 40, ROOM)).all()


def test_orientation_makes_every_part_positive():
    two = joined(sphere(0.5, subdivisions=1), cube(1.0, (3.0, 0.0, 0.0)))
    found = orient_outward(flipped(two, 2))
    corner = found.vertices[found.faces]
    volumes = np.einsum("ni,ni->n", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])) / 6
    assert volumes[:80].sum() == pytest.approx(4 / 3 * math.pi / 8, rel=0.15)
    assert volumes[80:].sum() == pytest.approx(1.0)


def test_a_moebius_strip_has_one_side_and_keeps_its_winding():
    number = 12
    around = np.arange(number) * 2 * math.pi / number
    center = np.stack([np.cos(around), np.sin(around), 0 * around], axis=1)
    across = center * np.cos(around / 2)[:, None] + np.sin(around / 2)[:, None] * [0, 0, 1]
    vertices = np.concatenate([center + 0.2 * across, center - 0.2 * across])
    faces = []
    for i in range(number):
        j = (i + 1) % number
        a, b = i, i + number
        c, d = (j, j + number) if j else (number, 0)
        faces += [[a, b, c], [b, d, c]]
    strip = Triangles(vertices, np.array(faces))
    assert (orient_outward(strip).faces == strip.faces).all()


def test_the_cube_about_surfaces_holds_them():
    low, high = cube_about(cube(1.0), cube(2.0, (5.0, 0.0, 0.0)))
    assert (high - low) == pytest.approx(np.full(3, 6.5), rel=3e-3)
    assert 0.5 * (low + high) == pytest.approx(np.array([2.75, 0, 0]))


def test_five_thousand_faces_take_seconds_at_most():
    surface = sphere(0.8, subdivisions=4)
    begin = time.process_time()
    volumetric_iou(surface, sphere(0.7, subdivisions=4), 64)
    assert time.process_time() - begin < 5


def test_bad_input_is_refused():
    empty = Triangles(np.zeros((0, 3)), np.zeros((0, 3), dtype=int))
    with pytest.raises(ValueError, match="without faces"):
        volumetric_iou(empty, empty, 16)
    with pytest.raises(ValueError, match="without faces"):
        volumetric_iou(empty, cube(), 16)
    with pytest.raises(ValueError, match="hold nothing"):
        occupancy(cube(), 16, ROOM[::-1])
    broken = cube()
    broken.vertices[0, 0] = math.nan
    with pytest.raises(ValueError, match="vertex 0"):
        occupancy(broken, 16, ROOM)

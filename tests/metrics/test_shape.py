import math

import numpy as np
import pytest
from made_surfaces import cube, flipped, joined, sphere, split

from unflat.metrics import chamfer, f_score, sample_surface, watertightness
from unflat.metrics.shape import Triangles, weld


def clouds(seed=0, first=40, second=55):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(first, 3)), generator.normal(size=(second, 3)) * 1.3


def slow_distances(points, others):
    return [min(math.dist(p, q) for q in others.tolist()) for p in points.tolist()]


def test_chamfer_and_f_score_are_the_loops():
    predicted, true = clouds()
    forth, back = slow_distances(predicted, true), slow_distances(true, predicted)
    found = chamfer(predicted, true)
    assert found.accuracy == pytest.approx(sum(forth) / 40, rel=1e-12)
    assert found.completeness == pytest.approx(sum(back) / 55, rel=1e-12)
    assert found.half_sum == pytest.approx((sum(forth) / 40 + sum(back) / 55) / 2, rel=1e-12)
    squared = sum(d * d for d in forth) / 40 + sum(d * d for d in back) / 55
    assert found.squared_sum == pytest.approx(squared, rel=1e-12)
    score = f_score(predicted, true, 0.5)
    precision, recall = sum(d <= 0.5 for d in forth) / 40, sum(d <= 0.5 for d in back) / 55
    assert (score.precision, score.recall) == pytest.approx((precision, recall))
    assert score.value == pytest.approx(2 / (1 / precision + 1 / recall))


def test_accuracy_sees_what_is_too_much_and_completeness_what_is_missing():
    both = joined(cube(1.0), cube(1.0, (5.0, 0.0, 0.0)))
    one, two = sample_surface(cube(1.0), 2000), sample_surface(both, 2000)
    too_much, missing = chamfer(two, one), chamfer(one, two)
    assert too_much.accuracy > 20 * too_much.completeness
    assert missing.completeness > 20 * missing.accuracy


def test_concentric_spheres_are_as_far_apart_as_their_radii():
    inner = sample_surface(sphere(1.0, subdivisions=4), 20_000, seed=1)
    outer = sample_surface(sphere(1.25, subdivisions=4), 20_000, seed=2)
    found = chamfer(inner, outer)
    # the nearest of finitely many points is a little farther than the nearest on the surface
    assert found.accuracy == pytest.approx(0.25, abs=3e-3)
    assert found.completeness == pytest.approx(0.25, abs=3e-3)
    assert found.squared_sum == pytest.approx(2 * 0.25**2, abs=4e-3)
    assert f_score(inner, outer, 0.24).value == 0
    assert f_score(inner, outer, 0.27).value > 0.999


def test_f_score_steps_at_its_threshold():
    true = np.array([[0.0, 0, 0], [10, 0, 0]])
    predicted = np.array([[0.25, 0, 0], [10.5, 0, 0], [100, 0, 0], [101, 0, 0]])
    expected = {0.2: (0, 0), 0.25: (0.25, 0.5), 0.4: (0.25, 0.5), 0.5: (0.5, 1), 200.0: (1, 1)}
    for threshold, pair in expected.items():
        score = f_score(predicted, true, threshold)
        assert (score.precision, score.recall) == pytest.approx(pair)
    assert f_score(predicted, true, 0.2).value == 0
    assert f_score(predicted, true, 0.5).value == pytest.approx(2 / 3)


def test_points_are_spread_by_area_and_lie_on_the_surface():
    surface = joined(cube(1.0), cube(3.0, (10.0, 0.0, 0.0)))  # areas 6 and 54
    points = sample_surface(surface, 10_000, seed=3)
    large = points[:, 0] > 5
    assert large.mean() == pytest.approx(0.9, abs=1e-3)
    from_center = np.abs(points[large] - [10, 0, 0])
    assert np.allclose(from_center.max(axis=1), 1.5)
    # even within a side: a third of its points in its inner third by area
    inner = np.sort(from_center, axis=1)[:, 1] < 1.5 / math.sqrt(3)
    assert inner.mean() == pytest.approx(1 / 3, abs=0.015)
    assert np.array_equal(points, sample_surface(surface, 10_000, seed=3))
    assert not np.array_equal(points, sample_surface(surface, 10_000, seed=4))


def test_equal_surfaces_are_nearer_with_more_points():
    few, many = (
        chamfer(sample_surface(cube(), n, 0), sample_surface(cube(), n, 1)).half_sum
        for n in (500, 8000)
    )
    assert many < few / 3


@pytest.mark.parametrize("bend", [lambda s: s, split, flipped, lambda s: split(flipped(s))])
def test_watertightness_counts_edges_of_two_faces(bend):
    closed = watertightness(bend(cube()))
    assert closed.is_closed
    assert closed.share == 1
    without_lid = Triangles(cube().vertices, cube().faces[:-2])
    open_box = watertightness(bend(without_lid))
    assert not open_box.is_closed
    # 17 edges: 12 of the cube, 5 diagonals; the rim's 4 have one face
    assert open_box.share == pytest.approx(13 / 17)


def test_an_edge_of_four_faces_is_not_closed():
    touching = joined(cube(1.0), cube(1.0, (1.0, 1.0, 0.0)))
    found = watertightness(touching)
    assert not found.is_closed
    assert found.share == pytest.approx(34 / 35)  # 2 x 18 edges, one of them shared


def test_welding_joins_places_and_drops_faces_without_area():
    surface = joined(cube(), Triangles(np.zeros((3, 3)), np.array([[0, 1, 2]])))
    welded = weld(split(surface))
    assert welded.vertices.shape == (9, 3)
    assert welded.faces.shape == (12, 3)


def test_bad_surfaces_and_points_are_refused():
    empty = Triangles(np.zeros((0, 3)), np.zeros((0, 3), dtype=int))
    for ask in (lambda s: sample_surface(s, 5), watertightness):
        with pytest.raises(ValueError, match="face"):
            ask(empty)
    broken = cube()
    broken.vertices[3, 1] = math.nan
    with pytest.raises(ValueError, match="vertex 3"):
        sample_surface(broken, 5)
    with pytest.raises(ValueError, match="name vertices"):
        watertightness(Triangles(cube().vertices[:5], cube().faces))
    points, _ = clouds()
    with pytest.raises(ValueError, match="second set of points is empty"):
        chamfer(points, points[:0])
    points[2, 2] = math.inf
    with pytest.raises(ValueError, match="first set of points holds"):
        f_score(points, clouds()[1], 0.1)
    with pytest.raises(ValueError, match=r"threshold is 0\.0"):
        f_score(clouds()[0], clouds()[1], 0.0)

import numpy as np
import pytest
from made_surfaces import cube, joined

from unflat.metrics import align_icp, align_similarity, chamfer, sample_surface


def rotation(angle, axis):
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.cross(np.eye(3), axis)
    return np.eye(3) - np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def bracket():
    """A shape without symmetry."""
    return joined(cube(1.0), cube(0.5, (0.8, 0.2, 0.0)), cube(0.3, (0.0, 0.7, 0.25)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_a_similarity_is_found_again(scale):
    generator = np.random.default_rng(0)
    points, turn = generator.normal(size=(30, 3)), rotation(2.2, [1, 2, -1])
    target = scale * points @ turn.T + [1, -2, 3]
    found = align_similarity(points, target)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-9)
    np.testing.assert_allclose(found.apply(points), target, atol=1e-9)
    rigid = align_similarity(points, target, scale=False)
    assert rigid.scale == 1
    np.testing.assert_allclose(rigid.rotation, turn, atol=1e-9)


def test_no_other_similarity_is_nearer():
    generator = np.random.default_rng(1)
    points = generator.normal(size=(25, 3))
    target = 1.4 * points @ rotation(1.0, [0, 1, 1]).T + 0.3 * generator.normal(size=(25, 3))
    found = align_similarity(points, target)
    least = np.square(found.apply(points) - target).sum()
    for _ in range(60):
        turn = rotation(0.05, generator.normal(size=3)) @ found.rotation
        other = found._replace(
            scale=found.scale * (1 + 0.02 * generator.normal()),
            rotation=turn,
            translation=found.translation + 0.02 * generator.normal(size=3),
        )
        assert np.square(other.apply(points) - target).sum() > least


def test_a_mirror_image_is_not_turned_into_a_mirror():
    generator = np.random.default_rng(2)
    points = generator.normal(size=(30, 3))
    found = align_similarity(points, points * [-1, 1, 1])
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    flat = points * [1, 1, 0]  # a plane leaves the third axis to the sign
    assert np.linalg.det(align_similarity(flat, flat * [-1, 1, 1]).rotation) == pytest.approx(1)


def test_icp_brings_a_moved_surface_back():
    truth = sample_surface(bracket(), 3000, 0)
    source = 0.7 * sample_surface(bracket(), 3000, 1) @ rotation(0.25, [1, 1, 0]).T + [0.3, 0, -1]
    before = chamfer(source, truth).half_sum
    found = align_icp(source, truth)
    after = chamfer(found.apply(source), truth).half_sum
    assert found.scale == pytest.approx(1 / 0.7, rel=0.01)
    assert after < before / 10
    assert after < 1.1 * chamfer(sample_surface(bracket(), 3000, 2), truth).half_sum
    again = align_icp(source, truth)
    assert np.array_equal(found.rotation, again.rotation)


def test_without_scale_the_size_stays():
    truth = sample_surface(bracket(), 2000, 0)
    found = align_icp(truth * 0.7, truth, scale=False)
    assert found.scale == 1


def test_turns_find_what_one_beginning_misses():
    truth = sample_surface(bracket(), 2000, 0)
    source = sample_surface(bracket(), 2000, 1) @ rotation(np.pi, [0, 1, 0]).T
    one, four = (
        chamfer(align_icp(source, truth, turns=n).apply(source), truth).half_sum for n in (1, 4)
    )
    assert four < one / 2


def test_trimming_leaves_strays_out():
    truth = sample_surface(bracket(), 2000, 0)
    shift = np.array([0.05, 0.0, 0.02])
    source = sample_surface(bracket(), 2000, 1) + shift
    source[:100] += [4, 4, 4]
    errors = [
        abs(
            align_icp(source, truth, trim=trim).apply(source[100:]) - source[100:] + [0.05, 0, 0.02]
        )
        for trim in (0.85, 1.0)
    ]
    assert errors[0].max() < errors[1].max() / 3


def test_bad_input_is_refused():
    points = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match="10 and 9"):
        align_similarity(points, points[:9])
    with pytest.raises(ValueError, match="one place"):
        align_similarity(np.ones((5, 3)), points[:5])
    with pytest.raises(ValueError, match="one place"):
        align_icp(np.ones((5, 3)), points)
    with pytest.raises(ValueError, match="trim is 0"):
        align_icp(points, points, trim=0.0)
    points[0, 0] = np.nan
    with pytest.raises(ValueError, match="target"):
        align_icp(points[1:], points)

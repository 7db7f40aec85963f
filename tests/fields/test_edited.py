import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from made_scenes import FRAME, base, depth_of
from unflat.fields import EditedField, Inserted, VoxelField, similarity
from unflat.fields.viewspace import assumed_points, stretch
from unflat.geometry import Frame, rotation_from_vector
from unflat.rendering import even_edges, render_rays

INTERVALS = 1500
BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def block(density: float, color: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> VoxelField:
    """A cube of two units filled evenly."""
    grid = torch.full((1, 3, 3, 3), density)
    return VoxelField(grid, torch.tensor(color).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 3, 3), BOX)


def light_left(field, origin: torch.Tensor, direction: torch.Tensor, far: float) -> float:
    edges = even_edges(INTERVALS, dtype=torch.float64)[None, None] * far
    rays = origin.expand(1, 1, 3), direction.expand(1, 1, 3)
    return 1 - float(render_rays(field, *rays, edges, opaque_last=False).opacity.detach())


@given(
    scale=st.floats(0.05, 0.4),
    density=st.floats(0.2, 3.0),
    x=st.floats(-0.5, 0.5),
    way=st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)),
)
def test_light_that_passes_is_what_passes_the_one_times_what_passes_the_other(
    scale, density, x, way
):
    """Closed form through the cube: exp(-density length), whatever the size and the frame."""
    room = base().with_frame(Frame(focal_true=2.0, a=1.3, b=-0.2)).double()
    middle = torch.tensor([x, 0.1, 1.0], dtype=torch.float64)
    direction = torch.tensor([*way, 1.0], dtype=torch.float64)
    direction = direction / direction.norm()
    origin = middle - 0.8 * direction  # the ray goes through the cube's middle
    placement = similarity(scale, translation=middle.tolist())
    field = EditedField(room, [Inserted(block(density).double(), placement)])
    depth, alone = (-math.log(light_left(some, origin, direction, 1.6)) for some in (field, room))
    length = 2 / float(direction.abs().max())  # in the cube's own units
    # An interval at each face is half in, half out.
    tolerance = 2 * 1.6 / INTERVALS * density / scale
    assert depth == pytest.approx(alone + density * length, abs=tolerance)


@given(
    point=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.5, 4)),
    way=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)),
)
def test_stretch_is_the_slope_of_the_warp(point, way):
    frame = Frame(focal_true=1.4, a=1.7, b=-0.15)
    points = torch.tensor([point], dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.tensor([way], dtype=torch.float64) + 1e-3)
    step = 1e-6 * directions
    ends = assumed_points(points + step, frame) - assumed_points(points - step, frame)
    expected = ends.norm(dim=-1) / 2e-6
    torch.testing.assert_close(stretch(points, directions, frame), expected, rtol=1e-6, atol=1e-9)


def test_colors_mix_by_density_and_stay_the_bases_elsewhere():
    room = base()
    placement = similarity(0.2, translation=(0.0, 0.0, 1.5))
    field = EditedField(room, [Inserted(block(1e4), placement)])
    points = torch.tensor([[[0.0, 0.0, 1.5], [0.5, 0.0, 1.5], [0.0, 0.0, depth_of(0.28)]]])
    out, alone = field(points), room(points)
    torch.testing.assert_close(out.features[0, 0], torch.tensor([0.0, 1.0, 0.0]), atol=2e-3, rtol=0)
    assert torch.equal(out.features[0, 1:], alone.features[0, 1:])
    assert torch.equal(out.density[0, 1:], alone.density[0, 1:])
    assert out.density[0, 0] > 100 * alone.density[0, 0]


def test_the_answer_is_one_for_all_shapes_and_canonical_rays_are_meant_without_directions():
    turn = rotation_from_vector(torch.tensor([0.3, -0.5, 0.2]))
    placed = Inserted(block(2.0), similarity(0.3, turn, (0.1, -0.1, 1.6)))
    field = EditedField(base(), [placed])
    points = torch.rand(1, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    points = points * torch.tensor([0.8, 0.8, 0.8]) + torch.tensor([-0.4, -0.5, 1.2])
    rays = torch.nn.functional.normalize(points, dim=-1)
    grid, flat = field(points), field(points.flatten(1, 2), rays.flatten(1, 2))
    torch.testing.assert_close(grid.density.flatten(1), flat.density)
    torch.testing.assert_close(grid.features.flatten(1, 2), flat.features)
    assert 0 < (grid.features[..., 1] > 0.9).float().mean() < 1


def test_rays_are_cut_inside_boxes_and_nowhere_else():
    field = EditedField(
        base(), [Inserted(block(1.0), similarity(0.1, translation=(0.0, 0.0, 2.0)))]
    )
    directions = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.6, 0.8]]])
    edges = field.inner_edges(torch.zeros(1, 2, 3), directions)
    assert edges[0, 0].min() == pytest.approx(1.9)
    assert edges[0, 0].max() == pytest.approx(2.1)
    assert torch.isinf(edges[0, 1]).all()


def test_another_field_of_view_moves_the_base_alone():
    placed = Inserted(block(1.0), similarity(0.1, translation=(0.0, 0.0, 2.0)))
    wide = EditedField(base(), [placed]).with_frame(FRAME.with_fov(1.4))
    assert wide.frame == FRAME.with_fov(1.4)
    assert torch.equal(wide.objects[0].object_to_world, placed.object_to_world)


def test_what_cannot_be_placed_is_refused():
    with pytest.raises(ValueError, match="at least one object"):
        EditedField(base(), [])
    stretched = torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="placement of part 0 is not"):
        EditedField(base(), [Inserted(block(1.0), stretched)])

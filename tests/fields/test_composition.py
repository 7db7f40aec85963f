import pytest
import torch
from torch import nn

from unflat.fields import ComposedField, FieldOutput, Placed, VoxelField, similarity
from unflat.geometry import Camera, rotation_from_vector
from unflat.rendering import RenderOptions, render


class Ball:
    """Constant density and colour inside a sphere."""

    def __init__(self, center, radius, density, color):
        self.center, self.radius = torch.tensor(center), radius
        self.density, self.color = density, torch.tensor(color)
        self.asked: list[torch.Tensor | None] = []

    def __call__(self, points, directions=None):
        self.asked.append(directions)
        inside = (points - self.center.to(points)).norm(dim=-1) < self.radius
        color = self.color.to(points).expand(points.shape)
        return FieldOutput(torch.where(inside, self.density, 0.0).to(points), color)


class Warping(nn.Module):
    def forward(self, points, directions=None):
        raise AssertionError("never asked")

    def warp(self, points):
        return points


def turn(*vector) -> torch.Tensor:
    return rotation_from_vector(torch.tensor(vector, dtype=torch.float64))


RED = Ball([0.0, 0.0, 0.0], 1.0, 3.0, [1.0, 0.0, 0.0])
BLUE = Ball([1.0, 0.0, 0.0], 1.0, 1.0, [0.0, 0.0, 1.0])


def test_densities_add_and_colors_mix_by_density():
    points = torch.tensor([[[-0.5, 0, 0], [0.5, 0, 0], [1.5, 0, 0]]], dtype=torch.float64)
    out = ComposedField([Placed(RED), Placed(BLUE)])(points)
    assert out.density.tolist() == [[3, 4, 1]]
    assert out.features.tolist() == [[[1, 0, 0], [0.75, 0, 0.25], [0, 0, 1]]]


def test_where_nothing_is_colors_are_the_first_parts():
    points = torch.full((1, 2, 3), 9.0)
    out = ComposedField([Placed(BLUE), Placed(RED)])(points)
    assert (out.density == 0).all()
    assert out.features.tolist() == [[[0, 0, 1]] * 2]


def test_order_does_not_matter_where_something_is(generator):
    points = torch.rand(1, 200, 3, generator=generator) * 3 - 1
    one = ComposedField([Placed(RED), Placed(BLUE)])(points)
    two = ComposedField([Placed(BLUE), Placed(RED)])(points)
    filled = one.density > 0
    assert filled.any()
    assert torch.equal(one.density, two.density)
    torch.testing.assert_close(one.features[filled], two.features[filled])


def test_a_placed_object_is_found_where_it_was_put(generator):
    grid = torch.rand(1, 4, 4, 4, generator=generator, dtype=torch.float64)
    colors = torch.rand(1, 3, 4, 4, 4, generator=generator, dtype=torch.float64)
    box = torch.tensor([[-1.0] * 3, [1.0] * 3], dtype=torch.float64)
    object_field = VoxelField(grid, colors, box)
    placement = similarity(2.5, turn(0.4, -1.1, 0.3), (0.5, -2.0, 4.0))
    local = torch.rand(1, 5, 6, 3, generator=generator, dtype=torch.float64) * 2.2 - 1.1
    world = local @ placement[:3, :3].mT + placement[:3, 3]
    out = ComposedField([Placed(object_field, placement)])(world)
    expected = object_field(local)
    assert (expected.density > 0).any()
    # 2.5 times larger, 2.5 times thinner
    torch.testing.assert_close(out.density, expected.density / 2.5, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(out.features, expected.features, atol=1e-12, rtol=1e-10)


def test_directions_turn_with_the_object():
    ball = Ball([0.0] * 3, 1.0, 1.0, [1.0] * 3)
    rotation = turn(0.0, 0.7, 0.2)
    directions = torch.nn.functional.normalize(torch.ones(1, 1, 3, dtype=torch.float64), dim=-1)
    field = ComposedField([Placed(ball, similarity(3.0, rotation))])
    field(torch.zeros(1, 1, 3, dtype=torch.float64), directions)
    seen = ball.asked[-1]
    assert seen is not None
    torch.testing.assert_close(seen @ rotation.mT, directions)  # unit length, whatever the scale
    field(torch.zeros(1, 1, 3, dtype=torch.float64))
    assert ball.asked[-1] is None


def test_every_scene_of_a_batch_may_have_its_own_placement():
    places = torch.stack([similarity(1.0, None, (0.0, 0.0, z)) for z in (2.0, 5.0)])
    field = ComposedField([Placed(RED, places)])
    points = torch.tensor([[0.0, 0, 2], [0, 0, 5]]).expand(2, 2, 3)
    assert field(points).density.tolist() == [[3, 0], [0, 3]]


def test_size_changes_the_picture_of_an_object_only_by_its_size():
    """Twice as large and twice as far is the same picture, as opaque as before."""
    camera = Camera.from_fov(0.8, torch.eye(4)[None])
    options = RenderOptions(
        samples=64, near=1.0, far=9.0, spacing="distance", opaque_last=False, least_light=0.0
    )
    far = RenderOptions(
        samples=64, near=2.0, far=18.0, spacing="distance", opaque_last=False, least_light=0.0
    )
    once = ComposedField([Placed(BLUE, similarity(1.0, None, (0.0, 0.0, 4.0)))])
    twice = ComposedField([Placed(BLUE, similarity(2.0, None, (0.0, 0.0, 8.0)))])
    one, two = render(once, camera, 12, 12, options), render(twice, camera, 12, 12, far)
    assert 0.5 < one.opacity.max() < 0.95
    torch.testing.assert_close(one.opacity, two.opacity, atol=1e-5, rtol=0)


def test_what_stands_in_front_hides_what_is_behind():
    opaque = 200.0
    front = Ball([0.0, 0.0, 3.0], 0.5, opaque, [1.0, 0.0, 0.0])
    behind = Ball([0.0, 0.0, 6.0], 2.0, opaque, [0.0, 0.0, 1.0])
    camera = Camera.from_fov(0.8, torch.eye(4)[None])
    options = RenderOptions(
        samples=200, near=1.0, far=9.0, spacing="distance", opaque_last=False, least_light=0.0
    )
    field = ComposedField([Placed(behind), Placed(front)])
    picture = render(field, camera, 15, 15, options)
    assert picture.rgb[0, :, 7, 7].tolist() == pytest.approx([1, 0, 0], abs=1e-4)
    assert picture.rgb[0, :, 7, 2].tolist() == pytest.approx([0, 0, 1], abs=1e-4)


def test_parts_with_weights_are_part_of_the_module():
    grid = nn.Parameter(torch.ones(1, 2, 2, 2))
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    part = VoxelField(grid, torch.ones(1, 3, 2, 2, 2), box)
    field = ComposedField([Placed(RED), Placed(part, similarity(2.0))])
    assert [name for name, _ in field.named_parameters()] == ["part1.density"]
    field(torch.zeros(1, 3, 3)).density.sum().backward()
    assert grid.grad is not None
    assert grid.grad.sum().item() == pytest.approx(3 / 2)


def test_gradients_are_finite_where_nothing_is():
    grid = nn.Parameter(torch.zeros(1, 2, 2, 2))
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    part = VoxelField(grid, torch.ones(1, 3, 2, 2, 2), box)
    out = ComposedField([Placed(part), Placed(part)])(torch.zeros(1, 3, 3))
    (out.density.sum() + out.features.sum()).backward()
    assert grid.grad is not None
    assert grid.grad.isfinite().all()


@pytest.mark.parametrize(
    "change",
    [
        torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])),  # stretched
        torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0])),  # mirrored
        torch.eye(4) + 0.1 * torch.eye(4).roll(1, 0).tril(),  # projective and sheared
        torch.zeros(4, 4),
    ],
)
def test_a_placement_that_is_no_similarity_is_refused(change):
    with pytest.raises(ValueError, match="placement of part 1 is not"):
        ComposedField([Placed(RED), Placed(BLUE, change)])


def test_projective_fields_and_empty_lists_are_refused():
    with pytest.raises(ValueError, match=r"part 1 \(Warping\) has a warp"):
        ComposedField([Placed(RED), Placed(Warping())])
    with pytest.raises(ValueError, match="at least one part"):
        ComposedField([])

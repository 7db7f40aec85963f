import pytest
import torch

from made_scenes import RED, SQUARE, WALL, base, depth_of, room
from unflat.fields import CutoutField
from unflat.geometry import Camera
from unflat.rendering import RenderOptions, even_edges, render, render_rays


def alone(cutout: CutoutField, camera: Camera):
    low, high = cutout.bounds
    options = RenderOptions(
        samples=64, near=float(low[2]), far=float(high.norm()), opaque_last=False
    )
    return render(cutout, camera, 40, 40, options)


def test_a_cutout_is_the_square_without_the_wall():
    scene = room()
    seen = alone(CutoutField(scene.field, 0.5), scene.camera)
    inside = torch.zeros(40, 40, dtype=torch.bool)
    inside[12:28, 6:22] = True
    assert seen.opacity[0][inside].min() > 0.99
    assert seen.opacity[0][~inside].max() == 0
    color = seen.rgb[0][:, inside].mean(1)
    torch.testing.assert_close(color, torch.tensor(RED), atol=0.01, rtol=0)


def test_its_box_holds_it_tightly():
    low, high = CutoutField(room().field, 0.5).bounds
    assert low[2] < depth_of(SQUARE) < high[2] < depth_of(WALL)
    half = 1 / room().field.frame.focal_true  # of the visible width, per depth
    assert low[0] == pytest.approx(-0.7 * half * float(high[2]))
    assert high[0] == pytest.approx(0.1 * half * float(high[2]))


def test_light_through_it_is_light_through_its_scene_in_true_lengths():
    """The same ray, lengths measured in assumed space by the one and in true space by the other."""
    field = base()
    cutout = CutoutField(field, 0.1)
    origin = torch.tensor([[[0.05, 0.1, 0.0]]])
    direction = torch.nn.functional.normalize(torch.tensor([[[0.15, -0.1, 1.0]]]), dim=-1)
    edges = 0.8 + even_edges(3000)[None, None] * (1.92 - 0.8)
    one, other = (
        render_rays(some, origin, direction, edges, opaque_last=False).opacity.detach()
        for some in (field, cutout)
    )
    assert 0.05 < float(one) < 0.95
    torch.testing.assert_close(other, one, rtol=0.01, atol=0)


def test_a_scene_of_tokens_is_cut_by_depth_alone():
    cutout = CutoutField(base(), 0.5)
    points = torch.tensor([[[0.0, 0.0, depth_of(0.52)], [0.0, 0.0, depth_of(0.48)]]])
    near, far = cutout(points).density[0]
    assert near > 0
    assert far == 0
    assert base()(points).density[0, 1] > 0


@pytest.mark.parametrize("field", [base(), room().field], ids=["tokens", "detail"])
def test_a_mask_keeps_its_pixels_alone(field):
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0, 0] = 1  # the left upper quarter
    cutout = CutoutField(field, 0.25, mask)
    depth = depth_of(0.28)
    points = torch.tensor([[[-0.2, -0.2, 1.0], [0.2, -0.2, 1.0], [-0.2, 0.2, 1.0]]]) * depth
    inside, right, below = cutout(points).density[0]
    assert inside > 0
    assert right == below == 0
    assert float(cutout.bounds[1, 0]) <= 0
    assert float(cutout.bounds[1, 1]) <= 0


def test_nothing_that_near_is_refused():
    with pytest.raises(ValueError, match=r"nothing is nearer than 0.9"):
        CutoutField(room().field, 0.9)

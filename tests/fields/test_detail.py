import math

import pytest
import torch

from unflat.fields import (
    BehindField,
    DetailField,
    HiddenSheet,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
    pack_field,
    unpack_field,
    view_coordinates,
)
from unflat.fields.detail import SHEET
from unflat.geometry import Camera, Frame
from unflat.rendering import RenderOptions, render

SIDE = 8
FRAME = Frame(a=1.3, b=0.02)


class Gray(ViewSpaceDecoder):
    """Thin gray matter everywhere, so that it is known who answered."""

    def forward(self, uv, ud, vd, delta):
        return torch.full_like(delta, 2.0), torch.full((*delta.shape, 3), 0.5).to(delta)


def base(batch=1, channels=4, decoder=None) -> ViewSpaceField:
    torch.manual_seed(0)
    planes = ViewSpacePlanes(
        torch.randn(batch, 5 + channels, 6, 6, dtype=torch.float64),
        torch.randn(batch, channels, 5, 6, dtype=torch.float64),
        torch.randn(batch, channels, 5, 6, dtype=torch.float64),
    )
    return ViewSpaceField(planes, (decoder or Gray(channels)).double(), FRAME)


def photo(batch=1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)


def flat(value: float, batch=1) -> torch.Tensor:
    return torch.full((batch, 1, SIDE, SIDE), value, dtype=torch.float64)


def along(u: float, v: float, delta: torch.Tensor) -> torch.Tensor:
    """Points of a canonical ray."""
    q = torch.tensor([u, v, 0.0], dtype=torch.float64).repeat(len(delta), 1)
    q[:, 2] = delta
    return q[None]


def ends(field, u=0.1, v=-0.2, count=4000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where light ends along a canonical ray from delta 1 to 0, finely cut."""
    edges = torch.linspace(1, 0, count + 1, dtype=torch.float64)
    middles = 0.5 * (edges[1:] + edges[:-1])
    density, rgb = field.at(along(u, v, middles))
    depth = density[0] / count
    light = torch.exp(-(depth.cumsum(-1) - depth))
    return light * -torch.expm1(-depth), middles, rgb[0]


@pytest.mark.parametrize("spread", [0.005, 0.02])
def test_light_ends_in_a_logistic_distribution_around_the_surface(spread):
    shares, at, _ = ends(DetailField(base(), photo(), flat(0.6), flat(spread)))
    for share in (-2.0, -0.5, 0.0, 1.0, 3.0):
        nearer = shares[at > 0.6 - share * spread].sum().item()
        assert nearer == pytest.approx(1 / (1 + math.exp(-share)), abs=0.02)
    mean = (shares * at).sum() / shares.sum()
    deviation = ((shares * (at - mean).square()).sum() / shares.sum()).sqrt().item()
    assert mean.item() == pytest.approx(0.6, abs=0.005)
    assert deviation == pytest.approx(spread * math.pi / 3**0.5, rel=0.3)


def test_the_canonical_picture_is_the_photo():
    field = DetailField(base(), photo(), flat(0.6), flat(0.004))
    camera = Camera.from_fov(FRAME.fov_true, torch.eye(4, dtype=torch.float64)[None])
    options = RenderOptions(samples=160, near=1.0, far=20.0, least_light=0.0)
    picture = render(field, camera, SIDE, SIDE, options)
    # Two in a thousand of the light pass the sheet and see the base field.
    assert (picture.rgb - photo()).abs().max() < 0.01
    expected = FRAME.true_depth(FRAME.depth_of_disparity(torch.tensor(0.6)))
    torch.testing.assert_close(
        picture.depth, torch.full((1, SIDE, SIDE), float(expected)).double(), rtol=0.02, atol=0
    )


def test_in_front_of_the_sheet_nothing_is_and_behind_it_the_base():
    field = DetailField(base(), photo(), flat(0.6), flat(0.004))
    density, rgb = field.at(along(0.0, 0.0, torch.tensor([0.95, 0.65, 0.6, 0.45, 0.1]).double()))
    assert density[0, :2].tolist() == [0, 0]
    assert density[0, 2] > 100
    assert density[0, 3:].tolist() == [2, 2]
    assert (rgb[0, 3:] == 0.5).all()


def test_outside_the_picture_is_the_base_alone():
    field = DetailField(base(), photo(), flat(0.6), flat(0.004))
    density, rgb = field.at(along(1.01, 0.0, torch.tensor([0.9, 0.6, 0.3]).double()))
    assert (density == 2).all()
    assert (rgb == 0.5).all()


def test_no_sheet_joins_two_surfaces():
    """At a step every point belongs to the one or the other; on a slope it lies between."""
    step = flat(0.8)
    step[..., SIDE // 2 :] = 0.3
    field = DetailField(base(), photo(), step, flat(0.004))
    for u, surface in ((-0.02, 0.8), (0.02, 0.3)):
        shares, at, _ = ends(field, u=u)
        assert (shares * at).sum().item() == pytest.approx(surface, abs=0.02)
    slope = DetailField(base(), photo(), step, flat(0.004), jump=1.0)
    shares, at, _ = ends(slope, u=0.0)
    assert (shares * at).sum().item() == pytest.approx(0.55, abs=0.02)


def hidden_half() -> HiddenSheet:
    """Green, at 0.2, in the left half of the picture."""
    mask = flat(0.0)
    mask[..., : SIDE // 2] = 1
    green = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64)
    green[:, 1] = 1
    return HiddenSheet(green, flat(0.2), mask)


def test_a_second_sheet_stands_where_its_mask_says_with_nothing_before_it():
    field = DetailField(base(), photo(), flat(0.6), flat(0.004), hidden_half())
    delta = torch.tensor([0.45, 0.3, 0.2 - SHEET / 2, 0.2 - 2 * SHEET]).double()
    density, rgb = field.at(along(-0.5, 0.0, delta))
    assert density[0].tolist() == pytest.approx([0, 0, 7 / SHEET, 2])
    assert rgb[0, 2].tolist() == [0, 1, 0]
    density, rgb = field.at(along(0.5, 0.0, delta))
    assert (density == 2).all(), "no sheet in the right half"
    assert (rgb == 0.5).all()


def test_forward_is_at_in_world_units_and_frames_are_shared():
    field = DetailField(base(), photo(), flat(0.6), flat(0.02), hidden_half())
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 3, 30, 3, generator=generator, dtype=torch.float64) * 4 - 1
    q, factor = view_coordinates(points, FRAME)
    density, rgb = field.at(q)
    out = field(points)
    torch.testing.assert_close(out.density, density * factor)
    torch.testing.assert_close(out.features, rgb.clamp(0, 1))
    assert out.density.max() > 0
    other = Frame(a=2.0)
    moved = field.with_frame(other)
    assert moved.frame == other
    assert moved.base.frame == other
    assert moved.hidden is not None
    assert torch.equal(moved.at(q)[0], density), "the same scene under another name"
    assert not torch.equal(moved(points).density, out.density)


def test_scenes_of_a_batch_keep_their_own_photo():
    both = DetailField(base(batch=2), photo(batch=2), flat(0.6, 2), flat(0.01, 2))
    generator = torch.Generator().manual_seed(0)
    q = torch.rand(2, 40, 3, generator=generator, dtype=torch.float64) * 2 - 1
    density, rgb = both.at(q)
    for scene in range(2):
        one = DetailField(
            base(batch=2).scene(scene), photo(2)[scene : scene + 1], flat(0.6), flat(0.01)
        )
        alone = one.at(q[scene : scene + 1])
        torch.testing.assert_close(alone[0][0], density[scene])
        torch.testing.assert_close(alone[1][0], rgb[scene])


# What is behind


def test_behind_keeps_only_what_is_farther_than_the_depth_picture():
    step = flat(0.7)
    step[..., SIDE // 2 :] = 0.3
    behind = BehindField(base(), step)
    for u, limit in ((-0.5, 0.7), (0.5, 0.3)):
        delta = torch.tensor([0.9, limit + 0.01, limit - 0.01, 0.05]).double()
        points = FRAME.unwarp(FRAME.from_view_coordinates(along(u, 0.0, delta)))
        found, whole = behind(points), base()(points)
        assert (found.density[0, :2] == 0).all()
        torch.testing.assert_close(found.density[0, 2:], whole.density[0, 2:])
        assert (whole.density > 0).all()
        torch.testing.assert_close(found.features, whole.features)
    torch.testing.assert_close(behind.warp(points), base().warp(points))


# Saved and back


@pytest.mark.parametrize("hidden", [None, hidden_half()])
def test_a_field_survives_being_packed(hidden):
    """Half precision and 8 bits: the picture changes by less than a photo's own steps."""
    decoder = ViewSpaceDecoder(4)
    field = DetailField(
        base(decoder=decoder), photo(), flat(0.6), flat(0.02), hidden, jump=0.07
    ).float()
    about, tensors = pack_field(field)
    back = unpack_field(about, tensors)
    assert isinstance(back, DetailField)
    assert back.jump == 0.07
    assert back.frame == FRAME
    assert (back.hidden is None) == (hidden is None)
    camera = Camera.from_fov(FRAME.fov_true, torch.eye(4)[None])
    options = RenderOptions(samples=64, near=1.0, far=20.0)
    one, two = (render(each, camera, 12, 12, options) for each in (field, back))
    assert one.rgb.std() > 0.1
    assert (one.rgb - two.rgb).abs().max() < 0.01
    torch.testing.assert_close(one.disparity, two.disparity, atol=3e-3, rtol=0)
    again_about, again = pack_field(back)
    assert again_about == about
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


def test_an_unknown_kind_of_field_is_refused():
    about, tensors = pack_field(base(decoder=ViewSpaceDecoder(4)).float())
    with pytest.raises(ValueError, match="unknown kind of field: voxels"):
        unpack_field(about | {"kind": "voxels"}, tensors)
    tensors.pop("uv")
    with pytest.raises(KeyError, match="uv"):
        unpack_field(about, tensors)

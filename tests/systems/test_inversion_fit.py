"""Steps towards a picture: the published code's, and what must hold of any."""

import pytest
import torch
from made_nerf_from_image import FIXTURES, NAMES, close, expected_arrays, last, published_state
from torch import Tensor

from seeded import seeded
from unflat.geometry.published_pose import ObjectPose, camera_from_pose
from unflat.systems.gan.published.left_ends import render_as_published
from unflat.systems.gan.published.nerf_from_image import (
    DATA_SETS,
    build,
    generator_from_published,
)
from unflat.systems.inversion.fit import FitConfig, Unknowns, fit

SIDE = 24


def pose_at(expected: dict[str, Tensor], when: str) -> ObjectPose:
    return ObjectPose(
        quaternion=expected[f"{when}_q"],
        shift=expected[f"{when}_t2"],
        scale=expected[f"{when}_s"],
        zoom=expected.get(f"{when}_z0"),
    )


@pytest.mark.parametrize("case", ["p3d", "cub"])
def test_three_steps_of_the_published_code(case: str) -> None:
    expected = expected_arrays(FIXTURES / f"refine_{case}.npz")
    config, weights = generator_from_published(published_state(), DATA_SETS[NAMES[case]])
    generator = build(config, weights).requires_grad_(False)
    target = seeded("input.target", (2, SIDE, SIDE, 3), std=0.3)
    half = torch.full((2, 2), -0.5 / SIDE)  # their rays go through the corners of pixels
    seen: list[Tensor] = []
    poses: list[ObjectPose] = []
    gradients: dict[str, Tensor] = {}

    def losses(unknowns: Unknowns) -> Tensor:
        if not gradients:
            unknowns.codes.register_hook(lambda grad: gradients.update(codes=grad))
        form = generator.form(unknowns.codes)
        camera = camera_from_pose(unknowns.pose, is_flipped=True).within(half, torch.ones(2, 2))
        views = render_as_published(form.field, camera, SIDE, SIDE, samples="middle")
        image = last(2 * views.image(form.palette, config.data.background) - 1)
        seen.append(image.detach())
        return (image - target).square().flatten(1).mean(1)

    gain = float(expected["gain"])
    codes = expected["start_w"].expand(-1, generator.body.codes, -1)
    start = Unknowns(codes, pose_at(expected, "start"))
    fitted = fit(
        start,
        losses,
        FitConfig(steps=3, gain=gain, fits_focal=True),
        lambda done, of, unknowns: poses.append(unknowns.pose),
    )
    close(seen[0], expected["image0"], 1e-4)
    close(gradients["codes"] * gain, expected["grad_y"], 1e-5)
    close(torch.stack(fitted.losses).sum(1), expected["losses"], 1e-4)
    for number, pose in enumerate(poses, 1):
        for got, wanted in zip(pose, pose_at(expected, f"step{number}"), strict=True):
            if wanted is None:
                assert got is None
            else:
                close(got, wanted, 2e-4)
    # Adam's first steps are as long as the gain whatever the gradient is: signs must agree
    off = (fitted.unknowns.codes - expected["final_w"]).abs()
    assert off.mean() < 2e-4
    moved = (expected["final_w"] - expected["start_w"]).abs().mean()
    assert moved > 20 * off.mean()
    assert fitted.steps == [3, 3]
    assert not fitted.is_broken.any()


def still(count: int) -> Unknowns:
    """Some pictures' numbers, all apart."""
    generator = torch.Generator().manual_seed(0)
    pose = ObjectPose(
        torch.randn(count, 4, generator=generator),
        torch.randn(count, 2, generator=generator),
        torch.rand(count, generator=generator) + 0.5,
        torch.rand(count, generator=generator),
    )
    return Unknowns(torch.randn(count, 2, 3, generator=generator), pose)


def bowl(unknowns: Unknowns) -> Tensor:
    """Least at codes of 1 and no shift."""
    away = (unknowns.codes - 1).square().flatten(1).sum(1)
    return away + unknowns.pose.shift.square().sum(1)


def test_steps_lead_down_to_the_bottom() -> None:
    fitted = fit(still(3), bowl, FitConfig(steps=400, gain=10.0, lr=5e-3))
    close(fitted.unknowns.codes, torch.ones(3, 2, 3), 2e-2)
    close(fitted.unknowns.pose.shift, torch.zeros(3, 2), 2e-2)
    close(fitted.unknowns.pose.quaternion.norm(dim=1), torch.ones(3), 1e-6)


def test_no_steps_and_held_poses() -> None:
    start = still(2)
    nothing = fit(start, bowl, FitConfig(steps=0))
    torch.testing.assert_close(nothing.unknowns.codes, start.codes)
    assert nothing.losses == []
    held = fit(start, bowl, FitConfig(steps=5, fits_pose=False)).unknowns
    assert torch.equal(held.pose.shift, start.pose.shift)
    assert not torch.equal(held.codes, start.codes)
    turned = fit(start, bowl, FitConfig(steps=5)).unknowns
    assert torch.equal(turned.pose.zoom, start.pose.zoom)  # the focal length is fitted on wish only


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    """A broken one stays as it was before, and the others come to where they come alone."""

    start = still(3)
    start.codes[0] = -3.0  # moves up, and breaks after a step or two

    def breaks(unknowns: Unknowns) -> Tensor:
        losses = bowl(unknowns)
        is_far = bool(unknowns.codes[0, 0, 0] > -2.95)
        return torch.cat([losses[:1] * (torch.nan if is_far else 1.0), losses[1:]])

    config = FitConfig(steps=6, gain=20.0)
    together = fit(start, breaks, config)
    alone = fit(
        Unknowns(start.codes[1:], ObjectPose(*(x[1:] for x in start.pose if x is not None))),
        bowl,
        config,
    )
    torch.testing.assert_close(together.unknowns.codes[1:], alone.unknowns.codes)
    assert together.is_broken.tolist() == [True, False, False]
    assert together.steps[0] < 6
    assert together.steps[1:] == [6, 6]
    assert together.unknowns.codes.isfinite().all()
    assert (together.unknowns.codes[0] > start.codes[0]).all()  # its good steps are kept


def test_a_picture_stops_at_the_knee() -> None:
    start = still(2)
    start.codes[0] = 1.0  # there already
    start.pose.shift[0] = 0.0
    fitted = fit(start, lambda u: bowl(u) + 1, FitConfig(steps=60, gain=1.0, knee=0.002))
    assert fitted.steps[0] == 10
    assert fitted.steps[1] > 30
    assert fit(start, bowl, FitConfig(steps=12, gain=1.0)).steps == [12, 12]

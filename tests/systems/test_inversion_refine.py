"""Steps from a start towards pictures, with an untrained generator of small objects."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from unflat.geometry import Camera, orbit_pose
from unflat.geometry.published_pose import ObjectPose, pose_from_camera
from unflat.rendering import Casting, backends
from unflat.systems.gan import sdf_triplane
from unflat.systems.gan.pipeline import ObjectModel
from unflat.systems.gan.planes import Planes
from unflat.systems.inversion.compare import Comparison, Seen, look
from unflat.systems.inversion.encoder import build, tiny
from unflat.systems.inversion.fit import FitConfig, Fitted, Unknowns
from unflat.systems.inversion.framing import Window
from unflat.systems.inversion.pipeline import InversionModel


@pytest.fixture(autouse=True)
def reference():
    """Pictures this small are not worth compiling for."""
    with backends.use("reference"):
        yield


class Colors(nn.Module):
    """The mean absolute difference, for a network of features."""

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        return (images - references).abs().flatten(1).mean(1)


class Case(NamedTuple):
    model: InversionModel
    start: Unknowns
    seen: Seen


@pytest.fixture(scope="module")
def case() -> Case:
    """Two objects, and starts a little beside their codes and cameras."""
    torch.manual_seed(0)
    planes = Planes(latent_dim=8, style_dim=64, side=8, channels=4, base=64, widest=8, hidden=8)
    config = sdf_triplane.Config(planes=planes, rays=Casting(coarse=12), alpha=None, beta=0.05)
    generator = sdf_triplane.build(config).generator
    pose = orbit_pose(torch.full((2,), 0.4), torch.tensor([0.3, 2.0]), torch.full((2,), 1.3))
    camera = Camera.from_fov(0.9, pose)
    objects = ObjectModel(generator, system="sdf_triplane", config=config, camera=camera, header={})
    model = InversionModel(build(tiny()), objects, 12, {})
    with torch.no_grad():
        codes = generator.codes(torch.randn(2, 8))
        # an untrained object fills its box; a tenth of a unit less of it leaves room around it
        bias = generator.body.get_submodule("decoder.out").get_parameter("bias")
        bias[0] += 0.1
        truth = Unknowns(codes, pose_from_camera(camera))
        made = model.render(truth, None, 48)
    masks = (made.opacity[:, 0] > 0.5).float()
    assert 0.02 < masks.mean() < 0.9
    turned = truth.pose._replace(shift=truth.pose.shift + 0.05)
    start = Unknowns(codes + 0.2 * torch.randn(2, 1, 64), turned)
    return Case(model, start, look(made.image, masks, 12))


def test_steps_lead_towards_the_pictures_and_each_goes_its_own_way(case: Case) -> None:
    """Pictures in a batch come to where they come alone."""

    def refined(chosen: slice) -> Fitted:
        turn, shift, scale, zoom = case.start.pose
        assert zoom is not None
        pose = ObjectPose(turn[chosen], shift[chosen], scale[chosen], zoom[chosen])
        window = Window(*(part[chosen] for part in case.seen.window))
        return case.model.refine(
            Unknowns(case.start.codes[chosen], pose),
            Seen(case.seen.image[chosen], case.seen.opacity[chosen], window),
            Colors(),
            FitConfig(steps=8, gain=5.0),
            comparison=Comparison(warps=0),
        )

    together = refined(slice(None))
    for number in range(2):
        alone = refined(slice(number, number + 1)).unknowns
        torch.testing.assert_close(
            together.unknowns.codes[number], alone.codes[0], rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(together.unknowns.pose.shift[number], alone.pose.shift[0])
    assert (together.losses[-1] < 0.8 * together.losses[0]).all()

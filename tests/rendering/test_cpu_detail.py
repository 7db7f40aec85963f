"""Photos over view-space fields, marched by the fused CPU backend, beside the reference."""

import pytest
import torch
from PIL import Image

pytest.importorskip("numba", reason="the fused CPU backend needs the [fast] extra")

from unflat.errors import UserError
from unflat.fields import (
    BehindField,
    DetailField,
    HiddenSheet,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
)
from unflat.geometry import Camera, Frame
from unflat.rendering import RenderOptions, backends, render, render_rays
from unflat.rendering.backends import Rays
from unflat.systems.vq3d import load
from unflat.systems.vq3d.pipeline import reconstruct_picture

pytestmark = pytest.mark.usefixtures("no_backend_named")

FRAME = Frame(focal_true=1.9, a=1.3, b=-0.05)
OPTIONS = RenderOptions(samples=40, near=0.6, far=14.0, least_light=0.0)


def base(batch=1) -> ViewSpaceField:
    """A random field whose planes do not learn; its decoder would."""
    generator = torch.Generator().manual_seed(batch)

    def plane(wide, height, width):
        return 0.5 * torch.randn(batch, wide, height, width, generator=generator)

    decoder = ViewSpaceDecoder(16)
    with torch.no_grad():
        for part in decoder.parameters():
            part.copy_(0.25 * torch.randn(part.shape, generator=generator))
    return ViewSpaceField(
        ViewSpacePlanes(plane(21, 12, 10), plane(16, 8, 6), plane(16, 8, 7)), decoder, FRAME
    )


def smooth(batch: int, channels: int, side: int, seed: int) -> torch.Tensor:
    """Random numbers in [0, 1] that change slowly but for some steps."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.rand(batch, channels, 4, 5, generator=generator)
    soft = torch.nn.functional.interpolate(few, (side, side), mode="bilinear")
    return torch.where(soft > 0.55, 0.9 * soft, 0.5 * soft)


def detail(batch=1, hidden=True, side=22) -> DetailField:
    """A photo whose surface has steps, with a sheet behind some."""
    disparity = smooth(batch, 1, side, 1)
    spread = 0.004 + 0.03 * smooth(batch, 1, side, 2)
    behind = None
    if hidden:
        mask = (smooth(batch, 1, side, 3) > 0.3).float()
        behind = HiddenSheet(smooth(batch, 3, side, 4), 0.5 * disparity, mask)
    return DetailField(base(batch), smooth(batch, 3, side, 5), disparity, spread, behind)


def behind(batch=1) -> BehindField:
    return BehindField(base(batch), smooth(batch, 1, 22, 1))


def camera(batch: int, away=(0.3, -0.2, 0.1)) -> Camera:
    pose = torch.eye(4).repeat(batch, 1, 1)
    pose[:, :3, 3] = torch.tensor(away)
    return Camera.from_fov(1.1 * FRAME.fov_true, pose)


def pictures(scene, view: Camera, options=OPTIONS, side=(25, 27)) -> dict:
    made = {}
    for backend in ("reference", "fused"):
        with backends.use(backend):
            made[backend] = render(scene, view, *side, options)
    return made


FIELDS = {
    "photo": lambda: detail(hidden=False),
    "photo and hidden sheet": lambda: detail(batch=2),
    "behind": lambda: behind(batch=2),
}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("away", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1), (-0.5, 0.1, -0.6)])
def test_render_makes_the_same_pictures(kind, away):
    """Where surfaces end a last bit decides: one pixel in a hundred may differ."""
    scene = FIELDS[kind]()
    made = pictures(scene, camera(len(next(scene.buffers())), away))
    for fused, reference in zip(made["fused"], made["reference"], strict=True):
        differs = (fused - reference).abs() > 1e-4 * (1 + reference.abs())
        assert differs.float().mean() < 0.01
    assert made["reference"].rgb.std() > 0.1


@pytest.mark.parametrize("kind", FIELDS)
def test_rays_may_end_early_and_the_last_interval_may_stay_open(kind):
    scene = FIELDS[kind]()
    options = RenderOptions(samples=40, near=0.6, far=14.0, opaque_last=False, chunk=97)
    made = pictures(scene, camera(len(next(scene.buffers()))), options)
    for fused, reference in zip(made["fused"][:1], made["reference"][:1], strict=True):
        assert ((fused - reference).abs() > 2e-3).float().mean() < 0.01


def test_pixels_are_chosen_as_pytorch_chooses_them():
    """Samples exactly on borders between pixels: the even one, held at the picture's edge.

    Nothing is rounded on the way: all middles of intervals are powers of two.
    """
    made = detail(side=8)
    never = DetailField(
        made.base, made.photo, made.disparity, made.spread + 0.05, made.hidden, jump=0.0
    )
    scene = never.with_frame(Frame(focal_true=1.0))
    column = torch.arange(17) / 8 - 1
    u, v = (part.flatten() for part in torch.meshgrid(column, column, indexing="xy"))
    directions = torch.stack([u, v, torch.ones_like(u)], dim=-1)[None]
    edges = torch.tensor([0.5, 1.5, 2.5, 5.5, 10.5]).expand(1, len(u), -1)
    seen = {}
    for backend in ("reference", "fused"):
        with torch.no_grad(), backends.use(backend):
            seen[backend] = render_rays(scene, torch.zeros_like(directions), directions, edges)
    torch.testing.assert_close(seen["fused"].weights, seen["reference"].weights)
    torch.testing.assert_close(seen["fused"].features, seen["reference"].features)
    assert len(seen["reference"].features[0].unique(dim=0)) > 60


def test_a_reconstructed_photo_looks_the_same():
    """What `unflat reconstruct` makes with the bundled model: all of it at once."""
    generator = torch.Generator().manual_seed(0)
    few = torch.rand(1, 3, 6, 6, generator=generator)
    soft = torch.nn.functional.interpolate(few, (96, 96), mode="bilinear")[0]
    picture = Image.fromarray((soft.permute(1, 2, 0) * 255).byte().numpy())
    scene = reconstruct_picture(picture, model=load("vq3d-small", offline=True), offline=True)
    field = scene.field
    assert isinstance(field, DetailField)
    view = Camera.from_fov(field.frame.fov_true, camera(1, (0.1, 0.0, 0.0)).camera_to_world)
    made = pictures(field, view, RenderOptions(), (40, 40))
    error = (made["fused"].rgb - made["reference"].rgb).abs()
    assert (error > 3e-3).float().mean() < 0.01
    assert error.mean() < 2e-4


def test_whoever_learns_is_left_to_the_reference():
    scene = detail()
    rays = Rays(torch.zeros(1, 2, 3), torch.ones(1, 2, 3) / 3**0.5, torch.ones(1, 2, 4).cumsum(-1))
    assert backends.pick(scene, rays).name == "reference"
    with backends.use("fused"), pytest.raises(UserError, match="DetailField gets no gradients"):
        backends.pick(scene, rays)
    with torch.no_grad():
        assert backends.pick(scene, rays).name == "cpu"
        assert backends.pick(behind(), rays).name == "cpu"
    exact = DetailField(
        scene.base, scene.photo.double(), scene.disparity.double(), scene.spread.double()
    )
    with torch.no_grad():
        assert backends.pick(exact, rays).name == "reference"

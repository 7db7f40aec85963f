"""Scenes made of fields alone: no model is built here."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from unflat.errors import UserError
from unflat.fields import (
    DetailField,
    HiddenSheet,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
)
from unflat.geometry import Camera, Frame
from unflat.geometry.trajectory import turn_about_pivot
from unflat.scene import FORMAT, Scene, SceneHeader

SIDE = 40
FRAME = Frame(b=-0.12)
BACK, FRONT = 0.3, 0.8  # normalised disparity of wall and square
HEADER = SceneHeader(system="vq3d", model="made", source="made.png", confidence=0.5)


def photo() -> torch.Tensor:
    """A patterned wall, and a red square left of the middle before it."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    wall = 0.5 + 0.3 * torch.sin(columns / 3.0) * torch.cos(rows / 5.0)
    image = torch.stack([0.2 * wall, wall, 0.6 + 0.4 * columns / SIDE])
    image[:, square()] = torch.tensor([0.9, 0.2, 0.1])[:, None]
    return (image * 255).round() / 255


def square() -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[14:28, 8:20] = True
    return mask


def base(color: tuple[float, float, float] = (0.2, 0.6, 0.8)) -> ViewSpaceField:
    """A thick slab of one color behind the wall's place."""
    torch.manual_seed(0)
    uv = torch.zeros(1, 9, 8, 8)
    uv[:, :3] = torch.tensor(color)[:, None, None]
    uv[:, 3] = BACK - 0.5
    uv[:, 4] = 3.0
    planes = ViewSpacePlanes(uv, torch.zeros(1, 4, 4, 8), torch.zeros(1, 4, 4, 8))
    return ViewSpaceField(planes, ViewSpaceDecoder(4), FRAME)


def detail(hidden: bool = True) -> Scene:
    disparity = torch.where(square(), FRONT, BACK)[None, None]
    image = photo()[None]
    behind = None
    if hidden:  # the wall goes on behind the square
        wall = image.clone()
        wall[..., square()] = image[..., 14:28, 20:32].flatten(2)
        behind = HiddenSheet(wall, torch.full_like(disparity, BACK), square()[None, None].float())
    spread = torch.full_like(disparity, 0.004)
    return Scene(DetailField(base(), image, disparity, spread, behind), HEADER, max_angle=0.3)


def tokens() -> Scene:
    """A scene without a photo in its field, with the square in the planes themselves."""
    field = base()
    uv = functional.interpolate(field.uv, size=(SIDE, SIDE))
    uv[0, :3] = photo()
    uv[0, 3] = torch.where(square(), FRONT, BACK) - 0.5
    planes = ViewSpacePlanes(uv, field.ud, field.vd)
    made = ViewSpaceField(planes, field.decoder, FRAME)
    return Scene(made, HEADER, picture=photo())


def turned(scene: Scene, right: float, up: float = 0.0) -> Camera:
    pose = turn_about_pivot(torch.tensor([right]), torch.tensor([up]), scene.pivot_depth)
    return Camera(camera_to_world=pose, intrinsics=scene.camera.intrinsics)


def psnr(image: torch.Tensor, target: torch.Tensor) -> float:
    return float(-10 * (image - target).square().mean().log10())


def true_depth(normalised: float) -> float:
    disparity = FRAME.d_far + (FRAME.d_near - FRAME.d_far) * normalised
    return FRAME.a / (disparity - FRAME.b)


# The canonical view


def test_the_canonical_view_is_the_photo():
    scene = detail()
    seen = scene.render()
    assert scene.size == (SIDE, SIDE)
    assert psnr(seen.rgb[0], photo()) > 40
    assert seen.opacity.min() > 0.999
    near, far = seen.depth[0][square()].mean(), seen.depth[0][~square()].mean()
    assert near == pytest.approx(true_depth(FRONT), rel=0.02)
    assert far == pytest.approx(true_depth(BACK), rel=0.03)


def test_depth_is_that_of_the_visible_surface():
    depth = detail().depth()
    expected = torch.where(square(), true_depth(FRONT), true_depth(BACK))
    torch.testing.assert_close(depth, expected)
    rendered = tokens().depth((SIDE, SIDE))
    assert (rendered / expected).log().abs().median() < 0.1


def test_paths_turn_about_the_median_depth():
    assert detail().pivot_depth == pytest.approx(true_depth(BACK), rel=1e-5)


def test_a_camera_needs_no_batch_axis_and_many_are_each_alone():
    scene = detail()
    one = scene.camera[0]
    assert torch.equal(scene.render(one, (8, 8)).rgb, scene.render(size=(8, 8)).rgb)
    poses = [turned(scene, 0.1), turned(scene, -0.1)]
    both = Camera(
        camera_to_world=torch.cat([camera.camera_to_world for camera in poses]),
        intrinsics=scene.camera.intrinsics.expand(2, 4),
    )
    together = scene.render(both, (8, 8))
    assert together.rgb.shape == (2, 3, 8, 8)
    for index, camera in enumerate(poses):
        assert torch.equal(together.depth[index], scene.render(camera, (8, 8)).depth[0])


def test_a_render_is_no_part_of_a_graph():
    assert not tokens().render(size=(4, 4)).rgb.requires_grad


# Layers


def test_layers_agree_with_the_field_at_small_angles():
    """Two ways to the same picture; a mirrored turn misses the bound, and so does none at all."""
    scene = detail()
    camera, mirrored = turned(scene, 0.12, 0.05), turned(scene, -0.12, 0.05)
    layered = scene.layered((SIDE, SIDE))
    exact = scene.render(camera).rgb[0]
    inner = slice(5, -5)  # at the border the layers have nothing, the field its own planes

    def agreement(image: torch.Tensor) -> float:
        return psnr(image[:, inner, inner], exact[:, inner, inner])

    assert agreement(layered.view(camera)) > 22
    assert agreement(layered.view(mirrored)) < 18
    assert agreement(photo()) < 18


def test_layers_are_the_photo_and_what_stands_behind_its_steps():
    front, hidden = detail().layers()
    assert torch.equal(front.rgb.permute(2, 0, 1), photo())
    assert front.mask.all()
    assert torch.equal(hidden.mask, square())
    assert hidden.depth[square()].mean() == pytest.approx(true_depth(BACK), rel=1e-3)
    assert (hidden.depth >= front.depth - 1e-4)[hidden.mask].all()


@pytest.mark.parametrize("scene", [detail(hidden=False), tokens()], ids=["detail", "tokens"])
def test_without_a_second_sheet_the_field_tells_what_is_hidden(scene):
    front, hidden = scene.layers((SIDE, SIDE))
    assert front.rgb.shape == (SIDE, SIDE, 3)
    near_step = hidden.mask & square()
    assert near_step.sum() > 30
    assert not hidden.mask[:4].any()
    assert hidden.depth[near_step].median() > 1.4 * front.depth[square()].median()
    color = hidden.rgb[near_step].mean(0)
    if isinstance(scene.field, DetailField):
        torch.testing.assert_close(color, torch.tensor([0.2, 0.6, 0.8]), rtol=0, atol=0.05)


def test_layers_come_in_the_size_asked_for():
    for scene in (detail(), tokens()):
        front, _ = scene.layers((20, 20))
        assert front.rgb.shape == (20, 20, 3)
        assert front.depth.shape == front.mask.shape == (20, 20)


def test_a_mesh_stands_where_the_surface_is():
    mesh = detail().mesh((SIDE, SIDE))
    depths = mesh.vertices[:, 2]
    assert depths.min() == pytest.approx(true_depth(FRONT), rel=0.01)
    assert depths.max() == pytest.approx(true_depth(BACK), rel=0.01)
    corners = depths[mesh.faces]
    assert (corners.max(1) - corners.min(1)).max() < 0.1, "no triangle joins square and wall"
    near = np.isclose(depths, true_depth(FRONT), rtol=0.01)
    assert np.abs(mesh.colors[near].astype(int) - [230, 51, 26]).max() <= 1


# Moving pictures


@pytest.mark.parametrize("path", ["orbit", "spiral", "wiggle"])
def test_a_path_begins_at_the_photo_and_moves(path):
    frames = detail().orbit(path, frames=4, fps=12.0)
    assert frames.images.shape == (4, SIDE, SIDE, 3)
    assert frames.images.dtype == np.uint8
    assert frames.fps == 12
    wanted = (photo().permute(1, 2, 0) * 255).numpy()
    assert np.abs(frames.images[0] - wanted).max() <= 1
    assert np.abs(frames.images[1].astype(int) - frames.images[0]).mean() > 2


def test_frames_of_the_field_begin_at_the_photo_and_tell_their_progress():
    told = []
    frames = detail().orbit(
        frames=2, size=(SIDE, SIDE), quality="field", progress=lambda *step: told.append(step)
    )
    assert told == [(1, 2), (2, 2)]
    assert psnr(torch.tensor(frames.images[0]).permute(2, 0, 1) / 255, photo()) > 40


def test_frames_are_saved(tmp_path):
    path = detail().orbit(frames=3, size=(16, 16)).save(tmp_path / "orbit.webp")
    assert path.stat().st_size > 100


# Files


@pytest.mark.parametrize("scene", [detail(), detail(hidden=False), tokens()])
def test_a_saved_scene_gives_the_same_picture(tmp_path, scene):
    """Planes in half precision (2^-11 relative), a photo in the 8 bits it came in."""
    scene.save(tmp_path / "scene.safetensors")
    loaded = Scene.load(tmp_path / "scene.safetensors")
    assert loaded.header == scene.header
    assert loaded.max_angle == scene.max_angle
    assert loaded.field.frame == scene.field.frame
    assert loaded.photo is not None
    assert torch.equal(loaded.photo, photo())
    camera = turned(scene, 0.1)
    one, other = scene.render(camera, (24, 24)), loaded.render(camera, (24, 24))
    assert one.rgb.std() > 0.1
    assert psnr(one.rgb, other.rgb) > 50
    assert (one.disparity - other.disparity).abs().mean() < 1e-3
    scene.save(tmp_path / "again.safetensors")
    files = [tmp_path / name for name in ("scene.safetensors", "again.safetensors")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_file_needs_no_model(tmp_path, monkeypatch):
    detail().save(tmp_path / "scene.safetensors")
    for name in [name for name in sys.modules if name.startswith(("unflat.systems", "unflat.hub"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("unflat.systems", "unflat.hub"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    loaded = Scene.load(tmp_path / "scene.safetensors")
    assert psnr(loaded.render().rgb[0], photo()) > 40


def rewritten(path, change) -> None:
    """The file with its header changed."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["unflat"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, metadata={"unflat": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "what", "to_do"),
    [
        (
            lambda header, tensors: header.update(format=FORMAT + 1),
            f"written by a newer unflat \\(format {FORMAT + 1}, this reads up to {FORMAT}\\)",
            "upgrade unflat",
        ),
        (
            lambda header, tensors: header.update(kind="model"),
            "holds no scene of unflat's",
            "give a scene file",
        ),
        (
            lambda header, tensors: header.pop("format"),
            "holds no scene of unflat's",
            "give a scene file",
        ),
        (
            lambda header, tensors: tensors.pop("surface"),
            "its parts do not fit together",
            "make the scene again",
        ),
        (
            lambda header, tensors: header["header"].update(colour="red"),
            "its parts do not fit together",
            "make the scene again",
        ),
        (
            lambda header, tensors: tensors.update(uv=tensors["uv"][:, :3].contiguous()),
            "its parts do not fit together",
            "make the scene again",
        ),
    ],
    ids=["newer", "model", "no format", "no surface", "unknown header", "other planes"],
)
def test_what_is_no_scene_is_a_sentence(tmp_path, change, what, to_do):
    path = detail().save(tmp_path / "scene.safetensors")
    rewritten(path, change)
    with pytest.raises(UserError, match=f"{path}: {what}; {to_do}."):
        Scene.load(path)


def test_a_file_cut_in_half_or_absent_is_a_sentence(tmp_path):
    path = detail().save(tmp_path / "scene.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    words = r"scene.safetensors: is not a whole safetensors file .*; make the scene again."
    with pytest.raises(UserError, match=words):
        Scene.load(path)
    path.unlink()
    with pytest.raises(UserError, match="there is no such file; give a scene file"):
        Scene.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds no scene of unflat's; give a scene file"):
        Scene.load(path)


def test_the_field_of_view_is_the_frames():
    scene = detail()
    assert math.degrees(float(scene.camera.fov[0])) == pytest.approx(50)
    wide = Scene(scene.field.with_frame(FRAME.with_fov(math.radians(80))), HEADER)
    assert math.degrees(float(wide.camera.fov[0])) == pytest.approx(80)
    assert psnr(wide.render().rgb[0], photo()) > 40

"""EG3D's published weights: every key used once, every weight felt, planes where theirs are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from seeded import seeded
from unflat.errors import UserError
from unflat.fields import Bounded
from unflat.geometry import Camera, orbit_pose
from unflat.geometry.published_frames import to_eg3d
from unflat.systems.gan.generator import Generator
from unflat.systems.gan.published.eg3d import (
    SCENES,
    Config,
    ZeroPaddedField,
    _names,
    build,
    generator_from_published,
    scene_of,
)
from unflat.systems.gan.published.source import open_eg3d

VARIANTS = {"2X": (64, 32), "4X": (128, 32), "8X": (256, 32), "8XDC": (256, 64)}
STYLE, LATENT = 12, 6


def shapes(variant: str, side: int = 16, width: int = 8) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the published code has them, narrower."""
    first, sharp = VARIANTS[variant]
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, entering: int, leaving: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (leaving, entering), (leaving,)

    def block(name: str, entering: int, leaving: int, size: int, seen: int) -> None:
        if not entering:
            found[f"{name}.const"] = (leaving, size, size)
        found[f"{name}.resample_filter"] = (4, 4)
        for conv, into in (("conv0", entering), ("conv1", leaving)):
            if into:
                full = f"{name}.{conv}"
                found[f"{full}.weight"] = (leaving, into, 3, 3)
                found[f"{full}.bias"] = (leaving,)
                found[f"{full}.noise_strength"] = ()
                found[f"{full}.noise_const"] = (size, size)
                found[f"{full}.resample_filter"] = (4, 4)
                linear(f"{full}.affine", STYLE, into)
        found[f"{name}.torgb.weight"] = (seen, leaving, 1, 1)
        found[f"{name}.torgb.bias"] = (seen,)
        linear(f"{name}.torgb.affine", STYLE, leaving)

    linear("backbone.mapping.embed", 25, STYLE)
    linear("backbone.mapping.fc0", LATENT + STYLE, STYLE)
    linear("backbone.mapping.fc1", STYLE, STYLE)
    found["backbone.mapping.w_avg"] = (STYLE,)
    size, entering = 4, 0
    while size <= side:
        block(f"backbone.synthesis.b{size}", entering, width, size, 3 * 4)
        size, entering = 2 * size, width
    block("superresolution.block0", 5, sharp, first, 3)
    block("superresolution.block1", sharp, sharp // 2, 2 * first, 3)
    if variant != "8XDC":
        found["superresolution.resample_filter"] = (4, 4)
    linear("decoder.net.0", 4, 16)
    linear("decoder.net.2", 16, 1 + 5)
    return found


def published(variant: str = "2X") -> dict[str, Tensor]:
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    state = {}
    for name, shape in shapes(variant).items():
        if name.endswith("resample_filter"):
            state[name] = row[:, None] * row
        elif "mapping.fc" in name:
            state[name] = seeded(name, shape, std=100.0)
        elif name.endswith("affine.bias"):
            state[name] = seeded(name, shape, 1.0, 0.1)
        elif "strength" in name or name.endswith("bias"):
            state[name] = seeded(name, shape, 0.1, 0.1)
        else:
            state[name] = seeded(name, shape)
    return state


def opened(variant: str = "2X", **told) -> tuple[Config, Generator]:
    config, weights = generator_from_published(published(variant), told, SCENES["shapenet"])
    return config, build(config, weights)


def camera() -> Camera:
    return Camera.from_fov(0.6, orbit_pose(0.2, 0.5, 1.3)[None])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_key_is_used_once_and_nothing_else_is_needed(variant: str) -> None:
    config, generator = opened(variant)
    names = _names(config, published(variant))
    assert set(names) == set(shapes(variant))
    ours = [name for name in names.values() if name is not None]
    assert len(ours) == len(set(ours))
    assert set(generator.state_dict()) - set(ours) == {"mapping.seen"}
    unused = {name.rsplit(".", 1)[1] for name, mine in names.items() if mine is None}
    assert unused == {"resample_filter", "noise_strength", "noise_const"}
    assert {name for name, mine in names.items() if mine is None and "noise" in name} == {
        name for name in names if name.startswith("superresolution.") and "noise" in name
    }


@pytest.mark.parametrize(
    ("variant", "resolution", "entering", "width", "doubles"),
    [
        ("2X", 128, 64, 32, [False, True]),
        ("4X", 256, 128, 32, [False, True]),
        ("8X", 512, 128, 32, [True, True]),
        ("8XDC", 512, 128, 64, [True, True]),
    ],
)
def test_shapes_tell_the_variant(
    variant: str, resolution: int, entering: int, width: int, doubles: list[bool]
) -> None:
    config, generator = opened(variant)
    assert (config.resolution, config.entering) == (resolution, entering)
    assert (config.sharpening_width, config.rendered) == (width, entering)
    assert generator.decoder is not None
    assert [block.doubles for block in generator.decoder.blocks] == doubles
    assert (config.latent_dim, config.style_dim, config.depth) == (LATENT, STYLE, 2)
    assert generator.scale == resolution // entering


def test_a_render_runs_and_every_weight_is_felt() -> None:
    config, generator = opened(neural_rendering_resolution=16)
    assert (config.rendered, generator.scale) == (16, 8)
    generator.requires_grad_()
    codes = generator.codes(seeded("latent", (1, LATENT)), to_eg3d(camera()), truncation=0.7)
    assert codes.shape == (1, generator.body.codes, STYLE)
    made = generator.picture(generator.form(codes), codes, camera(), config.resolution)
    assert made.image.shape == (1, 3, 128, 128)
    assert made.raw.shape == (1, 3, 16, 16)
    assert 0 < made.opacity.mean() < 1
    scene, points = generator.form(codes).scene(), seeded("points", (1, 9, 3), std=0.3)
    out, whole = scene(points), generator.form(codes).field(points)
    torch.testing.assert_close(out.density, whole.density)
    torch.testing.assert_close(out.features, whole.features[..., :3])
    made.image.square().sum().backward()
    silent = [name for name, x in generator.named_parameters() if not x.grad.abs().max() > 0]
    assert not silent


def test_the_mapping_is_told_cameras_as_the_file_says() -> None:
    label, latent = to_eg3d(camera()), seeded("latent", (1, LATENT))
    other = to_eg3d(Camera.from_fov(0.6, orbit_pose(-0.4, 2.0, 1.3)[None]))
    told, silent, scaled = (
        opened(rendering_kwargs=kwargs)[1]
        for kwargs in ({}, {"c_gen_conditioning_zero": True}, {"c_scale": 0.5})
    )
    assert not torch.allclose(told.codes(latent, label), told.codes(latent, other), atol=1e-3)
    assert torch.equal(silent.codes(latent, label), silent.codes(latent, other))
    torch.testing.assert_close(scaled.codes(latent, label), told.codes(latent, label / 2))
    average = published()["backbone.mapping.w_avg"]
    torch.testing.assert_close(told.codes(latent, label, truncation=0.0)[0, 0], average)


@pytest.mark.parametrize(
    ("third", "matrix"),
    [
        ("zx", [[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        ("zy", [[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
        ("yz", [[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    ],
)
def test_planes_are_looked_up_where_the_published_axes_say(third: str, matrix: list) -> None:
    """Each plane has three axes; a point's place is its product with their inverse, cut to two."""
    _, generator = opened()
    planes = seeded("planes", (2, 3, 4, 8, 8))
    decoder = generator.body.decoder
    field = ZeroPaddedField(planes, decoder, 0.8, third)  # pyright: ignore[reportArgumentType]
    points = seeded("points", (2, 40, 3), std=0.55)
    first_two = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]]]
    mean = torch.zeros(2, 40, 4)
    for number, axes in enumerate([*first_two, matrix]):
        place = (points / 0.8 @ torch.linalg.inv(torch.tensor(axes).float()))[..., :2]
        found = functional.grid_sample(
            planes[:, number], place[:, None], padding_mode="zeros", align_corners=False
        )
        mean += found[:, :, 0].mT / 3
    weights = published()
    into = mean @ weights["decoder.net.0.weight"].T / 2 + weights["decoder.net.0.bias"]
    raw = functional.softplus(into) @ weights["decoder.net.2.weight"].T / 4
    raw = raw + weights["decoder.net.2.bias"]
    out = field(points)
    torch.testing.assert_close(out.density, functional.softplus(raw[..., 0] - 1))
    torch.testing.assert_close(out.features, torch.sigmoid(raw[..., 1:]) * 1.002 - 0.001)
    far = field(torch.full((2, 1, 3), 5.0))
    nothing = decoder(torch.zeros(4))[0]
    torch.testing.assert_close(far.density[0, 0], functional.softplus(nothing - 1))
    assert not isinstance(field, Bounded)


def test_the_decoder_s_multiplier_is_in_its_weights() -> None:
    state = published()
    plain = generator_from_published(state, {}, SCENES["ffhq"])[1]
    told = {"rendering_kwargs": {"decoder_lr_mul": 0.5}}
    half = generator_from_published(state, told, SCENES["ffhq"])[1]
    for name, value in plain.items():
        factor = 0.5 if name.startswith("body.decoder.") else 1.0
        torch.testing.assert_close(half[name], value * factor)


def test_from_a_converted_file(tmp_path: Path) -> None:
    path = tmp_path / "cars.pth"
    rendering = {
        "box_warp": 1.6,
        "ray_start": 0.1,
        "ray_end": 2.6,
        "depth_resolution": 64,
        "depth_resolution_importance": 64,
        "white_back": True,
    }
    assert scene_of(rendering) == SCENES["shapenet"]
    content = {
        "G_ema": published(),
        "neural_rendering_resolution": 32,
        "init_kwargs": {"sr_num_fp16_res": 0, "conv_clamp": None},
        "rendering_kwargs": rendering,
    }
    torch.save(content, path)
    config = open_eg3d(path).body.config
    assert (config.rendered, config.clamp, config.scene) == (32, None, SCENES["shapenet"])
    assert open_eg3d(path, "ffhq", "zy").body.config.scene == SCENES["ffhq"]
    assert open_eg3d(path, "ffhq", "zy").body.config.third_plane == "zy"
    torch.save(published(), path)
    assert open_eg3d(path, "shapenet").body.config.clamp == 256
    with pytest.raises(UserError, match=r"does not tell box_warp.*name the data set: ffhq"):
        open_eg3d(path)
    with pytest.raises(UserError, match=r"dogs: is no data set of EG3D's; give one of ffhq"):
        open_eg3d(path, "dogs")
    torch.save({"mapping_network.backbone.fc0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds nerf-from-image, no EG3D"):
        open_eg3d(path)


def refused(state: dict, *said: str, **told) -> None:
    with pytest.raises(UserError) as caught:
        build(*generator_from_published(state, told, SCENES["ffhq"], source="a.pth"), "a.pth")
    message = str(caught.value)
    assert message.startswith("a.pth: ")
    assert message.endswith("as published.")
    for part in said:
        assert part in message


def test_what_is_no_published_eg3d_is_refused() -> None:
    whole = published()
    for name in (
        "backbone.mapping.w_avg",
        "decoder.net.2.bias",
        "superresolution.block1.conv0.bias",
    ):
        refused({key: x for key, x in whole.items() if key != name}, f"lacks {name}")
    refused({**whole, "triplane_net.weight": torch.zeros(2)}, "holds triplane_net.weight")
    name = "superresolution.block0.conv0.weight"
    refused({**whole, name: whole[name][:, :2]}, "decoder.blocks.0.layers.0.conv.weight")
    name = "superresolution.block1.conv1.noise_const"
    refused({**whole, name: torch.zeros(64, 64)}, "sides 64 and 64")
    refused(whole, "is cut at 256", init_kwargs={"conv_clamp": 256})

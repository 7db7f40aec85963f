from dataclasses import replace

import pytest
import torch

from unflat.fields import ViewSpacePlanes
from unflat.metrics import psnr
from unflat.nn.halton import halton_order
from unflat.scene import Scene, SceneHeader
from unflat.systems.vq3d.autoencoder import Autoencoder, Planes
from unflat.systems.vq3d.config import Config, tiny
from unflat.systems.vq3d.interpolate import (
    encode_ends,
    film_between,
    planes_between,
    scene_of_planes,
)

HEADER = SceneHeader(system="vq3d", model="made")
CONFIGS = {
    "fsq": tiny(),
    "vq": replace(tiny(), quantizer="vq", codes=64, code_dim=8, codes_per_token=2),
    "none": replace(tiny(), quantizer="none"),
    "triplane": replace(
        tiny(), field="triplane", surface=False, refiner_width=0, linear_skip=False
    ),
}


def model(config: Config) -> Autoencoder:
    torch.manual_seed(0)
    made = Autoencoder(config)
    generator = torch.Generator().manual_seed(1)
    if config.linear_skip:
        made.start_from_patches(torch.rand(64, 3, 32, 32, generator=generator))
    for parameter in made.parameters():  # nothing begins at zero, so that everything shows
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def all_of(planes: Planes) -> torch.Tensor:
    parts = planes if isinstance(planes, ViewSpacePlanes) else (planes,)
    return torch.cat([part.flatten() for part in parts])


@pytest.fixture(params=CONFIGS, scope="module")
def made(request) -> Autoencoder:
    return model(CONFIGS[request.param])


@pytest.mark.parametrize("way", ["latents", "planes", "tokens"])
@torch.no_grad()
def test_every_way_begins_and_ends_at_the_pictures_and_leads_between_them(made, way):
    ends = encode_ends(made, pictures())
    codes = ends.latents if way == "latents" else ends.tokens
    first, second = (all_of(made.decode(codes[index : index + 1])) for index in (0, 1))
    scale = (first - second).norm()
    assert scale > 0
    begin, middle, end = (
        all_of(planes_between(made, ends, share, way)) for share in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(begin, first, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(end, second, atol=1e-4, rtol=1e-4)
    assert 0.2 * scale < (middle - first).norm() < scale
    assert 0.2 * scale < (middle - second).norm() < scale


def test_planes_are_mixed_evenly():
    made = model(tiny())
    ends = encode_ends(made, pictures())
    with torch.no_grad():
        both = made.decode(ends.tokens)
    assert isinstance(both, ViewSpacePlanes)
    third = planes_between(made, ends, 1 / 3, "planes")
    for mixed, plane in zip(third, both, strict=True):
        torch.testing.assert_close(mixed[0], plane[0] * 2 / 3 + plane[1] / 3)


def test_latents_run_straight_where_the_decoder_reads_them_and_are_not_rounded(monkeypatch):
    made = model(tiny())
    ends = encode_ends(made, pictures())
    seen = []
    decode = made.decode
    monkeypatch.setattr(made, "decode", lambda tokens: seen.append(tokens) or decode(tokens))
    for share in (0.0, 0.25, 1.0):
        planes_between(made, ends, share, "latents")
    first, quarter, second = (made._expand(tokens) for tokens in seen)
    torch.testing.assert_close(quarter, first * 0.75 + second * 0.25, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(seen[1], made.quantizer(quarter).tokens, atol=1e-3)


def test_unit_codes_stay_of_unit_length(monkeypatch):
    made = model(CONFIGS["vq"])
    seen = []
    decode = made.decode
    monkeypatch.setattr(made, "decode", lambda tokens: seen.append(tokens) or decode(tokens))
    planes_between(made, encode_ends(made, pictures()), 0.4, "latents")
    lengths = seen[0].unflatten(-1, (-1, 8)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_tokens_switch_one_by_one_in_haltons_order(monkeypatch):
    made = model(tiny())
    ends = encode_ends(made, pictures())
    seen = []
    decode = made.decode
    monkeypatch.setattr(made, "decode", lambda tokens: seen.append(tokens[0]) or decode(tokens))
    order = halton_order(4)
    for count in range(17):
        planes_between(made, ends, count / 16, "tokens")
        switched = torch.zeros(16, dtype=torch.bool)
        switched[order[:count]] = True
        assert torch.equal(seen[-1][switched], ends.tokens[1][switched])
        assert torch.equal(seen[-1][~switched], ends.tokens[0][~switched])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_beyond_the_ends_is_refused(share):
    made = model(tiny())
    with pytest.raises(ValueError, match=r"share is .*; it must be in \[0, 1\]"):
        planes_between(made, encode_ends(made, pictures()), share)


def test_a_scene_between_is_saved_with_its_own_front(tmp_path):
    made = model(tiny())
    planes = planes_between(made, encode_ends(made, pictures()), 0.5)
    scene = scene_of_planes(made, planes, HEADER)
    assert scene.photo is not None
    front = scene.render(size=(scene.photo.shape[-2], scene.photo.shape[-1])).rgb[0]
    assert psnr(front[None], scene.photo[None]) > 35
    loaded = Scene.load(scene.save(tmp_path / "scene.safetensors"))
    one, other = scene.render(size=(16, 16)).rgb, loaded.render(size=(16, 16)).rgb
    assert (one - other).abs().mean() < 0.01
    assert loaded.header.fov_deg == tiny().fov_deg


def test_a_film_goes_there_and_back_and_one_camera_moves():
    made = model(tiny())
    ends = encode_ends(made, pictures())
    told = []
    still, moving = film_between(
        made, ends, "planes", HEADER, frames=4, size=(16, 16), progress=lambda: told.append(1)
    )
    assert len(told) == 8
    assert still.images.shape == moving.images.shape == (4, 16, 16, 3)
    there, back = still.images[1].astype(int), still.images[3].astype(int)
    assert abs(there - back).max() <= 1, "a quarter and three quarters of the way are the same"
    assert abs(still.images[0].astype(int) - still.images[2]).mean() > 5
    assert (moving.images[0] == still.images[0]).all(), "both begin at the canonical camera"
    assert abs(moving.images[2].astype(int) - still.images[2]).mean() > 1

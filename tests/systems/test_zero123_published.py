"""Published networks in unflat against what the authors' own modules made of the same weights."""

import math

import pytest
import torch

from published_views import (
    averaged,
    fixture,
    key_list,
    tiny_state,
    write_checkpoint,
    write_folder,
)
from unflat.errors import UserError
from unflat.geometry import ZERO123_FOV
from unflat.geometry.published_frames import from_zero123
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.clip_pixels import clip_pixels
from unflat.systems.zero123.model import Tensors, ViewModel, denoise
from unflat.systems.zero123.one_token import fold_attention
from unflat.systems.zero123.published_loading import open_published
from unflat.systems.zero123.schedule import NoiseSchedule, timesteps


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("views") / "tiny.ckpt", tiny_state())


@pytest.fixture(scope="module")
def folded(checkpoint):
    """As a person gets it: the constant path."""
    return open_published(checkpoint)


@pytest.fixture(scope="module")
def plain(checkpoint):
    """With attention as published."""
    return open_published(checkpoint, plain_attention=True)


@pytest.fixture(scope="module")
def picture():
    """The prepared picture of the fixtures, in [0, 1]."""
    return fixture("image")["auto"].permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def reference(folded, picture):
    return folded.reference(picture, torch.ones(1, 256, 256))


def close(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted.to(found.dtype), atol=tolerance, rtol=0)


def poses(numbers):
    """Of the network's four numbers."""
    return RelativePose(
        polar=numbers[:, 0],
        azimuth=torch.atan2(numbers[:, 1], numbers[:, 2]),
        radius=numbers[:, 3],
    )


def test_pose_numbers_are_the_authors():
    known = fixture("pose")
    target, source = (from_zero123(known[f"{name}_RT"].float()) for name in ("target", "cond"))
    close(RelativePose.between(source, target).embedding(), known["T"], 1e-6)
    assert math.degrees(ZERO123_FOV) == pytest.approx(49.13, abs=0.01)
    down, right, farther = known["ui_angles_deg"].float().T
    close(RelativePose.from_degrees(right, -down, farther).embedding(), known["ui_T"], 1e-6)
    elevation = torch.deg2rad(known["stable_cond_elevation_deg"].float())
    stable = RelativePose.from_degrees(torch.zeros(4), 0.0).stable_embedding(elevation)
    close(stable[:, 3], known["stable_fourth"], 1e-6)


def test_schedules_are_the_authors():
    known = fixture("schedule")
    signal = NoiseSchedule.scaled_linear().signal
    torch.testing.assert_close(signal, known["alphas_cumprod"], rtol=1e-6, atol=0)
    sigma = ((1 - signal) / signal).sqrt().flip(0)
    torch.testing.assert_close(sigma, known["score_sigmas_descending"].double(), rtol=1e-6, atol=0)
    for steps in (4, 5, 10, 20, 25, 50, 75, 76, 100, 200):
        rising = known[f"leading_{steps}"]
        assert timesteps(steps, "leading").flip(0).tolist() == rising.tolist()
        assert timesteps(steps, "leading_drop").flip(0).tolist() == rising[:-1].tolist()
        # of eta 1; before the first step stands the signal of timestep 0
        now = signal[rising.long()]
        before = torch.cat([signal[:1], now[:-1]])
        spread = ((1 - before) / (1 - now)).sqrt() * (1 - now / before).sqrt()
        # theirs are of signals in float32, of whose nearness to 1 the first sigma is made
        wanted = known[f"sigma_eta1_{steps}"].double()
        torch.testing.assert_close(spread, wanted, rtol=1e-6, atol=1e-6)


def test_clip_sees_the_authors_pixels(picture):
    known = fixture("image")
    seen = clip_pixels(picture, 224, "authors")[0]
    close(seen[:, ::8, ::8], known["clip_input_stride8"], 1e-5)
    stats = torch.stack([seen.mean(), seen.std(), seen.min(), seen.max()])
    close(stats, known["clip_input_stats"], 1e-4)


def test_the_other_dialect_sees_transformers_pixels(picture):
    """They differ from the authors' most at edges; README of the fixtures: 0.71 normalised."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    levels = (picture[0] * 255).round().byte().permute(1, 2, 0).numpy()
    wanted = CLIPImageProcessorPil()(levels, return_tensors="pt")["pixel_values"]
    close(clip_pixels(picture, 224, "processor"), wanted, 1e-5)
    between = (clip_pixels(picture, 224, "authors") - wanted).abs()
    assert 0.3 < float(between.max()) < 1.0


def test_reference_is_the_authors_embedding_and_mean(reference):
    close(reference.parts["embedding"], fixture("image")["clip_embedding"], 1e-4)
    close(reference.parts["picture"], fixture("cond")["c_concat"], 1e-4)


def test_tokens_and_both_nulls_are_the_authors(checkpoint, plain, reference):
    known = fixture("cond")
    condition = plain.condition(reference, poses(known["T"]))
    close(condition.parts["token"], known["context"], 1e-5)
    close(plain.null(condition).parts["token"], known["null_sampling"], 1e-5)
    assert not plain.null(condition).parts["picture"].any()
    training = open_published(checkpoint, plain_attention=True, null="training")
    close(training.null(condition).parts["token"], known["null_training"], 1e-5)
    assert known["null_training"].abs().max() > 0.01


def told(model, known, is_null=False):
    """The conditions of the fixture of one call."""
    token, picture = known["context"], known["c_concat"]
    if is_null:
        token, picture = torch.zeros_like(token), torch.zeros_like(picture)
    token = token if model.constants is None else model.constants(token)
    return Tensors({"token": token, "picture": picture, "pose": torch.zeros(len(token), 4)})


@torch.no_grad()
@pytest.mark.parametrize("way", ["plain", "folded"])
def test_noise_is_the_authors(way, checkpoint, request):
    known = fixture("unet")
    model = request.getfixturevalue(way)
    for is_null, wanted in ((False, "eps_ema"), (True, "eps_ema_null")):
        said = model.predict(known["x_t"], known["t"], told(model, known, is_null))
        close(said, known[wanted], 1e-4)
    raw = open_published(checkpoint, averaged=False, plain_attention=way == "plain")
    said = raw.predict(known["x_t"], known["t"], told(raw, known))
    close(said, known["eps"], 1e-4)
    assert (known["eps"] - known["eps_ema"]).abs().max() > 0.1  # the wrong set is found out


@torch.no_grad()
def test_attention_to_one_token_is_the_authors_constants(checkpoint):
    known = fixture("onetoken")
    model = open_published(checkpoint, averaged=False)
    assert model.constants is not None
    names = key_list("keymap_diffusers")["map"]
    parts = model.constants.by_block(model.constants(known["context"]))
    assert len(parts) == 16
    for name, found in parts.items():
        key = next(
            key for key, (ours, _) in names.items() if ours == f"{name}.attn2.to_out.0.bias"
        ).removeprefix("model.diffusion_model.")
        close(found, known[f"bias.{key.removesuffix('.attn2.to_out.0.bias')}"], 1e-5)
    call = fixture("unet")
    said = model.predict(call["x_t"], call["t"], told(model, call))
    close(said, known["eps"], 1e-4)
    kept = [name for name in model.unet.state_dict() if "transformer_blocks" in name]
    assert kept
    assert not [name for name in kept if "attn2" in name or "norm2" in name]


@torch.no_grad()
def test_several_tokens_keep_their_attention(plain):
    """Two equal tokens are one; two that differ are something else, which no constant gives."""
    known = fixture("unet")
    condition = told(plain, known)
    token = condition.parts["token"]
    one = plain.predict(known["x_t"], known["t"], condition)
    twice = Tensors({**condition.parts, "token": token.repeat(1, 2, 1)})
    close(plain.predict(known["x_t"], known["t"], twice), one, 1e-4)
    other = Tensors({**condition.parts, "token": torch.cat([token, -token], dim=1)})
    assert (plain.predict(known["x_t"], known["t"], other) - one).abs().max() > 1e-3


@torch.no_grad()
def test_decoding_is_the_authors(folded):
    known = fixture("ddim")
    views = folded.decode(known["full_eta0"])
    close(views.image[0, :, ::4, ::4] * 2 - 1, known["decoded_full_eta0_stride4"], 1e-4)
    assert views.opacity is None
    folded.slice_decoding()
    several = folded.decode(torch.cat([known["full_eta0"], known["x_T"]]))
    close(several.image[:1], views.image, 1e-5)


@torch.no_grad()
def test_latents_are_scaled_means(folded, picture):
    wanted = fixture("cond")["vae_moments"][:, :4] * 0.18215
    close(folded.encode(picture, torch.ones(1, 256, 256)), wanted, 1e-4)


def test_a_picture_can_be_fitted_through_encoder_and_decoder(folded, picture):
    image = picture[..., 96:160, 96:160].clone().requires_grad_()
    latent = folded.encode(image, torch.ones(1, 64, 64))
    (latent.square().sum() + folded.decode(latent).image.sum()).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.abs().max() > 0


@torch.no_grad()
def test_a_batch_of_poses_is_each_alone(folded, reference):
    known = fixture("cond")
    pose = poses(known["T"][:3])
    noisy = torch.randn(3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([961, 501, 1])
    together = denoise(folded, noisy, timestep, folded.condition(reference, pose), 3.0)
    for i in range(3):
        condition = folded.condition(reference, pose[i : i + 1])
        alone = denoise(folded, noisy[i : i + 1], timestep[i : i + 1], condition, 3.0)
        close(alone.noise, together.noise[i : i + 1], 1e-4)


def test_it_is_a_view_model(folded):
    assert isinstance(folded, ViewModel)
    assert folded.latent_shape == (4, 32, 32)
    assert folded.side == 256
    assert folded.dtype == torch.float32
    assert folded.name == "tiny.ckpt"


def test_stable_zero123_is_told_the_elevation(checkpoint, picture):
    model = open_published(checkpoint, pose_numbers="stable", plain_attention=True)
    opacity = torch.ones(1, 256, 256)
    with pytest.raises(
        UserError, match=r"tiny\.ckpt: is told how high .* give --input-elevation-deg"
    ):
        model.reference(picture, opacity)
    elevation = torch.deg2rad(torch.tensor([30.0]))
    reference = model.reference(picture, opacity, elevation)
    pose = RelativePose.from_degrees(90.0, 10.0, 0.3, input_elevation_deg=30.0)
    pose = RelativePose(
        polar=pose.polar[None], azimuth=pose.azimuth[None], radius=pose.radius[None]
    )
    numbers = model.condition(reference, pose).parts["pose"][0]
    close(numbers, torch.tensor([math.radians(20), 1, 0, math.radians(60)]), 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(checkpoint, folded, picture, dtype):
    """The projection stays in float32; noise that the network says differs by rounding."""
    model = open_published(checkpoint, dtype=dtype)
    known = fixture("unet")
    said = model.predict(known["x_t"], known["t"], told(model, known))
    assert said.dtype == torch.float32
    assert model.dtype == dtype
    error = (said - known["eps_ema"]).square().mean().sqrt()
    assert 0 < error < (0.02 if dtype == torch.bfloat16 else 0.003) * known["eps_ema"].std()
    reference = model.reference(picture, torch.ones(1, 256, 256))
    assert reference.parts["embedding"].dtype == torch.float32
    assert model.projection.weight.dtype == torch.float32


def test_encoders_can_be_dropped(checkpoint, picture):
    model = open_published(checkpoint)
    opacity = torch.ones(1, 256, 256)
    wanted = model.decode(fixture("ddim")["full_eta0"]).image
    model.offload()  # to the CPU, where it is
    model.reference(picture, opacity)
    model.drop_encoders()
    torch.testing.assert_close(model.decode(fixture("ddim")["full_eta0"]).image, wanted)
    for call in (model.reference, model.encode):
        with pytest.raises(ValueError, match="encoders of this model were dropped"):
            call(picture, opacity)


@torch.no_grad()
@pytest.mark.parametrize(
    ("dialect", "ending"),
    [("cc_projection", ".safetensors"), ("clip_camera_projection", ".bin")],
)
def test_a_folder_of_diffusers_is_the_same_model(tmp_path, folded, picture, dialect, ending):
    """Of the same weights, as both dialects store them; CLIP's pixels are each dialect's own."""
    model = open_published(write_folder(tmp_path / "views", tiny_state(), dialect, ending))
    assert model.pixels == ("authors" if dialect == "cc_projection" else "processor")
    known, opacity = fixture("cond"), torch.ones(1, 256, 256)
    found, wanted = (each.reference(picture, opacity) for each in (model, folded))
    torch.testing.assert_close(found.parts["picture"], wanted.parts["picture"])
    same = torch.equal(found.parts["embedding"], wanted.parts["embedding"])
    assert same == (dialect == "cc_projection")
    noisy = fixture("unet")["x_t"]
    split = [
        denoise(
            each, noisy, fixture("unet")["t"], each.condition(wanted, poses(known["T"][:2])), 3.0
        )
        for each in (model, folded)
    ]
    torch.testing.assert_close(split[0].noise, split[1].noise, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.decode(noisy).image, folded.decode(noisy).image)


def test_folding_leaves_self_attention(plain):
    import copy

    unet = copy.deepcopy(plain.unet)
    before = {name for name in unet.state_dict() if "attn1" in name}
    constants = fold_attention(unet)
    assert {name for name in unet.state_dict() if "attn1" in name} == before
    assert constants.weight.shape == (sum(constants.widths.values()), 16)


def test_the_rule_of_weights_is_the_published_one():
    """The fingerprint covers the schedule as well, which is made by formula."""
    state = tiny_state()
    known = key_list("keys_tiny")
    assert {key: list(value.shape) for key, value in state.items()} == known["shapes"]
    assert averaged("model.diffusion_model.out.2.bias") == "model_ema.diffusion_modelout2bias"
    assert averaged("model.diffusion_model.out.2.bias") in state

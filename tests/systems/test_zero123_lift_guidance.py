"""Guidance against its closed forms, in float64."""

import pytest
import torch
from made_view_oracle import ViewOracle

from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.lift.guidance import GuidanceConfig, ScoreGuidance
from unflat.systems.zero123.model import Tensors

SIDE = 6


class Formula(ViewOracle):
    """Says a fixed function of what it is shown, in float64, and something else if it is null."""

    def __init__(self, prediction="noise"):
        super().__init__(SIDE, prediction)
        self.dtype = torch.float64

    def reference(self, image, opacity, elevation=None) -> Tensors:
        return Tensors({"told": torch.ones(1, dtype=torch.float64)})

    def condition(self, reference: Tensors, pose: RelativePose) -> Tensors:
        return Tensors({"told": 0.3 + pose.azimuth})

    def null(self, condition: Tensors) -> Tensors:
        return Tensors({"told": torch.zeros_like(condition.parts["told"])})

    def predict(self, noisy, timestep, condition):
        return torch.sin(noisy) + condition.parts["told"].view(-1, 1, 1, 1)


def guidance(config: GuidanceConfig, prediction="noise") -> ScoreGuidance:
    model = Formula(prediction)
    return ScoreGuidance(model, model.reference(None, None), config)


def two() -> tuple[torch.Tensor, RelativePose]:
    latent = torch.randn(2, 4, SIDE, SIDE, dtype=torch.float64)
    return latent.requires_grad_(), RelativePose.from_degrees(torch.tensor([20.0, -70.0]), 0.0)


@pytest.mark.parametrize("form", ["sjc", "sds"])
@pytest.mark.parametrize("prediction", ["noise", "clean"])
def test_the_gradient_is_the_closed_form(form, prediction):
    torch.manual_seed(0)
    config = GuidanceConfig(form=form, guidance_scale=2.5)
    latent, pose = two()
    generator = torch.Generator().manual_seed(3)
    guide = guidance(config, prediction)
    guide.loss(latent, pose, share=0.2, generator=generator).backward()

    again = torch.Generator().manual_seed(3)
    low, high = config.timesteps(0.2)
    t = torch.randint(low, high + 1, (2,), generator=again)
    noise = torch.randn(latent.shape, generator=again, dtype=torch.float64)
    signal = guide.model.schedule.signal[t].view(-1, 1, 1, 1)
    y = latent.detach()
    z = signal.sqrt() * y + (1 - signal).sqrt() * noise
    told = (0.3 + pose.azimuth.double()).view(-1, 1, 1, 1)
    said = torch.sin(z) + 2.5 * told  # null + scale (told - null)
    if prediction == "clean":
        said = (z - signal.sqrt() * said) / (1 - signal).sqrt()
    expected = said - noise
    if form == "sds":
        expected = (1 - signal) * expected
    torch.testing.assert_close(latent.grad, expected, rtol=1e-10, atol=1e-10)


def test_score_chaining_is_the_distance_to_the_denoised_picture():
    """-(D - y) / sigma with z = y + sigma n and D = z - sigma e (arXiv 2212.00774, eq. 14)."""
    torch.manual_seed(1)
    guide = guidance(GuidanceConfig.sjc(1.0))
    latent, pose = two()
    t = torch.tensor([50, 800])
    noise = torch.randn_like(latent)
    signal = guide.model.schedule.signal[t].view(-1, 1, 1, 1)
    sigma = ((1 - signal) / signal).sqrt()
    y = latent.detach()
    z = y + sigma * noise
    e = torch.sin(z / (1 + sigma**2).sqrt()) + (0.3 + pose.azimuth.double()).view(-1, 1, 1, 1)
    expected = -((z - sigma * e) - y) / sigma
    found = guide.gradient(y, pose, t, noise)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_a_picture_that_the_model_believes_is_left_alone():
    oracle = ViewOracle(SIDE)
    config = GuidanceConfig(guidance_scale=3.0)
    pose = RelativePose.from_degrees(torch.tensor([40.0]), 10.0, 0.0, input_elevation_deg=20.0)
    guide = ScoreGuidance(oracle, oracle.reference(torch.zeros(1, 3, SIDE, SIDE), None), config)
    truth = oracle.condition(guide.reference, pose).parts["clean"]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([400])
    assert guide.gradient(truth, pose, t, noise).abs().max() < 1e-4
    assert guide.gradient(truth + 1, pose, t, noise).abs().min() > 1e-2


def test_timesteps_sink_and_are_held():
    config = GuidanceConfig.sds()
    assert config.timesteps(0.0) == (400, 850)
    assert config.timesteps(1 / 6) == (300, 675)
    assert config.timesteps(1 / 3) == config.timesteps(1.0) == (200, 500)
    assert GuidanceConfig.sjc().timesteps(0.5) == (10, 969)
    with pytest.raises(ValueError, match="least"):
        GuidanceConfig(least=(0.9, 0.2))

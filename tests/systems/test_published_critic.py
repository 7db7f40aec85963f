"""The critic of nerf-from-image (Apache-2.0, commit fddf72a): outputs of its own code."""

import numpy as np
import pytest
import torch

from seeded import FIXTURES, seeded, seeded_state
from unflat.geometry.published_frames import NerfFromImageCamera, from_nerf_from_image, full_box
from unflat.geometry.published_pose import critic_condition
from unflat.losses import r1_penalty
from unflat.systems.gan.published_critic import critic_from_published


def arrays() -> dict[str, torch.Tensor]:
    with np.load(FIXTURES / "critic.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


@pytest.mark.parametrize("channels", [4, 3])
def test_logits_and_their_slopes_are_the_published_ones(channels):
    """P3D's perspective cameras and a mask beside the colours; or CUB's orthographic ones."""
    kind, stored = f"nc{channels}", arrays()
    critic = critic_from_published(seeded_state(FIXTURES / f"critic_{kind}.json"))
    matrix, focal = stored[f"{kind}_cam2world"], stored.get(f"{kind}_focal")
    box = full_box(matrix).expand(4, 2, 2)
    camera = from_nerf_from_image(NerfFromImageCamera(matrix, focal, box))
    images = seeded("disc.image", (4, channels, 32, 32), std=0.5).requires_grad_()
    logits = critic(images, critic_condition(camera, is_flipped=True))
    torch.testing.assert_close(logits, stored[f"{kind}_logits"][:, 0], atol=1e-5, rtol=1e-4)
    if channels == 4:
        squared = 2 * r1_penalty(logits, images)
        torch.testing.assert_close(squared, stored["nc4_r1"], atol=1e-7, rtol=1e-4)
    exchanged = critic_condition(camera[torch.tensor([1, 0, 3, 2])], is_flipped=True)
    turned = critic(images, exchanged)
    assert float((turned - logits).detach().abs().min()) > 1e-3, "the condition matters"


def test_weights_that_are_unknown_or_missing_are_named():
    state = seeded_state(FIXTURES / "critic_nc3.json")
    with pytest.raises(ValueError, match=r"backbone\.b32\.extra\.weight is no weight"):
        critic_from_published({**state, "backbone.b32.extra.weight": torch.zeros(1)})
    missing = {name: value for name, value in state.items() if "b16.conv1.bias" not in name}
    with pytest.raises(ValueError, match=r"blocks\.1\.second\.bias must be of shape"):
        critic_from_published(missing)
    with pytest.raises(ValueError, match="fromrgb"):
        critic_from_published({"alpha": torch.zeros(1)})

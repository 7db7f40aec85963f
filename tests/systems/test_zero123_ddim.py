"""Five steps of the authors' sampler on their own network, state by state."""

import numpy as np
import pytest
import torch

from published_views import FIXTURES, tiny_state, write_checkpoint
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.model import denoise
from unflat.systems.zero123.published_loading import open_published
from unflat.systems.zero123.sampler import Sampler, sample
from unflat.systems.zero123.schedule import timesteps


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Model, condition of azimuth 30 degrees, and the stored states."""
    path = write_checkpoint(tmp_path_factory.mktemp("views") / "tiny.ckpt", tiny_state())
    model = open_published(path)
    with np.load(FIXTURES / "image.npz") as file:
        picture = torch.from_numpy(file["auto"]).permute(2, 0, 1)[None].float() / 255
    with np.load(FIXTURES / "ddim.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind == "f"}
        stored |= {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind in "iu"}
    reference = model.reference(picture, torch.ones(1, 256, 256))
    pose = RelativePose.from_degrees(torch.tensor([30.0]), 0.0)
    with torch.no_grad():
        return model, model.condition(reference, pose), stored


@pytest.mark.parametrize(
    ("case", "spacing", "eta", "scale"),
    [
        ("official_eta0", "leading_drop", 0.0, 3.0),
        ("official_eta1", "leading_drop", 1.0, 3.0),
        ("full_eta0", "leading", 0.0, 3.0),
        ("full_eta1", "leading", 1.0, 3.0),
        ("full_eta0_scale1", "leading", 0.0, 1.0),
    ],
)
@torch.no_grad()
def test_every_state_is_the_authors(told, case, spacing, eta, scale):
    model, condition, stored = told
    visited = timesteps(5, spacing)
    noises = stored["step_noise"]
    steps = list(
        sample(
            lambda x, t: denoise(model, x, t, condition, scale),
            model.schedule,
            stored["x_T"],
            visited,
            Sampler(method="ddim", eta=eta),
            lambda number: noises[number],
        )
    )
    tolerance = 1e-3 * float(stored[case].std())
    torch.testing.assert_close(steps[-1].latent, stored[case], atol=tolerance, rtol=0)
    if f"{case}_xt" not in stored:
        return  # of some only the last state is kept here
    assert visited.tolist() == stored[f"{case}_t"].tolist()
    for number, step in enumerate(steps):
        for found, key in ((step.latent, "xt"), (step.clean, "x0")):
            wanted = stored[f"{case}_{key}"][number][None]
            torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)

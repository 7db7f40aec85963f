import dataclasses

import pytest
import torch
from torch.nn import functional

from unflat.fields.detail import DetailField, DetailSheets
from unflat.rendering.backends import use
from unflat.rendering.render import render_rays
from unflat.systems.vq3d.autoencoder import build
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.detail_recipe import DetailLoss, DetailRecipe
from unflat.systems.vq3d.pipeline import token_field
from unflat.systems.vq3d.surface import hidden_sheet


def batch(count: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """A bright box before a floor that rises, each at another place."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 + 0.2 * torch.rand(count, 3, 32, 32, generator=generator)
    disparity = torch.linspace(0, 0.6, 32)[:, None].expand(count, 1, 32, 32).clone()
    corners = torch.randint(4, 16, (count, 2), generator=generator)
    for number, (top, left) in enumerate(corners.tolist()):
        image[number, :, top : top + 10, left : left + 10] = 0.9
        disparity[number, :, top : top + 10, left : left + 10] = 1.0
    return {
        "image": image,
        "disparity": disparity,
        "has_disparity": torch.ones(count, dtype=torch.bool),
        "position": torch.arange(count),
        "batch_size": torch.tensor(count),
    }


def recipe(**loss: float) -> DetailRecipe:
    torch.manual_seed(0)
    return DetailRecipe(build(tiny()), DetailLoss(**loss))


def test_only_the_refiner_learns():
    made = recipe()
    made.step(batch(), 0.5, torch.Generator().manual_seed(0))["loss"].backward()
    touched = {
        name.split(".")[0]
        for name, weight in made.model.named_parameters()
        if weight.grad is not None and bool(weight.grad.any())
    }
    assert touched == {"refiner"}
    named = {id(w) for group in made.parameter_groups() for w in group["params"]}
    assert named == {id(w) for w in made.refiner.parameters()}


def test_the_sheets_alone_are_the_field_where_nothing_is_behind():
    """Rays that end at the first or the second sheet see the same in both."""
    made, pictures = recipe(), batch(2)
    encoded = made.model.encode(pictures["image"])
    photo, disparity = pictures["image"], pictures["disparity"]
    soft = torch.full_like(disparity, 0.01)
    hidden = hidden_sheet(disparity, photo)
    base = token_field(made.model, encoded)
    whole = DetailField(base, photo, disparity, soft, hidden)
    sheets = DetailSheets(photo, disparity, soft, hidden, base.frame)
    u = torch.linspace(-0.8, 0.8, 12)
    ends = torch.stack([u, u.flip(0), torch.ones_like(u)], dim=-1) / base.frame.focal_assumed
    ends[:, 2] = 1
    directions = functional.normalize(ends, dim=-1).expand(2, -1, -1)
    origins = torch.zeros_like(directions)
    edges = (1 / torch.linspace(1.1, 0.09, 200)).expand(2, 12, -1)
    with use("reference"), torch.no_grad():
        one = render_rays(whole, origins, directions, edges)
        other = render_rays(sheets, origins, directions, edges)
    torch.testing.assert_close(one.features, other.features, rtol=0, atol=5e-3)


def test_colors_teach_depth_and_softness():
    """Gradients of the novel views' colors reach both, and no disparity is needed for that."""
    made = recipe(likelihood_weight=0.0)
    pictures = batch()
    terms = made.step(pictures, 0.5, torch.Generator().manual_seed(0))
    terms["novel"].backward()
    kernel = made.refiner.leave.weight.grad  # outputs: (disparity, spread, softness) x 2 x 2
    assert kernel is not None
    parts = kernel.unflatten(0, (3, 4)).abs().amax(dim=(1, 2, 3, 4))
    assert float(parts[0]) > 0
    assert float(parts[2]) > 0
    assert float(parts[1]) == 0  # the expected error has no place in a picture


def test_it_learns_what_shuffled_disparities_do_not_teach():
    def error(shuffled: bool) -> float:
        made = recipe(rays=16, samples=12)
        optimizer = torch.optim.Adam(made.refiner.parameters(), 3e-3)
        for step in range(40):
            pictures = batch(seed=step)
            if shuffled:
                pictures["disparity"] = pictures["disparity"].flip(-2)
            terms = made.step(pictures, 0.5, torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        last = batch(seed=99)
        with torch.no_grad():
            terms = made.step(last, 0.5, torch.Generator().manual_seed(0))
        return float(terms["error"])

    assert error(shuffled=False) < 0.15 < 0.25 < error(shuffled=True)


def test_a_model_without_a_refiner_is_refused():
    with pytest.raises(ValueError, match="no refiner"):
        DetailRecipe(build(dataclasses.replace(tiny(), refiner_width=0)))

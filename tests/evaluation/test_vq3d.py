from dataclasses import replace

import pytest
import torch

from unflat.evaluation import Alignment, Reconstruction, Reconstructor, evaluate_reconstructor
from unflat.evaluation.vq3d import Vq3dReconstructor, options_for
from unflat.geometry.camera import Camera
from unflat.geometry.projective import Frame
from unflat.metrics import psnr
from unflat.systems.vq3d.autoencoder import build
from unflat.systems.vq3d.config import tiny


@pytest.fixture(scope="module")
def reconstructor():
    """An untrained model whose colours already follow the picture (the linear code)."""
    torch.manual_seed(0)
    model = build(replace(tiny(), encoder_width=32))
    model.start_from_patches(pictures(64))
    return Vq3dReconstructor(model, "untrained", samples=48)


def pictures(count, side=32):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, side, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("mode", ["tokens", "detail"])
def test_it_keeps_the_protocol(reconstructor, mode):
    assert isinstance(reconstructor, Reconstructor)
    made = reconstructor.reconstruct(pictures(2), pictures(2, 40), mode)
    assert isinstance(made, Reconstruction)
    assert made.image.shape == (2, 3, 40, 40)
    assert made.disparity.shape == (2, 40, 40)
    assert made.termination_variance.shape == (2,)
    frame = reconstructor.model.frame
    # half of the farthest and 1.3 of the nearest are the ends of every ray
    assert (made.disparity > 0.5 * frame.d_far).all()
    assert (made.disparity < 1.3 * frame.d_near).all()
    if mode == "detail":
        assert psnr(made.image, pictures(2, 40)).min() > 30
    assert reconstructor.describe()["samples"] == 48


@pytest.mark.parametrize("mode", ["tokens", "detail"])
@pytest.mark.parametrize("alignment", [(1.0, 0.0, 1.07), (0.4, 0.05, 0.8), (3.0, -0.2, 1.5)])
def test_the_canonical_view_is_the_same_under_every_alignment(reconstructor, alignment, mode):
    """Scale, shift and focal length move cameras and depths, never the picture itself."""
    made = reconstructor.reconstruct(pictures(1), pictures(1), mode)
    focal = alignment[2]
    here = Camera(
        camera_to_world=torch.eye(4)[None], intrinsics=torch.tensor([[focal, focal, 0.5, 0.5]])
    )
    view = made.render(0, Alignment(*alignment), here)
    assert psnr(view, made.image).item() > 35  # other intervals, hence not equal
    moved = torch.eye(4)[None].clone()
    moved[0, 0, 3] = 0.5 * alignment[0]
    away = Camera(camera_to_world=moved, intrinsics=here.intrinsics)
    assert psnr(made.render(0, Alignment(*alignment), away), made.image).item() < 30


def test_the_range_of_rays_holds_the_scene():
    for a, b in ((1.0, 0.0), (0.3, 0.05), (2.0, 0.3), (2.0, -0.4)):
        frame = Frame(a=a, b=b)
        options = options_for(frame, 32)
        assert options.near < frame.true_depth(torch.tensor(1 / frame.d_near)).item()
        if b < frame.d_far:
            assert options.far > frame.true_depth(torch.tensor(1 / frame.d_far)).item()
        assert options.far <= 1001 * options.near


def test_an_untrained_model_can_be_evaluated(reconstructor, scenes_folder, photos_tar):
    small = Vq3dReconstructor(reconstructor.model, "untrained", samples=8)
    result = evaluate_reconstructor(small, [scenes_folder], photos=photos_tar, limit=1)
    tokens = result.figures["tokens"]
    assert result.figures["detail"]["canonical_psnr"] > tokens["canonical_psnr"]
    assert tokens["canonical_psnr"] > result.figures["mean-color"]["canonical_psnr"]
    assert 0 < tokens["code_usage"] < 1
    assert result.protocol["model"]["samples"] == 8

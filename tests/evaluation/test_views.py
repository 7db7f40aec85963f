import pytest
import torch

from unflat.data.posed import PosedScenes
from unflat.errors import UserError
from unflat.evaluation.views import canonical_of, novel_of, scene_at


def test_files_and_closed_form_agree_in_the_canonical_frame(scenes_folder, analytic_scenes):
    """The readers' conventions against pictures that were made from a formula."""
    for scene, truth in zip(PosedScenes(scenes_folder), analytic_scenes, strict=True):
        scene = scene.in_canonical_frame()
        cameras = truth.cameras()
        pictures, depths = truth.see(cameras, 48)
        assert (scene.images - pictures).abs().max() < 0.51 / 255
        assert (scene.inverse_depth - depths).abs().max() < 4 / 65535
        assert (depths[0] == 0).any()  # sky
        torch.testing.assert_close(
            scene.camera.camera_to_world, cameras.camera_to_world, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(novel_of(scene.camera).intrinsics, cameras.intrinsics[1:])
        assert canonical_of(scene.camera).batch_shape == (1,)


def test_a_smaller_side_is_the_mean_of_blocks(scenes_folder):
    scene = PosedScenes(scenes_folder)[0]
    half = scene_at(scene, 24)
    blocks = scene.images.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
    torch.testing.assert_close(half.images, blocks)
    blocks = scene.inverse_depth.unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(-1, -2))
    torch.testing.assert_close(half.inverse_depth, blocks)
    with pytest.raises(UserError, match="at most 48"):
        scene_at(scene, 64)

"""The larger sets, where this machine has them."""

import torch

from unflat.data.dataset import PictureDataset
from unflat.data.posed import PosedScenes


def test_photos(data_folder):
    dataset = PictureDataset(data_folder / "photos-val.tar", 64)
    assert dataset.rejects == []
    assert dataset.counts["pictures"] == 750
    assert len(dataset.classes) == 15
    assert {value for key, value in dataset.counts.items() if key.startswith("class ")} == {50}


def test_posed_scenes_project_onto_each_other(data_folder):
    scenes = PosedScenes(data_folder / "scenes-val.tar", limit=9)
    assert len(scenes) == 9
    for scene in scenes:
        assert scene.images.shape == (9, 3, 128, 128)
        assert (scene.angle_deg[-2:] - 30.0).abs().max() < 1e-3
        uv, depth = scene.camera[0].project(scene.pivot[None])
        torch.testing.assert_close(uv, torch.full_like(uv, 0.5), atol=1e-4, rtol=0)
        assert abs(float(depth) - scene.median_depth) < 1e-3
    assert scenes.rejects == []

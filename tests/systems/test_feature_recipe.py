import io
import math
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from unflat.data import PictureDataset
from unflat.errors import UserError
from unflat.systems.features import Config, FeatureRecipe, calibrated, load, nt_xent
from unflat.training import Recipe, save_model

TINY = Config(widths=(8, 8, 8, 16, 16), classes=2, resolution=32, window=24)


def batch(count, seed=0):
    """Stripes and checks of many colors: two classes, disparity from top to bottom."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(count, 2, 3, 1, 1, generator=generator)
    line = (torch.arange(32) // 4 % 2).float()
    stripes = line.expand(32, 32)
    checks = (stripes + stripes.T) % 2
    labels = torch.arange(count) % 2
    which = torch.where((labels == 0)[:, None, None], stripes, checks)[:, None]
    images = colors[:, 0] * which + colors[:, 1] * (1 - which)
    ramp = torch.linspace(0, 1, 32)[:, None].expand(count, 1, 32, 32)
    has = torch.arange(count) % 3 != 0
    return {"image": images, "disparity": ramp, "has_disparity": has, "label": labels}


def test_nt_xent_is_the_papers_sum():
    """Equation 1 of SimCLR as loops, in float64."""
    vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    total = 0.0
    for i in range(8):
        j = (i + 4) % 8
        below = sum(math.exp(unit[i] @ unit[k] / 0.3) for k in range(8) if k != i)
        total -= math.log(math.exp(unit[i] @ unit[j] / 0.3) / below)
    assert nt_xent(vectors, 0.3).item() == pytest.approx(total / 8, rel=1e-9)


def test_terms_add_up_and_labels_and_disparities_that_are_missing_do_not_count():
    torch.manual_seed(0)
    recipe = FeatureRecipe(TINY)
    assert isinstance(recipe, Recipe)
    data = batch(6)
    full = recipe.step(data, 0.0, torch.Generator().manual_seed(1))
    expected = full["instance"] + full["class"] + 4 * full["depth"]
    torch.testing.assert_close(full["loss"], expected)
    changed = dict(data, label=torch.where(data["label"] == 1, -1, 0))
    changed["disparity"] = torch.where(
        data["has_disparity"][:, None, None, None], data["disparity"], torch.tensor(9.0)
    )
    partly = recipe.step(changed, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(partly["depth"], full["depth"])
    torch.testing.assert_close(partly["instance"], full["instance"])
    assert partly["class"] != full["class"]
    none = dict(data, label=torch.full((6,), -1), has_disparity=torch.zeros(6, dtype=torch.bool))
    alone = recipe.step(none, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(alone["loss"], alone["instance"])
    assert recipe.sample(data).shape == (3, 48, 6 * 24)


def test_it_learns_to_find_partners_classes_and_depth():
    torch.manual_seed(0)
    recipe = FeatureRecipe(TINY)
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=3e-3)

    def terms(seed):
        with torch.no_grad():
            return recipe.step(batch(24, seed), 0.0, torch.Generator().manual_seed(seed))

    before = terms(1000)
    for step in range(80):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        recipe.step(batch(24, step), step / 80, generator)["loss"].backward()
        optimizer.step()
    after = terms(1000)  # colors that were not seen
    assert before["instance"] > 3.7  # chance: ln 47 = 3.85
    assert after["instance"] < 3.4
    assert before["class"] > 0.65  # chance: ln 2 = 0.69
    assert after["class"] < 0.58
    assert after["depth"] < 0.3 * before["depth"]


def test_the_file_keeps_the_vectors(tmp_path):
    torch.manual_seed(0)
    recipe = FeatureRecipe(TINY)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(batch(12)["image"]):
        pixels = (image * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{number}.png")
    dataset = PictureDataset(folder, 32)
    network = calibrated(recipe.networks.state_dict(), TINY.widths, [dataset])
    images = dataset.batch(range(12))["image"]
    with torch.no_grad():
        torch.testing.assert_close(network(images).mean(0), torch.zeros(56), atol=1e-4, rtol=0)
        save_model(tmp_path / "f.safetensors", network, recipe.config_json(), dtype="int8")
        again = load(tmp_path / "f.safetensors")
        difference = (again(images) - network(images)).norm() / network(images).norm()
    assert difference < 0.02
    save_model(tmp_path / "other.safetensors", network, {"system": "vq3d", "config": {}})
    with pytest.raises(UserError, match="is a model of vq3d, not a feature network"):
        load(tmp_path / "other.safetensors")


def picture(value):
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        {
            "train/a/rgb/000000.png": picture(10),
            "train/a/pose/000000.txt": b"1 0 0 0",
            "train/a/intrinsics.txt": b"",
            "val/b/rgb/000000.png": picture(200),
            "test/c/rgb/000000.png": picture(250),
        },
        {
            "a/000.png": picture(10),
            "a/000.npy": b"",
            "b/000.png": picture(200),
            "train.txt": b"a\n",
            "val.txt": b"b\n",
            "valid_paths.json": b"[]",
        },
    ],
    ids=["srn", "objaverse"],
)
def test_only_the_train_split_of_posed_objects_is_trained_on(tmp_path, members):
    path = tmp_path / "cars-srn.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    dataset = PictureDataset(path, 16)
    assert len(dataset) == 1
    assert dataset.batch([0])["image"].max() < 0.1

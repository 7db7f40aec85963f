import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from published_networks import hashed_heads, hashed_pictures, hashed_state, published_output
from unflat.errors import UserError
from unflat.evaluation.networks import open_features, open_lpips
from unflat.hub import FID_FILE
from unflat.metrics import Features, InceptionFeatures, Lpips, TransformersFeatures
from unflat.nn import AlexNet, FidInception, Vgg16, published_shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files as a person would have them, of seeded weights."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(hashed_state(published_shapes(FidInception)), folder / "inception.safetensors")
    torch.save(hashed_state(published_shapes(Vgg16)), folder / "vgg16.pth")
    torch.save(hashed_state(published_shapes(AlexNet)), folder / "alexnet.pth")
    torch.save(hashed_heads(Vgg16.channels), folder / "vgg.pth")
    torch.save(hashed_heads(AlexNet.channels), folder / "alex.pth")
    return folder


def paths(folder, *names):
    return [folder / name for name in names]


def test_fids_inception_opens_by_its_path(folder):
    features = open_features(str(folder / "inception.safetensors"), offline=True)
    assert isinstance(features, InceptionFeatures)
    assert isinstance(features, Features)
    vectors = features(hashed_pictures(2, 40, 56))
    expected = torch.tensor(published_output("inception")["features_every_8th"])
    torch.testing.assert_close(vectors[:, ::8], expected, rtol=1e-4, atol=1e-4)
    assert len(features.describe()["sha256"]) == 64


def test_a_folder_opens_under_its_name_and_hash(tmp_path, monkeypatch):
    folder = tmp_path / "DINOv2-tiny"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    asked = {}

    def open_folder(path, **given):
        asked.update(given, path=path)
        return InceptionFeatures(FidInception(), sha256="0")

    monkeypatch.setattr(TransformersFeatures, "open_folder", open_folder)
    open_features(str(folder), device="cpu", offline=True)
    digest = hashlib.sha256(b"weights").hexdigest()
    assert asked == {"path": folder, "name": "dinov2-tiny", "sha256": digest, "device": "cpu"}


def test_both_lpips_open_from_files_in_any_order(folder):
    opened = open_lpips(paths(folder, "alex.pth", "vgg16.pth", "vgg.pth", "alexnet.pth"))
    assert list(opened) == ["lpips-vgg", "lpips-alex"]
    images, references = hashed_pictures(3, 64, 48), hashed_pictures(3, 64, 48, seed=8).flip(0)
    for name, lpips in opened.items():
        assert isinstance(lpips, Lpips)
        expected = torch.tensor(published_output(name.removeprefix("lpips-"))["values"])
        torch.testing.assert_close(lpips(images, references), expected, rtol=1e-4, atol=1e-6)
        said = lpips.describe()
        assert said["name"] == name
        assert len({said["sha256_trunk"], said["sha256_heads"]}) == 2


def test_one_lpips_opens_alone_and_none_from_nothing(folder):
    assert list(open_lpips(paths(folder, "alexnet.pth", "alex.pth"))) == ["lpips-alex"]
    assert open_lpips([]) == {}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["alexnet.pth"], r"alexnet\.pth: LPIPS needs its heads too; give alex\.pth of lpips 0\.1"),
        (["vgg.pth"], r"vgg\.pth: LPIPS needs the network too; give torchvision's vgg16"),
        (["alexnet.pth", "vgg.pth"], "needs the network too"),
        (["alex.pth", "alexnet.pth", "alex.pth"], r"holds lpips-alex-heads, as .* does; give one"),
        (["inception.safetensors"], "holds inception-fid, which LPIPS does not use; leave it out"),
        (["absent.pth"], "there is no such file"),
    ],
)
def test_what_does_not_make_an_lpips_is_said(folder, names, said):
    with pytest.raises(UserError, match=said):
        open_lpips(paths(folder, *names))


def test_negative_heads_are_a_persons_mistake(folder, tmp_path):
    heads = hashed_heads(AlexNet.channels)
    torch.save({name: -value for name, value in heads.items()}, tmp_path / "alex.pth")
    with pytest.raises(UserError, match=r"negatively; give those of lpips 0\.1"):
        open_lpips([folder / "alexnet.pth", tmp_path / "alex.pth"])


def test_another_network_never_steps_in(folder, tmp_path):
    with pytest.raises(UserError, match=f"holds alexnet; give {FID_FILE} to measure FID"):
        open_features(str(folder / "alexnet.pth"))
    with pytest.raises(UserError, match="there is no such file or folder"):
        open_features("inceptoin.pth", offline=True)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"holds a model of type vit|needs the diffusion extra"):
        open_features(str(tmp_path), offline=True)

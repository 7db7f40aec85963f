import hashlib

import pytest
import torch
from safetensors.torch import save_file

from published_networks import hashed_heads, hashed_state
from unflat.errors import UserError
from unflat.hub import FID_FILE, read_weight_file
from unflat.nn import AlexNet, FidInception, Vgg16, published_shapes

CLASSIFIER = {"classifier.6.weight": (1000, 4096), "classifier.6.bias": (1000,)}
SHAPES = {
    "inception-fid": published_shapes(FidInception),
    "vgg16": {**published_shapes(Vgg16), **CLASSIFIER},
    "alexnet": {**published_shapes(AlexNet), **CLASSIFIER},
    "lpips-vgg-heads": {name: x.shape for name, x in hashed_heads(Vgg16.channels).items()},
    "lpips-alex-heads": {name: x.shape for name, x in hashed_heads(AlexNet.channels).items()},
}


def light(shapes):
    """Tensors of the given shapes that take a few bytes on disk."""
    return {name: torch.full((1,), 0.5).expand(*shape) for name, shape in shapes.items()}


def refused(path, *said):
    with pytest.raises(UserError) as caught:
        read_weight_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    for part in said:
        assert part in message


@pytest.mark.parametrize("kind", SHAPES)
def test_a_file_is_known_by_what_is_in_it(tmp_path, kind):
    path = tmp_path / "downloaded.pth"
    torch.save(light(SHAPES[kind]), path)
    file = read_weight_file(path)
    assert file.kind == kind
    assert file.path == path
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not file.is_published
    assert {name: value.shape for name, value in file.state.items()} == {
        name: torch.Size(shape) for name, shape in SHAPES[kind].items()
    }


def test_a_state_in_a_checkpoint_and_counters_of_norms_do_no_harm(tmp_path):
    state = light(SHAPES["inception-fid"])
    state["Mixed_5b.branch1x1.bn.num_batches_tracked"] = torch.tensor(3)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    assert read_weight_file(tmp_path / "a.pth").kind == "inception-fid"


def test_safetensors_hold_the_same(tmp_path):
    state = hashed_heads(AlexNet.channels)
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    first, second = (read_weight_file(tmp_path / f"a.{end}") for end in ("safetensors", "pth"))
    assert first.kind == second.kind == "lpips-alex-heads"
    assert first.sha256 != second.sha256
    for name, value in state.items():
        assert torch.equal(first.state[name], value)
        assert torch.equal(second.state[name], value)


def test_published_hashes_are_recognized(tmp_path, monkeypatch):
    path = tmp_path / "vgg.pth"
    torch.save(hashed_heads(Vgg16.channels), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr("unflat.hub.weight_files._PUBLISHED", (digest[:8],))
    assert read_weight_file(path).is_published


def test_heads_come_as_vectors(tmp_path):
    state = {name: value.half() for name, value in hashed_heads(Vgg16.channels).items()}
    torch.save(state, tmp_path / "vgg.pth")
    heads = read_weight_file(tmp_path / "vgg.pth").heads()
    assert [len(head) for head in heads] == list(Vgg16.channels)
    assert all(head.dtype == torch.float32 for head in heads)
    assert torch.equal(heads[3], state["lin3.model.1.weight"].float()[0, :, 0, 0])
    torch.save(light(SHAPES["alexnet"]), tmp_path / "alexnet.pth")
    with pytest.raises(ValueError, match="holds alexnet, no heads"):
        read_weight_file(tmp_path / "alexnet.pth").heads()


def test_torchvisions_inception_has_its_own_sentence(tmp_path):
    shapes = {**SHAPES["inception-fid"], "fc.weight": (1000, 2048), "fc.bias": (1000,)}
    shapes["AuxLogits.fc.weight"] = (1000, 768)
    torch.save(light(shapes), tmp_path / "inception_v3_google-0cc3c7bd.pth")
    path = tmp_path / "inception_v3_google-0cc3c7bd.pth"
    refused(path, "torchvision's Inception (1000 classes)", "not FID's", FID_FILE)


def test_half_an_inception_has_its_own_sentence(tmp_path):
    shapes = {name: shape for name, shape in SHAPES["inception-fid"].items() if "fc" not in name}
    torch.save(light(shapes), tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "a part of an Inception", FID_FILE)


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"weight": (3, 3)},
        {**SHAPES["vgg16"], "features.0.weight": (64, 3, 5, 5)},
        {**SHAPES["lpips-vgg-heads"], "lin5.model.1.weight": (1, 512, 1, 1)},
    ],
)
def test_other_weights_are_refused(tmp_path, shapes):
    torch.save(light(shapes), tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "no network that is known here", FID_FILE, "vgg16")


def test_old_heads_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "vgg.pth"
    torch.save(hashed_heads(Vgg16.channels), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr("unflat.hub.weight_files._OLD_HEADS", (digest,))
    refused(path, "lpips 0.0", "give those of 0.1")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    state = hashed_heads(Vgg16.channels)
    state["lin2.model.1.weight"][0, 7] = float("nan")
    torch.save(state, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "lin2.model.1.weight holds NaN", "download")


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def test_code_is_never_run(tmp_path):
    torch.save({"a": Harmful()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "not a whole file of plain weights", "download")


def test_torchscript_is_named(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "inception-2015-12-05.pt", "w") as archive:
        archive.writestr("inception/code/__torch__.py", "pass")
        archive.writestr("inception/data.pkl", "")
    refused(tmp_path / "inception-2015-12-05.pt", "holds code (TorchScript)", FID_FILE)


def test_missing_and_damaged_files_are_refused(tmp_path):
    refused(tmp_path / "nothing.pth", "there is no such file", FID_FILE)
    refused(tmp_path, "there is no such file")
    torch.save(hashed_state({"a": (64, 64)}), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    for name, part in (("half.pth", content[: len(content) // 2]), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(part)
        refused(tmp_path / name, "not a whole file of plain weights")
    (tmp_path / "a.safetensors").write_bytes(b"no weights")
    refused(tmp_path / "a.safetensors", "not a whole safetensors file")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "no named weights")

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from unflat.data import PictureDataset
from unflat.errors import UserError
from unflat.systems.vq3d import Autoencoder, tokens
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.tokens import TokenDataset, extract_tokens, fingerprint
from unflat.training import load_weights, save_model


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    torch.manual_seed(0)
    network = Autoencoder(tiny()).eval()
    network.start_from_patches(torch.rand(40, 3, 32, 32))
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven smooth pictures of two classes, 36 px."""
    generator = np.random.default_rng(0)
    for number in range(7):
        place = tmp_path / "pictures" / ("cat" if number % 3 else "dog") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(generator.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        small.resize((36, 36), Image.Resampling.BICUBIC).save(place)
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_PICTURES", 3)
    monkeypatch.setattr(tokens, "_BATCH", 2)


def taken(model: Autoencoder, folder: Path, out: Path, margin: int = 0, **options) -> TokenDataset:
    data = [PictureDataset(folder, 32, margin=margin)]
    return extract_tokens(model, data, out, autoencoder="tiny", **options)


def test_tokens_are_those_of_the_pictures_and_of_their_mirror_images(model, folder, tmp_path):
    found = taken(model, folder, tmp_path / "tokens")
    data = PictureDataset(folder, 32)
    assert len(found) == 14
    assert found.classes == data.classes == ["cat", "dog"]
    images = data.batch(range(7))["image"]
    for place, flipped in enumerate(found.flipped):
        image = images[place // 2].flip(-1) if flipped else images[place // 2]
        with torch.no_grad():
            expected = model.encode(image[None]).quantized.indices[0]
        assert np.array_equal(found.indices[place], expected.numpy())
        assert found.labels[place] == data.labels[place // 2]
    assert found.flipped.tolist() == [False, True] * 7
    batch = found.batch([3, 0])
    assert batch["indices"].dtype == torch.int64
    assert np.array_equal(batch["indices"].numpy(), found.indices[[3, 0]])
    assert batch["label"].tolist() == found.labels[[3, 0]].tolist()


def test_random_windows_begin_with_the_middle_one(model, folder, tmp_path):
    many = taken(model, folder, tmp_path / "many", margin=4, crops=3, seed=5)
    assert len(many) == 7 * 3 * 2
    assert many.flipped.tolist() == [False, True] * 21
    middle = taken(model, folder, tmp_path / "one", margin=4)
    assert np.array_equal(
        many.indices.reshape(7, 3, 2, 16, 4)[:, 0].reshape(14, 16, 4), middle.indices
    )
    windows = many.indices.reshape(7, 3, -1)
    assert any(not np.array_equal(picture[1], picture[2]) for picture in windows)
    again = taken(model, folder, tmp_path / "again", margin=4, crops=3, seed=5)
    assert np.array_equal(many.indices, again.indices)
    with pytest.raises(UserError, match="--crops 2: needs a --margin"):
        taken(model, folder, tmp_path / "none", crops=2)
    with pytest.raises(UserError, match="--crops 0: must be at least 1"):
        taken(model, folder, tmp_path / "none", crops=0)


def test_an_extraction_that_was_cut_goes_on(model, folder, tmp_path, monkeypatch):
    whole = taken(model, folder, tmp_path / "whole")
    cut = tmp_path / "cut"

    def broken(*arguments):
        if (cut / "00001.safetensors").exists():
            raise KeyboardInterrupt
        return plain(*arguments)

    plain = tokens._shard
    monkeypatch.setattr(tokens, "_shard", broken)
    with pytest.raises(KeyboardInterrupt):
        taken(model, folder, cut)
    assert sorted(path.name for path in cut.iterdir()) == [
        *("00000.safetensors", "00001.safetensors", "tokens.json")
    ]
    with pytest.raises(UserError, match="its tokens are not whole; run the same command again"):
        TokenDataset(cut)

    made = []
    monkeypatch.setattr(tokens, "_shard", lambda *a: made.append(len(a[3])) or plain(*a))
    (cut / "00001.safetensors").write_bytes(b"half a file")
    found = taken(model, folder, cut)
    assert made == [3, 1], "the first shard stays"
    assert np.array_equal(found.indices, whole.indices)
    assert np.array_equal(found.labels, whole.labels)
    taken(model, folder, cut)
    assert made == [3, 1], "nothing is left to do"


def test_other_tokens_are_not_overwritten(model, folder, tmp_path):
    out = tmp_path / "tokens"
    taken(model, folder, out, margin=4)
    with pytest.raises(
        UserError, match=r"holds other tokens than these \(the seeds differ\); choose"
    ):
        taken(model, folder, out, margin=4, seed=1)
    with pytest.raises(UserError, match="the margins differ"):
        taken(model, folder, out)
    (folder / "cat" / "1.png").unlink()
    with pytest.raises(UserError, match="the pictures differ"):
        taken(model, folder, out, margin=4)
    with pytest.raises(UserError, match="holds something else already"):
        taken(model, folder, folder)


def test_the_fingerprint_is_the_tokenizers_alone(model, tmp_path):
    mark = fingerprint(model)
    changed = Autoencoder(tiny())
    changed.load_state_dict(model.state_dict())
    assert fingerprint(changed) == mark
    with torch.no_grad():
        changed.from_code.weight.add_(1.0)
        changed.decoder.blocks[0].mlp[0].weight.zero_()
        if changed.skip_out is not None:
            changed.skip_out.bias.add_(1.0)
    assert fingerprint(changed) == mark, "a retrained decoder keeps its tokens"
    for name in ("embed.bias", "encoder_positions", "encoder.norm.weight", "to_code.weight"):
        changed.load_state_dict(model.state_dict())
        with torch.no_grad():
            changed.state_dict()[name].flatten()[0].add_(0.5)
        assert fingerprint(changed) != mark, name


def test_a_saved_model_keeps_its_fingerprint(model, tmp_path):
    path, header = tmp_path / "a.safetensors", {"system": "vq3d"}
    network = Autoencoder(tiny())
    save_model(path, model, header, dtype="int8")
    network.load_state_dict(load_weights(path)[0])
    mark = fingerprint(network)
    for _ in range(2):
        save_model(path, network, header, dtype="int8")
        network.load_state_dict(load_weights(path)[0])
        assert fingerprint(network) == mark


def test_tokens_of_another_tokenizer_are_refused(model, folder, tmp_path):
    mine = taken(model, folder, tmp_path / "mine")
    torch.manual_seed(1)
    other = Autoencoder(tiny())
    theirs = taken(other, folder, tmp_path / "theirs")
    with pytest.raises(UserError, match="are of another tokenizer than those of"):
        theirs.require_like(mine)
    tokens.require_same_tokenizer(mine.fingerprint, model, "prior", "tiny")
    with pytest.raises(UserError, match="prior: was trained on the tokens of another model than x"):
        tokens.require_same_tokenizer(mine.fingerprint, other, "prior", "x")
    plain = Autoencoder(dataclasses.replace(tiny(), quantizer="none"))
    with pytest.raises(UserError, match="has no quantiser, so it has no tokens"):
        taken(plain, folder, tmp_path / "none")


def test_labels_follow_the_names_of_the_tokens_that_are_learned_from(model, folder, tmp_path):
    both = taken(model, folder, tmp_path / "both")
    dogs = taken(model, folder / "dog", tmp_path / "dogs")
    assert dogs.classes == []
    assert set(dogs.labels.tolist()) == {-1}
    dogs.require_like(both)
    assert set(dogs.labels.tolist()) == {-1}

    data = [PictureDataset(folder, 32, classes=["dog"])]
    dogs = extract_tokens(model, data, tmp_path / "only", autoencoder="tiny")
    assert set(dogs.labels.tolist()) == {0}
    dogs.require_like(both)
    assert set(dogs.labels.tolist()) == {1}
    assert dogs.classes == ["cat", "dog"]
    with pytest.raises(UserError, match=r"has the class cat, which .* has not"):
        both.require_like(extract_tokens(model, data, tmp_path / "only", autoencoder="tiny"))


def test_pictures_of_tokens_are_those_of_the_model(model, folder):
    image = PictureDataset(folder, 32).batch([0, 3])["image"]
    with torch.no_grad():
        encoded = model.encode(image).quantized
        field = model.field(model.decode(encoded.tokens))
        expected = tokens.render_canonical(field, 32)[0].clamp(0, 1)
    found = tokens.canonical_pictures(model, encoded.indices)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_damaged_tokens_are_refused(model, folder, tmp_path):
    out = tmp_path / "tokens"
    taken(model, folder, out)
    shard = out / "00000.safetensors"
    kept = load_file(shard)
    wrong = kept | {"indices": np.full_like(kept["indices"], 60000)}
    save_file(wrong, shard)
    with pytest.raises(UserError, match=r"holds other tokens than tokens\.json says"):
        TokenDataset(out)
    shard.unlink()
    with pytest.raises(UserError, match="is missing or damaged; extract the tokens again"):
        TokenDataset(out)
    header = json.loads((out / "tokens.json").read_text())
    (out / "tokens.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(UserError, match="written by a newer unflat"):
        TokenDataset(out)
    (out / "tokens.json").write_text("{")
    with pytest.raises(UserError, match="is not readable; extract the tokens again"):
        TokenDataset(out)
    with pytest.raises(UserError, match="holds no tokens; give a folder that unflat data tokens"):
        TokenDataset(tmp_path)

"""Every registered model keeps the promises of a model."""

import hashlib
from pathlib import Path

import pytest

from unflat.errors import UserError
from unflat.hub import MODELS, SECTIONS, draft_card, find, is_here, read_card
from unflat.hub.card import FRONT_MATTER

BUNDLED_LIMIT_MB = 8


def headings(card: str) -> list[str]:
    return [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]


@pytest.mark.parametrize("name", MODELS)
def test_a_card_has_every_section_filled(name: str) -> None:
    card = read_card(name)
    assert headings(card) == list(SECTIONS)
    front = card.split("---")[1]
    assert [line.split(":")[0] for line in front.strip().splitlines()] == list(FRONT_MATTER)
    for part in card.split("## ")[1:]:
        assert len(part.split("\n", 1)[1].strip()) > 10, f"{part.splitlines()[0]} is empty"


@pytest.mark.parametrize("name", MODELS)
def test_bundled_weights_are_small_and_whole(name: str) -> None:
    from unflat.training import load_weights

    assert is_here(name)
    path = find(name)
    assert path.stat().st_size <= BUNDLED_LIMIT_MB * 2**20
    weights, header = load_weights(path)
    assert header["system"] == MODELS[name].system
    assert all(value.isfinite().all() for value in weights.values())
    assert MODELS[name].size_mb == pytest.approx(path.stat().st_size / 1e6, abs=0.1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in read_card(name), "the weights changed: measure again and update the card"


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"vq3d-smal: there is no such model; did you mean vq3d-sm"):
        find("vq3d-smal")
    with pytest.raises(UserError, match=r"there is no such model; see unflat models list"):
        find("qqqq")
    with pytest.raises(UserError, match=r"runs/x.safetensors: there is no such model file; check"):
        find("runs/x.safetensors")


def test_a_path_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vq3d-small").write_bytes(b"mine")
    assert find("vq3d-small") == Path("vq3d-small")


def test_a_run_stands_for_the_model_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model.safetensors; give"):
        find(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find(tmp_path) == tmp_path / "model.safetensors"


def test_weights_that_are_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unflat.hub.registry._BUNDLED", tmp_path)
    with pytest.raises(UserError, match=r"not in this installation and --offline is set; install"):
        find("vq3d-small", offline=True)


def test_a_trained_model_gets_a_card_with_the_blanks_marked() -> None:
    report = {
        "settings": {"batch_size": 8},
        "seconds": {"train": 3.0},
        "figures": {"steps": 5},
        "inputs": ["a.tar"],
        "seed": 0,
    }
    card = draft_card("a", {"Use": "look at it"}, report, "9 pictures")
    assert headings(card) == list(SECTIONS)
    assert "fill this in" in card
    assert "5 steps of 8 pictures, seed 0" in card

"""Pictures to tokens to a prior, by commands."""

import json
from pathlib import Path

import pytest
import torch
from command import Run

from unflat.cli.main import main
from unflat.data import write_procedural
from unflat.systems.vq3d.prior import load_prior
from unflat.systems.vq3d.tokens import TokenDataset

TINY = ("--preset", "tiny", "--batch-size", "4", "--threads", "1", "--sample-every", "4")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pictures_become_tokens_and_a_prior(
    unflat: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_procedural(tmp_path / "made", count=6, resolution=32, views=1)
    done = unflat(
        *("data", "tokens", "--data", "made/train.tar", "--model", tiny_model, "--out", "tokens"),
        *("--margin", "4", "--crops", "2"),
    )
    assert done.returncode == 0, done.stderr
    assert "next: unflat train vq3d-prior --tokens tokens" in done.stdout
    tokens = TokenDataset("tokens")
    assert len(tokens) == 6 * 2 * 2

    same = ("train", "vq3d-prior", "--tokens", "tokens", "--val", "tokens", "--out", "run", *TINY)
    done = unflat(*same, "--steps", "8", "--log-every", "4", "--order", "raster")
    assert done.returncode == 0, done.stderr
    report = json.loads(Path("run/report.json").read_text())
    assert report["warnings"] == [], "the model of the tokens is there for the sheets"
    assert 0 < report["figures"]["val_bits"] < 11
    assert len(list(Path("run/samples").iterdir())) == 2
    prior = load_prior("run")
    assert prior.config.order == "raster"
    assert prior.fingerprint == tokens.fingerprint
    drawn = prior.sample(torch.tensor([-1]), torch.Generator().manual_seed(0))
    assert drawn.shape == (1, *tokens.indices.shape[1:])

    done = unflat("train", "--out", "run", "--resume", "--steps", "10")
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("run/report.json").read_text())["figures"]["steps"] == 10
    assert main(["train", "--out", "run", "--resume", "--order", "masked", "--steps", "12"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pictures_can_be_given_instead(unflat: Run, tiny_model: Path, tmp_path: Path) -> None:
    made = write_procedural(tmp_path / "made", count=6, resolution=32, views=1)
    done = unflat(
        *("train", "vq3d-prior", "--data", made.train, "--model", tiny_model, "--out", "run"),
        *(*TINY, "--steps", "2", "--sample-every", "0"),
    )
    assert done.returncode == 0, done.stderr
    assert load_prior(tmp_path / "run").config.order == "masked"
    assert len(TokenDataset(tmp_path / "run-tokens")) == 2 * 6

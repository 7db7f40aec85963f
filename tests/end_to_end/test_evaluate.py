import json
from pathlib import Path

import numpy as np
import pytest
from command import Run, run_in
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Made-up scenes, and pictures of which one is broken."""
    folder = tmp_path_factory.mktemp("evaluate")
    made = run_in(folder)(
        "data", "procedural", "--out", "made", "--count", "8", "--resolution", "32"
    )
    assert made.returncode == 0, made.stderr
    (folder / "pictures").mkdir()
    random = np.random.default_rng(0)
    for number in range(24):
        pixels = Image.fromarray(random.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        pixels.resize((40, 40), Image.Resampling.BICUBIC).save(
            folder / f"pictures/{number:02d}.png"
        )
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def unflat_here(folder: Path) -> Run:
    return run_in(folder)


def test_the_same_seed_gives_the_same_bytes_and_a_page(unflat_here: Run, folder: Path) -> None:
    same = ("evaluate", "depth", "--model", "floor", "--data", "made/val.tar", "--resolution", "32")
    for name in ("a", "b"):
        done = unflat_here(
            *same, "--report", f"{name}.json", "--html", f"{name}.html", "--per-item"
        )
        assert done.returncode == 0, done.stderr
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    report = json.loads((folder / "a.json").read_text())
    assert report["task"] == "depth"
    assert {"files", "seed", "versions", "resolution"} <= set(report["protocol"])
    assert len(report["items"]) == report["protocol"]["scenes"]
    assert "floor" in done.stdout
    assert "scenes/s" in done.stdout
    page = (folder / "a.html").read_text()
    assert "data:image/webp;base64," in page
    assert "http" not in page.replace("http-equiv", "")  # opens without a network
    again = unflat_here(*same, "--report", "a.json")
    assert again.returncode == 2
    assert again.stderr == "a.json: is there already; add --force to replace it.\n"


def test_generation_names_its_network_and_the_broken_picture(
    unflat_here: Run, folder: Path
) -> None:
    done = unflat_here(
        *("evaluate", "generation", "--model", "flat", "--data", "pictures"),
        *("--resolution", "32", "--report", "g.json"),
    )
    assert done.returncode == 3, done.stderr
    assert "broken.png" in done.stdout
    report = json.loads((folder / "g.json").read_text())
    flat = report["figures"]["flat"]
    assert flat["kid-unflat_30"] > flat["kid-unflat_canonical"]
    assert not [key for key in flat if key.startswith(("fid", "kid_"))]
    features = report["protocol"]["features"]
    assert features["name"] == "unflat"
    assert len(features["sha256"]) == 64
    assert [reject["reason"] for reject in report["rejected"]] == [
        "not a picture unflat can read (png, jpg, webp, tif, bmp, avif)"
    ]


def test_objects_stand_beside_cards_and_true_ones(unflat_here: Run, folder: Path) -> None:
    made = unflat_here(
        *("data", "objects", "--out", "carts", "--count", "4", "--resolution", "16"),
        *("--views", "4"),
    )
    assert made.returncode == 0, made.stderr
    done = unflat_here(
        *("evaluate", "objects", "--model", "flat-card", "--data", "carts", "--resolution", "16"),
        *("--objects", "2", "--true-objects", "2", "--report", "o.json", "--html", "o.html"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "o.json").read_text())
    figures = report["figures"]
    assert list(figures)[:3] == ["flat-card", "turning-card", "true objects"]
    assert figures["true objects"]["depth_agreement_15"] > 0.95  # of 16 pixels
    assert figures["flat-card"]["silhouette_iou"] < figures["true objects"]["silhouette_iou"]
    assert figures["mean training picture"]["kid-unflat"] > figures["flat-card"]["kid-unflat"]
    assert report["protocol"]["truth"]["objects"] == 2
    assert "data:image/webp;base64," in (folder / "o.html").read_text()


def test_a_baseline_is_a_method(unflat_here: Run, folder: Path) -> None:
    done = unflat_here(
        *("evaluate", "reconstruction", "--model", "copy", "--data", "made/val.tar"),
        *("--resolution", "32", "--limit", "2", "--report", "c.json"),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((folder / "c.json").read_text())["figures"]
    assert figures["copy"]["canonical_psnr"] == 100
    assert figures["copy"]["novel_psnr"] < figures["true_depth_warp_input"]["novel_psnr"]
    assert figures["copy"]["novel_perceptual-unflat"] > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("depth", "--data", "nowhere.tar"),
            "nowhere.tar: there is no such file or folder; check the spelling.",
        ),
        (
            ("depth", "--data", "pictures"),
            "pictures: holds no posed scene; every scene needs a folder with a meta.json.",
        ),
        (
            ("reconstruction", "--data", "made/val.tar", "--model", "depth-warp"),
            "--model depth-warp: needs --depth, a model's name or a folder of disparities.",
        ),
        (
            ("reconstruction", "--data", "made/val.tar", "--depth", "floor"),
            "--depth floor: is for --model depth-warp; vq3d-small has its own depth or none.",
        ),
        (
            ("reconstruction", "--data", "made/val.tar", "--lpips", "pictures/00.png"),
            "pictures/00.png: ",
        ),
        (
            ("generation", "--data", "pictures", "--features", "inception.pth"),
            "inception.pth: ",
        ),
        (
            ("generation", "--model", "flat", "--data", "pictures", "--limit", "3"),
            "too few pictures to compare: 2 real ones and 1 scenes",
        ),
        (
            ("inversion", "--data", "made/val.tar", "--model", "vq3d-small"),
            "vq3d-small: is a model of vq3d and finds no objects in pictures",
        ),
        (
            ("depth", "--data", "made/val.tar", "--model", "copi", "--dry-run"),
            "copi: there is no such model; see unflat models list (or floor).",
        ),
        (
            ("generation", "--model", "flat", "--data", "pictures", "--mode", "tokens"),
            "--mode tokens: is for models that have several; flat has none.",
        ),
        (
            ("objects", "--data", "made", "--model", "flat-card", "--true-objects", "1"),
            "--true-objects 1: true objects are compared with others; give 2 or more.",
        ),
        (
            ("objects", "--data", "pictures", "--model", "flat-card", "--true-objects", "4"),
            "--true-objects 4: nobody knows those of pictures; leave it out, or give a set of",
        ),
        (
            ("objects", "--data", "pictures", "--model", "flat-card"),
            "pictures: has no splits, but split val was asked for; leave it out.",
        ),
        (
            ("objects", "--data", "pictures", "--model", "turning"),
            "turning: there is no such model; see unflat models list (or flat-card, turning-card).",
        ),
        (
            ("depth", "--data", "made/val.tar", "--limit", "0"),
            "--limit 0: must be at least 1 scenes.",
        ),
    ],
)
def test_a_mistake_gets_one_sentence(unflat_here: Run, words: tuple, sentence: str) -> None:
    done = unflat_here("evaluate", *words)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith(sentence), done.stderr


def test_a_tar_that_was_cut_is_said_to_be(unflat_here: Run, folder: Path) -> None:
    whole = (folder / "made" / "val.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: len(whole) * 2 // 3])
    done = unflat_here(
        *("evaluate", "depth", "--model", "floor", "--data", "cut.tar", "--resolution", "32"),
        *("--report", "cut.json"),
    )
    assert done.returncode == 3, done.stderr
    rejected = json.loads((folder / "cut.json").read_text())["rejected"]
    assert any("cut short" in reject["reason"] for reject in rejected)


def test_disparities_that_are_no_numbers_are_refused(unflat_here: Run, folder: Path) -> None:
    names = [f"{number:04d}" for number in range(20)]
    for kind, shape in (("nan", (32, 32)), ("oblong", (10, 30))):
        (folder / kind).mkdir()
        values = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
        if kind == "nan":
            values[3, 4] = np.nan
        for name in names:
            np.savez(folder / kind / f"{name}.npz", disparity=values)
    same = ("evaluate", "depth", "--data", "made/val.tar", "--resolution", "32", "--model")
    done = unflat_here(*same, "nan")
    assert done.returncode == 2
    assert "its disparity holds NaN or infinity; write 0 for the sky." in done.stderr
    done = unflat_here(*same, "oblong")
    assert done.returncode == 2
    assert "is 30x10, but the pictures are square; give square maps." in done.stderr


def test_the_network_is_trained_by_one_command(unflat_here: Run, folder: Path) -> None:
    arguments = ("--out", "run", "--data", "made/train.tar", "--batch-size", "4", "--threads", "1")
    config = folder / "tiny.json"
    config.write_text('{"config": {"widths": [8, 8, 8, 8, 8], "resolution": 32, "window": 24}}')
    done = unflat_here(
        "train", "features", *arguments, "--config", config, "--steps", "4", "--sample-every", "0"
    )
    assert done.returncode == 0, done.stderr
    done = unflat_here(
        *("evaluate", "generation", "--model", "flat", "--data", "pictures", "--resolution", "32"),
        *("--features", "run/model.safetensors", "--report", "own.json"),
    )
    assert done.returncode == 3, done.stderr
    assert (
        "kid-unflat-run_canonical"
        in json.loads((folder / "own.json").read_text())["figures"]["flat"]
    )

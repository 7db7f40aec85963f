import json
import tarfile

import numpy as np
import pytest
import torch
from made_pictures import add_member, disparity_of, picture_of, png
from PIL import Image

from unflat.cli.main import main
from unflat.data import PictureDataset, ShardSource, normalized_disparity, read_disparity
from unflat.data.depth_writing import FolderTarget, from_maps, write_disparities
from unflat.errors import UserError
from unflat.systems.depth import source as depth_source_module

ROWS = 24


class NearBelow:
    """Rows as disparity, and how often it was asked."""

    def __init__(self, sign=1.0):
        self.sign, self.asked = sign, 0

    def estimate(self, images):
        self.asked += 1
        side = images.shape[-1]
        return self.sign * torch.linspace(0, 1, side)[:, None].expand(1, 1, side, side)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Ten pictures of two classes, one of them with a true disparity, one broken; cwd beside."""
    root = tmp_path / "photos"
    for number in range(10):
        file = root / ["cat", "dog"][number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(picture_of(number, ROWS)))
    np.savez(root / "cat/0.npz", disparity=disparity_of(0))
    (root / "dog/zero.jpg").touch()
    monkeypatch.chdir(tmp_path)
    return root


@pytest.fixture
def teacher(monkeypatch):
    """A depth model by the name of teacher."""
    made = NearBelow()
    monkeypatch.setattr(depth_source_module, "open_estimator", lambda source, **options: made)
    return made


def run(*arguments):
    return main(["data", "depth", *map(str, arguments), "--quiet"])


def test_a_folder_is_completed_and_continued(photos, tmp_path, teacher):
    before = (photos / "cat/0.npz").read_bytes()
    assert run(photos, "--model", "teacher") == 3
    report = json.loads((tmp_path / "photos-depth/report.json").read_text())
    assert report["figures"]["written"] == 9
    assert report["figures"]["kept"] == 1
    assert report["figures"]["floor_correlation"] == pytest.approx(1, abs=0.01)
    assert [failure["reason"] for failure in report["failures"]] == [
        "the file is empty; copy or download it again"
    ]
    assert report["warnings"] == []
    assert (tmp_path / "photos-depth/sheet.png").is_file()
    assert not (photos / "cat/0.disparity.png").exists()
    written = read_disparity((photos / "dog/1.disparity.png").read_bytes(), "a")
    expected = normalized_disparity(np.tile(np.linspace(0, 1, ROWS)[:, None], (1, ROWS)))
    np.testing.assert_allclose(written / 65535, expected, atol=1e-4)
    dataset = PictureDataset(photos, ROWS)
    assert dataset.counts["disparity"] == 10
    assert dataset.batch([1])["disparity"][0, 0, -1].min() == 1, "near is 1, and below"

    (photos / "dog/1.disparity.png").unlink()
    stamp = (photos / "dog/3.disparity.png").stat().st_mtime_ns
    asked = teacher.asked
    assert run(photos, "--model", "teacher") == 3
    assert teacher.asked == asked + 1, "only what is missing is asked for"
    assert (photos / "dog/3.disparity.png").stat().st_mtime_ns == stamp
    assert run(photos, "--model", "teacher", "--force") == 3
    assert (photos / "cat/0.disparity.png").is_file()
    assert (photos / "cat/0.npz").read_bytes() == before, "a person's own file is never changed"


def test_maps_that_are_turned_round_are_told(photos, tmp_path, teacher):
    teacher.sign = -1.0
    run(photos, "--model", "teacher")
    report = json.loads((tmp_path / "photos-depth/report.json").read_text())
    assert report["figures"]["floor_correlation"] == pytest.approx(-1, abs=0.01)
    assert "look at sheet.png (bright is near)" in report["warnings"][0]["warning"]


def test_a_plan_writes_nothing(photos, tmp_path, teacher, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "depth", str(photos), "--model", "teacher", "--dry-run"]) == 0
    assert "would write 10 disparities from teacher" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert teacher.asked == 0


def test_a_tar_becomes_a_new_tar(tmp_path, monkeypatch, teacher, scenes_tar):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "scenes-train.tar"
    with tarfile.open(source, "w") as archive:
        for number in range(4):
            add_member(archive, f"a/{number:06d}.cls", str(number % 3).encode())
            add_member(archive, f"a/{number:06d}.png", png(picture_of(number)))
        add_member(archive, "000009.png", png(picture_of(9)))
        add_member(archive, "000009.disparity.png", png(disparity_of(9)))
        add_member(archive, "../../evil.png", png(picture_of(10)))
        add_member(archive, "broken.png", b"")
    names = scenes_tar.with_name("scenes-train-ranges.json").read_text()
    source.with_name("scenes-train-ranges.json").write_text(names)
    assert run(source, "--model", "teacher") == 3
    out = tmp_path / "scenes-train-depth"
    assert {path.name for path in out.iterdir()} == {
        *("scenes-train.tar", "scenes-train-ranges.json", "report.json", "sheet.png"),
    }
    old, new = ShardSource(source), ShardSource(out / "scenes-train.tar")
    assert len(new) == len(old) == 7
    for index in range(7):
        before, after = old.read(index), new.read(index)
        assert (before.image, before.class_name) == (after.image, after.class_name)
        if before.disparity is not None:
            assert before.disparity == after.disparity
        elif before.image:
            assert after.disparity is not None
            assert read_disparity(after.disparity, "a")[-1].min() == 65535
    assert new.read(1).class_name == "tree"
    assert PictureDataset(out / "scenes-train.tar", 16).counts["disparity"] == 6
    assert run(source, "--model", "teacher") == 2, "is there already"
    asked = teacher.asked
    assert run(source, "--model", "teacher", "--force") == 3
    assert teacher.asked == asked + 6


def test_a_tar_goes_on_where_it_was_stopped(tmp_path, monkeypatch, teacher, photos_tar):
    monkeypatch.chdir(tmp_path)
    estimate = teacher.estimate

    def stops(images):
        if teacher.asked == 3:
            raise KeyboardInterrupt
        return estimate(images)

    monkeypatch.setattr(teacher, "estimate", stops)
    assert run(photos_tar, "--model", "teacher") == 130
    out = tmp_path / "photos-train-depth"
    assert not (out / "photos-train.tar").exists()
    assert len(list((out / "maps.partial").iterdir())) == 3
    monkeypatch.setattr(teacher, "estimate", estimate)
    assert run(photos_tar, "--model", "teacher") == 0
    assert teacher.asked == 5, "three had been done"
    assert PictureDataset(out / "photos-train.tar", 16).counts["disparity"] == 5


def test_maps_of_another_tool(photos, tmp_path):
    maps = tmp_path / "maps"
    (maps / "cat").mkdir(parents=True)
    (maps / "dog").mkdir()
    depth = np.tile(np.linspace(9.0, 1.0, 2 * ROWS)[:, None], (1, 2 * ROWS))  # near is below
    for number in range(1, 8):
        folder, form = maps / ["cat", "dog"][number % 2], ("{}", "{}_depth", "{}-depth")[number % 3]
        np.save(folder / f"{form.format(number)}.npy", depth)
    Image.fromarray((depth * 1000).astype(np.uint16)).save(maps / "cat/2_depth.png")  # twice
    np.save(maps / "dog/9.npy", depth[:, :ROWS])
    assert run(photos, "--maps", maps, "--depth-from", "depth") == 3
    report = json.loads((tmp_path / "photos-depth/report.json").read_text())
    reasons = {failure["input"].split("/")[-1]: failure["reason"] for failure in report["failures"]}
    assert "has 2_depth.png and 2-depth.npy; leave only one" in reasons["2.png"]
    assert "has no map in" in reasons["8.png"]
    assert "24x48 but the picture 24x24; they must have the same aspect" in reasons["9.png"]
    assert report["figures"]["written"] == 6
    written = read_disparity((photos / "dog/1.disparity.png").read_bytes(), "a") / 65535
    assert written.shape == (2 * ROWS, 2 * ROWS)
    np.testing.assert_allclose(written, normalized_disparity(1 / depth), atol=1e-4)
    assert written[-1, 0] == 1


def test_large_pictures_are_seen_and_written_smaller(tmp_path):
    (tmp_path / "p").mkdir()
    Image.new("RGB", (300, 200), (9, 9, 9)).save(tmp_path / "p/a.png")
    seen = []

    def disparity_of(picture):
        seen.append((picture.image.shape, picture.size, picture.key))
        return np.tile(np.arange(900.0), (600, 1))

    done = write_disparities(FolderTarget(tmp_path / "p"), disparity_of, resolution=90)
    assert (done.written, done.rejects) == (1, [])
    assert seen == [((60, 90, 3), (300, 200), "a")]
    written = read_disparity((tmp_path / "p/a.disparity.png").read_bytes(), "a")
    assert written.shape == (60, 90)


def test_processes_share_a_folder(photos, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    ramp = np.tile(np.arange(9.0), (9, 1))
    for rank, count in ((0, 4), (1, 5)):  # one has a disparity, one is broken
        monkeypatch.setenv("RANK", str(rank))
        done = write_disparities(FolderTarget(photos), lambda picture: ramp, resolution=64)
        assert done.written == count
    assert PictureDataset(photos, ROWS).counts["disparity"] == 10


def test_one_name_for_two_pictures_and_flat_answers_are_refused(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    done = write_disparities(FolderTarget(tmp_path), lambda p: np.ones((4, 4)), resolution=64)
    reasons = [reject.reason for reject in done.rejects]
    assert "shares its name with a picture of another ending" in reasons[0]
    assert reasons[2] == "its disparity came out the same everywhere"
    assert not list(tmp_path.glob("*.disparity.png"))
    with pytest.raises(UserError, match="--maps lost: there is no such folder"):
        from_maps(tmp_path.joinpath("lost").relative_to(tmp_path), "depth")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photos"], "data depth: names no source of depth; give --model with a depth model, or"),
        (["photos", "--model", "a", "--maps", "b"], "data depth: names both --model and --maps"),
        (["photos", "--maps", "photos"], "--maps: what they hold is not known; add --depth-from"),
        (["lost", "--model", "a"], "lost: there is no such file or folder; check the spelling."),
        (["photos", "--model", "lost"], "lost: there is no such file or folder; give a path, or"),
        (["photos", "--model", "vq3d-small"], "vq3d-small: is a model of vq3d, which is no depth"),
        (["photos/cat/2.png", "--model", "a"], "photos/cat/2.png: not a tar that unflat can read"),
        (["photos", "--model", "a", "--out", "photos"], "photos/: holds something else than a re"),
        (
            ["photos", "--model", "a", "--resolution", "3"],
            "--resolution 3: must be from 32 to 4096",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence(photos, tmp_path, capsys, arguments, sentence):
    before = sorted(tmp_path.rglob("*"))
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence), said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before

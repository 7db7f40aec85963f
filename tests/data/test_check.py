import json

import numpy as np
import pytest
from made_balls import write_carla, write_cub, write_textured3d, write_transforms
from made_pictures import disparity_of, picture_of, png

from unflat.data.check import check
from unflat.data.procedural import write_procedural
from unflat.errors import UserError


def test_counts_sizes_and_rejects(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.png").write_bytes(png(picture_of(1, 48)))
    (tmp_path / "cat/a.disparity.png").write_bytes(png(disparity_of(1)))
    (tmp_path / "b.png").write_bytes(png(picture_of(2, 48)[:30]))
    (tmp_path / "zero.png").touch()
    (tmp_path / "nil.png").touch()
    report = check(tmp_path)
    assert report.pictures == 2
    assert report.with_disparity == report.without_disparity == 1
    assert report.class_counts == {"(no class)": 1, "cat": 1}
    assert report.size_counts == {"48x48": 1, "48x30": 1}
    assert sorted(r.name.rsplit("/")[-1] for r in report.rejects) == ["nil.png", "zero.png"]
    assert list(report.reason_counts.values()) == [2]
    again = json.loads(json.dumps(report.to_json()))
    assert again["without_disparity"] == 1
    assert "sheet" not in again
    assert "the file is empty" in again["rejects"][0]["reason"]


def test_sheet_shows_pictures_above_disparities(scenes_tar, photos_tar):
    report = check([scenes_tar, photos_tar])
    assert report.class_counts == {
        "boat": 2, "cat": 2, "photo/car": 3, "scene/car": 3, "tree": 2,
    }  # fmt: skip
    assert report.sheet is not None
    # Rows in the order photo car, cat; scene boat, car, tree: the latter two tiles high.
    assert report.sheet.size == (8 * 64, 2 * (14 + 64) + 3 * (14 + 128))
    sheet = np.asarray(report.sheet)
    first_car = np.asarray(picture_of(100)).astype(float).mean()
    assert sheet[14:78, :64].mean() == pytest.approx(first_car, abs=3)
    assert (sheet[14:78, 3 * 64 :] == 255).all()  # only three cars


def test_posed_scenes_and_progress(tmp_path):
    files = write_procedural(tmp_path / "a", 3, 16, views=2, val_count=2)
    told = []
    report = check([files.val], progress=lambda *now: told.append(now))
    assert (report.scenes, report.pictures, report.with_disparity) == (2, 6, 6)
    assert report.class_counts == {"ball": 1, "box": 1}
    assert report.size_counts == {"16x16": 6}
    assert told == [(1, 2), (2, 2)]
    assert check(files.train.parent).pictures == 3


def test_cut_tar_is_reported(scenes_tar, tmp_path):
    path = tmp_path / "cut.tar"
    path.write_bytes(scenes_tar.read_bytes()[:12_000])
    report = check(path)
    assert report.pictures >= 1
    assert [r.reason for r in report.rejects] == ["the archive is cut short or damaged here"]


def test_wrong_paths(tmp_path):
    for paths, message in (
        ([], "names no data set"),
        (tmp_path / "nowhere", "there is no such file or folder"),
        (tmp_path, "holds no picture"),
    ):
        with pytest.raises(UserError, match=message):
            check(paths)


def test_only_rejects_gives_no_sheet(tmp_path):
    (tmp_path / "a.png").touch()
    report = check(tmp_path)
    assert report.sheet is None
    assert report.pictures == 0


@pytest.mark.parametrize(
    ("write", "layout", "kind"),
    [
        (write_carla, "carla", "perspective"),
        (write_cub, "cub", "orthographic"),
        (lambda root: write_textured3d(root.parent, root.name), "p3d", "perspective"),
        (write_transforms, "transforms", "perspective"),
    ],
)
def test_published_layouts_are_recognised_and_described(tmp_path, write, layout, kind):
    root = tmp_path / "set"
    root.mkdir()
    write(root)
    next(root.rglob("*.png")).write_bytes(b"no picture")
    report = check(root)
    assert (report.pictures, len(report.rejects)) == (2, 1)
    (sentence,) = report.layouts
    assert sentence.startswith(f"{root}: {layout}, 2 pictures of ")
    assert f"2 with masks, {kind} cameras" in sentence
    assert report.class_counts == {layout: 2}
    assert report.sheet is not None
    assert json.dumps(report.to_json()["layouts"]) == json.dumps([sentence])

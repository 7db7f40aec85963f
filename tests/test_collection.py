import json
from pathlib import Path

import pytest
from PIL import Image

from unflat.collection import Job, find_pictures, is_done, own_share, run_jobs, write_index
from unflat.errors import UserError
from unflat.report import Report


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat.jpg", "cat.png", "holiday/sea.png", "bad.png"):
        picture(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def work(job: Job, folder: Path, report: Report) -> None:
    """Stands for a reconstruction; one picture is bad."""
    if Path(job.source).stem == "bad":
        raise UserError(f"{job.source}: not a picture unflat can read.")
    report.confidence = 0.25 if "sea" in job.name else 0.75
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / "report.json")


def test_the_stem_names_the_result_and_no_two_share_a_name(photos: Path) -> None:
    names = [job.name for job in find_pictures([str(photos)])]
    assert names == ["bad", "cat-jpg", "cat-png", "holiday/sea"]


def test_the_same_file_name_from_two_places_stays_apart(photos: Path) -> None:
    other = picture(photos.parent / "other" / "bad.png")
    names = [job.name for job in find_pictures([str(photos / "bad.png"), str(other)])]
    assert len(set(names)) == 2


def test_a_picture_that_nothing_here_reads_is_counted(photos: Path) -> None:
    (photos / "phone.heic").write_bytes(b"heic")
    assert "phone" in [job.name for job in find_pictures([str(photos)])]


def test_patterns_and_missing_inputs(photos: Path) -> None:
    assert len(find_pictures([str(photos / "*.png")])) == 2
    with pytest.raises(UserError, match=r"\*\.bmp: no file matches; check"):
        find_pictures([str(photos / "*.bmp")])


def test_processes_share_the_work_without_overlap(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = find_pictures([str(photos)])
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(own_share(jobs))
    assert sorted(job.name for share in shares for job in share) == [job.name for job in jobs]
    assert all(shares)


def test_bad_pictures_are_counted_and_the_rest_goes_on(photos: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "rooms", Report("reconstruct")
    tally = run_jobs(find_pictures([str(photos)]), out, work, report)
    assert tally.done == ["cat-jpg", "cat-png", "holiday/sea"]
    assert list(tally.failed) == [str(photos / "bad.png")]
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["failed", "done", "done", "done"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3
    assert "holiday/sea/viewer.html" in page
    assert 'data-confidence="0.25"' in page
    assert "http" not in page


def test_a_second_run_does_only_what_is_left(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "rooms"
    jobs = find_pictures([str(photos)])
    run_jobs(jobs[:2], out, work, Report("reconstruct"))
    done: list[str] = []

    def remember(job: Job, folder: Path, report: Report) -> None:
        done.append(job.name)
        report.write(folder / "report.json")

    tally = run_jobs(jobs, out, remember, Report("reconstruct"))
    assert done == ["bad", "cat-png", "holiday/sea"]
    assert tally.skipped == ["cat-jpg"]
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"done"}, "a mended picture is no failure"


def test_the_page_escapes_names(tmp_path: Path) -> None:
    Report("reconstruct").write(tmp_path / "<b>&'" / "report.json")
    write_index(tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page


def test_half_a_result_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    assert not is_done(tmp_path, Job(source="cat.jpg", name="cat"))

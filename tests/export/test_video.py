import sys

import numpy as np
import pytest
from PIL import Image

from unflat.errors import UserError
from unflat.export import write_video


@pytest.fixture
def frames() -> np.ndarray:
    """Red above green, and a blue bar that walks to the right."""
    frames = np.zeros((6, 47, 63, 3), dtype=np.uint8)
    frames[:, :24] = (200, 30, 30)
    frames[:, 24:] = (30, 160, 30)
    for number, frame in enumerate(frames):
        frame[:, 8 * number : 8 * number + 8] = (30, 30, 200)
    return frames


def check(read: np.ndarray, frames: np.ndarray, tolerance: float) -> None:
    """Close to the frames, and farther from every wrong arrangement of them."""
    height, width = frames.shape[1:3]
    error = np.abs(read[:, :height, :width].astype(float) - frames).mean()
    assert error < tolerance
    for wrong in (frames[::-1], frames[:, ::-1], frames[:, :, ::-1], frames[..., ::-1]):
        assert np.abs(read[:, :height, :width].astype(float) - wrong).mean() > 3 * tolerance


def test_mp4_plays_everywhere_and_shows_the_frames(tmp_path, frames):
    av = pytest.importorskip("av")
    path = write_video(frames, tmp_path / "a.mp4", fps=12)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (64, 48)
        assert float(stream.average_rate) == pytest.approx(12)
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert len(read) == 6
    check(read, frames, tolerance=8)  # halved colour resolution blurs the bar's edges
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "not faststart"


def test_webp_loops_and_shows_the_frames(tmp_path, frames):
    path = write_video(frames, tmp_path / "a.webp", fps=10)
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.info["loop"]) == (6, 0)
        read = []
        for number in range(6):
            picture.seek(number)
            read.append(np.asarray(picture.convert("RGB")))
            assert picture.info["duration"] == 100
    check(np.stack(read), frames, tolerance=8)


def test_missing_extra_says_how_to_get_it(tmp_path, frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError) as caught:
        write_video(frames, tmp_path / "a.mp4")
    assert str(caught.value) == ('--format mp4 needs the video extra: pip install "unflat[video]".')


def test_other_endings_and_bad_places_are_sentences(tmp_path, frames):
    with pytest.raises(UserError, match=r"a\.avi: no video .* use \.mp4 or \.webp"):
        write_video(frames, tmp_path / "a.avi")
    (tmp_path / "file").touch()
    for name in ("a.mp4", "a.webp"):
        with pytest.raises(UserError, match="is a file, not a folder"):
            write_video(frames, tmp_path / "file" / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_frames_are_refused(tmp_path, frames):
    with pytest.raises(ValueError, match="0 frames"):
        write_video(frames[:0], tmp_path / "a.webp")

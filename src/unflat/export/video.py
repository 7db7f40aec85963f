"""Moving pictures: MP4 with the video extra, animated WebP without.

write_video(frames, "orbit.mp4", fps=24)
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unflat.errors import UserError, require_extra
from unflat.files import atomic_path

_CRF = "18"
"""x264 quality, lower is better; 18 is taken as visually lossless."""
_WEBP_QUALITY = 85
_BT709, _LIMITED_RANGE = 1, 1


def write_video(
    frames: UInt8[np.ndarray, "frames height width 3"], path: str | Path, fps: float | int = 24
) -> Path:
    """The path of the video written: .mp4 (h264, yuv420p, faststart) or .webp (loops for ever).

    Odd sizes are made even for MP4 by repeating the last row or column.

    Args:
        frames: sRGB, at least one.
        path: ends in .mp4 or .webp.
        fps: frames per second.

    Raises:
        UserError: another suffix, MP4 without the video extra, or a place that can not be
            written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if len(frames) == 0 or fps <= 0:
        raise ValueError(f"write_video: {len(frames)} frames at {fps} per second")
    if suffix == ".mp4":
        require_extra("av", "video", "--format mp4")
        writer = _write_mp4
    elif suffix == ".webp":
        writer = _write_webp
    else:
        raise UserError(f"{path}: no video is written with this ending; use .mp4 or .webp.")
    with atomic_path(path) as temporary:
        writer(frames, temporary, fps)
    return path


def _write_mp4(frames: np.ndarray, path: Path, fps: float | int) -> None:
    from fractions import Fraction

    import av

    height, width = frames.shape[1:3]
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": _CRF, "preset": "medium"}
        # Said aloud, since players guess the matrix by the picture's size.
        stream.codec_context.colorspace = _BT709
        stream.codec_context.color_primaries = _BT709
        stream.codec_context.color_range = _LIMITED_RANGE
        for picture in frames:
            even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range=_LIMITED_RANGE
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_webp(frames: np.ndarray, path: Path, fps: float | int) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(
        path,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        quality=_WEBP_QUALITY,
        method=2,
    )

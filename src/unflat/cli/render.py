"""``unflat render``: a scene becomes a video of a camera path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unflat.cli.options import Placed, Planned, Rendered, Speech, formats_of, require_range
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Rendered):
    """A scene becomes a video of a camera path, beside the scene or in the folder --out.

    Scenes of photos are seen from near the photo's own view, objects from all around.
    """

    scene: Annotated[Path, tyro.conf.Positional]
    """A scene.safetensors, or the result folder that holds one."""
    path: Literal["orbit", "spiral", "wiggle"] = "orbit"
    """How the camera moves; it begins and ends at the photo's own view, or an object's front.
    Objects: orbit goes once around, spiral also up and down, wiggle swings."""
    format: str | None = None
    """mp4 (needs the video extra), webp, or both; orbit, which is mp4 where it can be, if not
    given."""
    frames: int = 72
    """Pictures of the video, 24 a second."""
    size: int | None = None
    """Side in pixels; the scene's own if not given."""
    quality: Literal["layers", "field"] | None = None
    """layers: quick, from the scene's depth pictures, as scenes of photos are rendered if not
    given; field: rays through the field itself, as objects always are."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of rendering."""
    from unflat.cli.written_scene import write
    from unflat.result import VIDEO_FORMATS, usual_video

    kinds = formats_of(options.format or usual_video(), VIDEO_FORMATS)
    require_range(options.frames, 2, 3600, "--frames", "pictures")
    require_range(options.size, 16, 2048, "--size", "pixels")
    return write(
        "render",
        options,
        kinds,
        terminal,
        video=f"render-{options.path}",
        path=options.path,
        frames=options.frames,
        size=options.size,
        quality=options.quality,
    )

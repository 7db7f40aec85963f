"""``unflat export``: a scene becomes a mesh, splats, depth, a video, a viewer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unflat.cli.options import Placed, Planned, Rendered, Speech, formats_of
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Rendered):
    """A scene becomes files for other programs, beside the scene or in the folder --out."""

    scene: Annotated[Path, tyro.conf.Positional]
    """A scene.safetensors, or the result folder that holds one."""
    format: str = "glb"
    """Which, as in glb,splat: glb ply obj (meshes; glb and obj of objects with a texture), splat,
    depth, mp4, webp, html; or mesh, which is glb, and orbit, which is mp4 where it can be."""
    describe: str | None = None
    """A sentence for people who do not see the model, kept in the file."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of exporting."""
    from unflat.cli.written_scene import write
    from unflat.result import FORMATS

    formats = formats_of(options.format, FORMATS)
    return write("export", options, formats, terminal, describe=options.describe)

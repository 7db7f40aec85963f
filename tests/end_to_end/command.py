"""Commands as a person runs them, and a picture to run them on."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

Done = subprocess.CompletedProcess[str]


class Run(Protocol):
    """``unflat`` with some arguments, in the test's own folder."""

    def __call__(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Done: ...


def run_in(folder: Path) -> Run:
    def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "unflat", *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=110,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )

    return run


def draw(path: Path, side: int = 72) -> Path:
    """A small picture that is not flat: a bright square before a gradient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 160, side, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side))], axis=-1)
    pixels = np.concatenate([pixels, np.full((side, side, 1), 60, np.uint8)], axis=-1)
    pixels[side // 3 : side // 2, side // 3 : side // 2] = (230, 200, 40)
    Image.fromarray(pixels).save(path)
    return path

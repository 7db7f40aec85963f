"""What a run leaves to look at: metrics.jsonl, TensorBoard files, sample sheets."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unflat.errors import UserError
from unflat.files import atomic_path


class Tracker:
    """Writes the figures and pictures of a run; on resume, figures after ``step`` are dropped.

    ``metrics.jsonl`` holds one JSON object a line, flushed at once; numbers are written so that
    reading gives back the same bits; what is not finite is written as null.
    """

    def __init__(self, out: Path, step: int, tensorboard: bool) -> None:
        self.out = out
        path = out / "metrics.jsonl"
        if path.exists():
            _keep_until(path, step)
        self._file = path.open("a")
        self._board = _summary_writer(out / "tensorboard", step) if tensorboard else None

    def log(self, values: dict[str, Any]) -> None:
        """Write one line; ``step`` must be among the values.

        Raises:
            UserError: the disk is full or gone.
        """
        line = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self.out}: metrics.jsonl can not be written ({error.strerror}); mend that, "
                "then give --resume."
            ) from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, values["step"])

    def picture(self, step: int, image: Float[Tensor, "3 height width"]) -> Path:
        """Write a sample sheet, values clipped to [0, 1]."""
        array = image.detach().float().cpu().clamp(0.0, 1.0).permute(1, 2, 0).numpy()
        pixels = np.round(array * 255.0).astype(np.uint8)
        path = self.out / "samples" / f"{step:06d}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(pixels).save(temporary)
        if self._board is not None:
            self._board.add_image("samples", pixels, step, dataformats="HWC")
        return path

    def close(self) -> None:
        """Flush and close the files."""
        with suppress(OSError):  # log() has said so, if the disk is full
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(out: Path | str) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut short is left out."""
    path = Path(out) / "metrics.jsonl"
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


def _keep_until(path: Path, step: int) -> None:
    kept = [line for line in read_metrics(path.parent) if line.get("step", 0) <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))


def _summary_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)

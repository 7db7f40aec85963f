"""From a model's name or file to something the reconstruction task can ask."""

import hashlib
from pathlib import Path

from unflat.evaluation.reconstructor import Reconstructor


def load_reconstructor(
    model: str | Path, device: str = "cpu", samples: int | None = None
) -> Reconstructor:
    """The model behind the `Reconstructor` protocol, with its file's hash for the report.

    Args:
        model: a file, a run's folder, or a name from ``unflat models list``.
        device: where it runs.
        samples: intervals per ray; the system's default for evaluation if not given.

    Raises:
        UserError: there is no such model, or it is not one that reconstructs.
    """
    from unflat.evaluation.vq3d import SAMPLES, Vq3dReconstructor
    from unflat.hub.registry import find
    from unflat.systems.vq3d import load

    path = find(model)
    with path.open("rb") as file:
        facts: dict[str, object] = {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
    return Vq3dReconstructor(
        load(path), str(model), facts=facts, samples=samples or SAMPLES, device=device
    )

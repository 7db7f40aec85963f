"""What every training verb leaves in its folder: the model, its card, the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unflat.report import Report

if TYPE_CHECKING:
    from torch import Tensor


def write_model(
    out: Path,
    weights: "dict[str, Tensor]",
    header: Mapping[str, Any],
    sections: Mapping[str, str],
    report: Report,
    counts: str,
    dtype: Literal["float32", "float16", "int8"] = "float16",
) -> None:
    """Write the model file, its card with the blanks marked, and the report.

    Args:
        out: the run's folder; its name becomes the model's.
        weights: of the model.
        header: what the file says beside its weights: ``system``, ``config`` and the like.
        sections: of the card, by heading, as far as they are known.
        report: of the run, with its figures; gets the names of the files.
        counts: what was learned from, in words.
        dtype: of the weights in the file.
    """
    from unflat.hub import draft_card
    from unflat.training import save_model

    card = {"name": out.name, "licence": "not stated"}
    save_model(out / "model.safetensors", weights, {"card": card, **header}, dtype)
    text = draft_card(out.name, sections, report.json(), counts)
    (out / "card.md").write_text(text, encoding="utf-8")
    report.files = ["model.safetensors", "card.md", "run.json", "metrics.jsonl"]
    report.write(out / "report.json")

"""Model cards: what a model is for, what it learned from, what was measured.

After Mitchell et al., "Model Cards for Model Reporting" (arXiv 1810.03993).
"""

from collections.abc import Mapping
from typing import Any

from unflat.errors import UserError
from unflat.hub.registry import MODELS, card_path, find

SECTIONS = (
    "What it is",
    "Use",
    "For",
    "Not for",
    "Inputs",
    "Training data",
    "Training procedure",
    "Numbers",
    "Failures",
    "Confidence",
    "Bias and risks",
    "Size and speed",
    "Weights hash",
    "How to cite",
)
"""Headings that every card has, in this order."""

FRONT_MATTER = ("licence", "tags", "library", "base model", "data sets")
"""Keys above the headings."""

BLANK = "not stated: fill this in before you share the model"


def read_card(name: str) -> str:
    """The card of a named model, or the one beside a model file.

    Raises:
        UserError: no such model, or it has no card.
    """
    path = card_path(name) if name in MODELS else find(name).with_name("card.md")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{name}: has no card; {path.name} is not beside its weights.") from error


def draft_card(
    name: str, sections: Mapping[str, str], report: Mapping[str, Any], pictures: str
) -> str:
    """A card for a model that was just trained: what is known filled in, the blanks marked.

    Args:
        name: of the model.
        sections: what the system says of its models, by heading.
        report: of the training run, as `unflat.report.Report.json` gives it.
        pictures: what it learned from, in counts.
    """
    settings, seconds = report["settings"], report["seconds"].get("train", 0.0)
    steps = report["figures"].get("steps", "unknown")
    data = ", ".join(report["inputs"])
    filled = {
        "Training data": f"{data}: {pictures}. Sources, licences, people: {BLANK}.",
        "Training procedure": (
            f"{steps} steps of {settings['batch_size']} pictures, seed {report['seed']}, "
            f"{seconds:.0f} s. Hardware and energy: {BLANK}."
        ),
        "Numbers": "Not measured.",
        "Failures": "Not measured.",
        "Confidence": "Not measured for this model.",
        "Size and speed": "Not measured.",
        "Weights hash": "`sha256sum model.safetensors`",
        "How to cite": "Name unflat and its version.",
        **sections,
    }
    front = {"licence": BLANK, "library": "unflat", "data sets": data}
    lines = ["---", *(f"{key}: {front.get(key, 'none')}" for key in FRONT_MATTER), "---", ""]
    lines += [f"# {name}", ""]
    for section in SECTIONS:
        lines += [f"## {section}", "", filled.get(section, f"{BLANK[0].upper()}{BLANK[1:]}."), ""]
    return "\n".join(lines)

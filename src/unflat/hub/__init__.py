"""What models there are, where their weights lie, what they may be used for."""

from unflat.hub.card import SECTIONS, draft_card, read_card
from unflat.hub.registry import (
    EXAMPLE_CREDIT,
    MODELS,
    Description,
    example_picture,
    find,
    is_here,
)

__all__ = [
    "EXAMPLE_CREDIT",
    "MODELS",
    "SECTIONS",
    "Description",
    "draft_card",
    "example_picture",
    "find",
    "is_here",
    "read_card",
]

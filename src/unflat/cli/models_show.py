"""``unflat models show``: the card of one model."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from unflat.cli.options import Speech
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech):
    """The card of one model: what it is for, what it learned from, what was measured."""

    model: Annotated[str, tyro.conf.Positional]
    """A name from `unflat models list`, or the path of a model file with a card beside it."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of showing."""
    from unflat.hub import PUBLISHED_VIEWS, describe_views, read_card

    is_published = options.model in PUBLISHED_VIEWS
    card = describe_views(options.model) if is_published else read_card(options.model)
    terminal.line(card.rstrip())
    terminal.object("report", {"model": options.model, "card": card})
    return 0

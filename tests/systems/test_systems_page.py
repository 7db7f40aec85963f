"""The page of systems: its sizes are those of the presets, and every system is on it."""

from pathlib import Path

import torch

from unflat.systems.gan.registry import SYSTEMS, module_of
from unflat.systems.gan.survey import SURVEY

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"
_HEAD = (
    "| system | preset | picture, rendered | generator, critic | intervals | batch "
    "| ball, reconstruction |\n|---|---|---|---|---|---|---|"
)


def sizes() -> str:
    """The table, counted from networks without memory."""
    return "\n".join(
        [_HEAD, *(row(name, preset) for name in SYSTEMS for preset in module_of(name).PRESETS)]
    )


def row(name: str, preset: str) -> str:
    module = module_of(name)
    config = module.PRESETS[preset]()
    with torch.device("meta"):
        parts = module.build(config)
    side, casting, start = config.resolution, parts.generator.casting, parts.start
    weights = [
        f"{sum(weight.numel() for weight in network.parameters()) / 1e6:.2f}"
        for network in (parts.generator, parts.critic)
    ]
    sign = " + " if casting.keep == "both" else ", "
    cells = [
        f"`{name}`",
        preset,
        f"{side}, {side // parts.generator.scale}",
        ", ".join(weights),
        f"{casting.coarse}{sign}{casting.fine}",
        f"{module.training(config).batch_size}",
        f"{start.sphere:g}, {start.reconstruction:g}",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_sizes_on_the_page_are_those_of_the_presets() -> None:
    marks = "<!-- systems-sizes -->\n", "\n<!-- end -->"
    block = PAGE.read_text(encoding="utf-8").split(marks[0])[1].split(marks[1])[0]
    assert block == sizes(), f"docs/systems.md: sizes are now\n{sizes()}"


def test_every_system_has_its_row_its_differences_and_a_command() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in SYSTEMS:
        assert f"\n| `{name}` (" in page
        assert f"\n### `{name}`\n" in page
        assert f"unflat train gan --system {name} --preset tiny " in page


def test_the_page_counts_what_is_missing() -> None:
    missing = len(SURVEY) - len(SYSTEMS)
    assert missing == 37
    assert "\nThirty-seven systems of the survey." in PAGE.read_text(encoding="utf-8")

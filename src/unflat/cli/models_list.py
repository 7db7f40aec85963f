"""``unflat models list``: the models there are."""

from dataclasses import dataclass

from unflat.cli.options import Speech
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech):
    """The models there are, with size, cost, licence and what they are for."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of listing."""
    from dataclasses import asdict

    from unflat.hub import MODELS, is_here

    for name, model in MODELS.items():
        where = "bundled" if is_here(name) else "not here"
        terminal.line(f"{name}  ({where}, {model.size_mb:g} MB, {model.licence})")
        terminal.line(f"  {model.summary}")
        terminal.line(f"  trained on {model.trained_on}")
        terminal.line(
            f"  about {model.seconds_cpu:g} s and {model.memory_mib} MiB a picture on two CPU cores"
        )
        terminal.object("model", {"name": name, "here": is_here(name), **asdict(model)})
    terminal.line("a path to a model file works wherever a name does.")
    terminal.object("report", {"models": list(MODELS)})
    return 0

"""``unflat demo``: reconstructs a bundled photo with the bundled model and says where to look."""

from dataclasses import dataclass
from pathlib import Path

from unflat.cli.options import Computed, Placed, Speech
from unflat.report import Report
from unflat.terminal import Terminal

_OUT = Path("unflat-demo")


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Placed, Computed):
    """Reconstructs a bundled photo with the bundled model into unflat-demo/."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of the demo."""
    from unflat.device import choose_device
    from unflat.hub import EXAMPLE_CREDIT, example_picture
    from unflat.result import in_words, write_result
    from unflat.systems.vq3d.pipeline import reconstruct_picture

    out = options.out or _OUT
    model, photo = "vq3d-small", example_picture()
    report = Report(
        "demo",
        inputs=[photo.name],
        seed=0,
        device=choose_device(options.device),
        settings={"model": model},
        listener=terminal,
    )
    report.licences["photo"] = EXAMPLE_CREDIT
    terminal.line(f"a bundled photo ({EXAMPLE_CREDIT})  with {model}")
    device = report.device or "cpu"
    write_result(
        lambda: reconstruct_picture(photo, model=model, device=device, report=report),
        out,
        report,
        name="duck",
        force=options.force,
    )
    terminal.line(f"confidence {in_words(report.confidence)}")
    terminal.line(f"wrote {out}/  {'  '.join(report.files)}")
    terminal.line(f"open {(out / 'viewer.html').resolve()} in a browser to look around")
    terminal.line("your own picture: unflat reconstruct photo.jpg")
    terminal.object("report", report.json())
    return 0

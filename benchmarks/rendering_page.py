"""docs/performance.md: tables and plots of what `benchmarks.rendering` measured."""

from collections.abc import Iterator
from typing import Any

from benchmarks.page import fill, markdown
from benchmarks.process import ROOT

PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "pictures" / "performance-growth.png"
WAYS = ("plain", "reference", "fused")
SIDES = (32, 64, 96, 128)
SAMPLE_COUNTS = (24, 48, 96, 192)
COLORS = {"plain": "#8a8a8a", "reference": "#2f5fc4", "fused": "#c8372d"}
NOWHERE = "not available here"
Cases = dict[str, Any]


def write_page(result: dict[str, Any]) -> None:
    """Fills the marked places of the page."""
    fill(PAGE, tables(result))


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown by the names of its marks."""
    cases = result["cases"]
    return {
        "performance-facts": _facts(result),
        "performance-short": _short(cases),
        "performance-forward": _marching(result, "forward"),
        "performance-both": _marching(result, "both"),
        "performance-fields": _fields(cases),
        "performance-skipping": _skipping(cases),
        "performance-memory": _memory(cases),
        "performance-end": _end(cases),
        "performance-first": _first(cases),
    }


def _facts(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    rates = "; ".join(
        f"{flops / 1e9:.0f} GFLOP/s and {moved / 1e9:.1f} GB/s on {_threads(threads)}"
        for threads, (flops, moved) in result["rates"].items()
    )
    clock = "the wall's clock"
    if result["clock"] == "cpu":
        clock = "the process's CPU time on one thread"
        clock += ", the wall's clock on two" if len(result["rates"]) > 1 else ""
    text = (
        f"`{result['command']}`, {result['date']}, {result['machine']}, {versions}. Times are of "
        f"{clock}. Measured rates: {rates}. The load was {result['load_before']} before it began."
    )
    return f"{text} {result['note']}" if result.get("note") else text


def _threads(count: str) -> str:
    return "1 thread" if count == "1" else f"{count} threads"


def _short(cases: Cases) -> str:
    """Lowest and highest gain of every kind over all cases."""
    lines = []
    for which, says in (("forward", "Forward"), ("both", "Forward and backward")):
        for threads in ("1", "2"):
            found = [
                (times["plain"]["min"] / fused, times["plain in chunks"]["min"] / fused)
                for times, fused in _fused_rows(cases, which, threads)
            ]
            if found:
                whole, chunked = zip(*found, strict=True)
                lines.append(
                    f"- {says}, {_threads(threads)}: {_range(whole)} times faster than plain "
                    f"PyTorch as written, {_range(chunked)} times faster than plain PyTorch "
                    f"1024 rays at once."
                )
    return "\n".join(lines) or NOWHERE


def _fused_rows(cases: Cases, which: str, threads: str) -> Iterator[tuple[Any, float]]:
    for name, case in cases.items():
        if name.startswith("triplane:") and name.endswith(f":{which}"):
            times = case["times"].get(threads, {})
            if "fused" in times:
                yield times, times["fused"]["min"]


def _range(values: tuple[float, ...]) -> str:
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low} to {high}"


def _marching(result: dict[str, Any], which: str) -> str:
    """Plain PyTorch, our reference and fused, beside the floor."""
    head = ["rays x samples, channels", "threads", "plain", "1024 rays at once", "reference"]
    lines = [[*head, "fused", "gain", "floor", "fused / floor"]]
    for name, case in result["cases"].items():
        kind, *words = name.split(":")
        if kind != "triplane" or words[-1] != which:
            continue
        label = f"{words[0]}² x {words[1]}, {words[2]}"
        for threads, times in case["times"].items():
            flops, moved = result["rates"][threads]
            floor = max(case["flops"] / flops, case["bytes"] / moved)
            cells = [_ms(times.get(way)) for way in ("plain", "plain in chunks", "reference")]
            fused = times.get("fused")
            cells += [_ms(fused), _gains(times), f"{1e3 * floor:.1f} ms"]
            cells += [f"{fused['min'] / floor:.1f}" if fused else "-"]
            lines.append([label, threads, *cells])
    return markdown(lines)


def _gains(times: dict[str, Any]) -> str:
    """Over plain as written, and in brackets over plain in chunks."""
    if "fused" not in times:
        return "-"
    whole, chunked = (times[way]["min"] / times["fused"]["min"] for way in _PLAIN)
    return f"{whole:.1f} x ({chunked:.1f} x)"


_PLAIN = ("plain", "plain in chunks")
_LABELS = {
    "voxels:64:48:forward": "voxels 64³, 64² rays x 48, forward",
    "voxels:64:48:both": "the same, forward and backward",
    "voxels:128:96:forward": "voxels 64³, 128² rays x 96, forward",
    "distances:32:forward": "distances, 4 objects of 32² rays x 24, network of 32, forward",
    "distances:32:both": "the same, forward and backward",
    "distances:64:both": "the same with a network of 64",
    "viewspace:tokens:64:48": "tokens from the side, 64² x 48",
    "viewspace:tokens:128:48": "tokens from the side, 128² x 48",
    "viewspace:detail:64:48": "detail from the side, 64² x 48",
    "viewspace:detail:128:48": "detail from the side, 128² x 48",
    "novel": "novel rays of a training step, 16 x 96 x 24, forward and backward",
}


def _fields(cases: Cases) -> str:
    lines = [["field", "threads", "reference", "fused", "gain"]]
    for name, label in _LABELS.items():
        for threads, times in cases.get(name, {}).get("times", {}).items():
            lines.append([label, threads, *_pair(times, "reference", "fused")])
    return markdown(lines)


def _pair(times: dict[str, Any], before: str, after: str) -> list[str]:
    gain = f"{times[before]['min'] / times[after]['min']:.1f} x" if after in times else "-"
    return [_ms(times.get(before)), _ms(times.get(after)), gain]


def _skipping(cases: Cases) -> str:
    """A ball in empty space: times, gains, and how near to plain PyTorch's picture."""
    lines = [["rays x samples", "way", "PSNR to plain", "threads", "time", "gain"]]
    notes = []
    for name, case in cases.items():
        kind, *words = name.split(":")
        if kind != "skipping":
            continue
        label = f"{words[0]}² x {words[1]}"
        for threads, times in case["times"].items():
            for way, found in times.items():
                kept = case.get("psnr", {}).get(way)
                gains = "-" if way in _PLAIN else _gains({**times, "fused": found})
                cells = ["-" if kept is None else f"{kept:.0f} dB", threads, _ms(found), gains]
                lines.append([label, _SKIPPED.get(way, way), *cells])
        if not notes:
            notes.append(
                f"Making the occupancy grid of 64³ cells, {case['occupied']:.1%} of them occupied, "
                f"took {case['grid_seconds']:.1f} s; it serves every picture of the scene."
            )
    return "\n\n".join([markdown(lines), *notes])


_SKIPPED = {
    "plain in chunks": "plain, 1024 rays at once",
    "every sample": "fused, every sample",
    "early end": "fused, rays end when 0.1 % of light is left",
    "occupancy": "the same, occupied cells only",
    "guided": "fused, 12 samples around what a quarter of the side with 48 showed",
    "occupancy, guided": "the same, occupied cells only",
}


def _memory(cases: Cases) -> str:
    lines = [["rays x samples", *(f"{way}, forward" for way in WAYS), "share"]]
    lines[0] += [*(f"{way}, both ways" for way in WAYS), "share"]
    for side, samples in ((64, 48), (64, 192), (128, 48)):
        row = [f"{side}² x {samples}"]
        for which in ("forward", "both"):
            found = [
                cases.get(f"growth:{way}:{side}:{samples}", {}).get(which, {}).get("mib")
                for way in WAYS
            ]
            row += ["-" if mib is None else f"{mib:.0f} MiB" for mib in found]
            plain, fused = found[0], found[-1]
            row += ["-" if plain is None or fused is None else f"1 / {plain / max(fused, 0.1):.0f}"]
        lines.append(row)
    return markdown(lines)


def _end(cases: Cases) -> str:
    lines = [["work", "threads", "reference", "fused where it can", "gain"]]
    photo = {name: cases.get(f"photo:{name}") for name in _PHOTO}
    layers, field, slow = (photo[name] for name in _PHOTO)
    label = "60 frames of 128 px out of the bundled photo"
    if layers:
        lines.append([f"`unflat reconstruct`, {label}, layers", "2", "-", _s(layers), "-"])
    if field and slow:
        gain = f"{slow['min'] / field['min']:.1f} x"
        words = f'`Scene.orbit(quality="field")`, {label}, marched'
        lines.append([words, "2", _s(slow), _s(field), gain])
    for threads, times in cases.get("step", {}).get("times", {}).items():
        words = "a training step of VQ3D stage 1, `small`, 16 pictures"
        lines.append([words, threads, *_pair(times, "reference", "auto")])
    return markdown(lines)


_PHOTO = ("layers:auto", "field:auto", "field:reference")


def _first(cases: Cases) -> str:
    lines = [["first call in a process", "forward", "forward and backward"]]
    for name, label in (("cold", "ever, on this machine"), ("warm", "in every later process")):
        case = cases.get(f"first:{name}", {})
        if "forward" in case:
            times = [case[which]["first"] for which in ("forward", "both")]
            lines.append([label, *(f"{seconds:.2f} s" for seconds in times)])
    return markdown(lines) if len(lines) > 1 else NOWHERE


def _ms(found: dict[str, float] | None) -> str:
    """Fastest and median."""
    if found is None:
        return "-"
    digits = 0 if found["min"] >= 0.1 else 1
    return f"{1e3 * found['min']:.{digits}f} / {1e3 * found['median']:.{digits}f} ms"


def _s(found: dict[str, float]) -> str:
    return f"{found['min']:.1f} / {found['median']:.1f} s"


def draw(result: dict[str, Any]) -> None:
    """Time and memory over rays and over samples, with what exact proportion would be."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    cases = result["cases"]
    axes_of = [("rays", [f"{side}:48" for side in SIDES], [side**2 for side in SIDES])]
    axes_of += [("samples", [f"64:{n}" for n in SAMPLE_COUNTS], list(SAMPLE_COUNTS))]
    figure, panels = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
    for panel, (what, key) in zip(
        panels, ((what, key) for what in axes_of for key in ("min", "mib")), strict=True
    ):
        name, rows, counts = what
        for way in ("plain", "fused"):
            found = [cases.get(f"growth:{way}:{row}", {}).get("both") for row in rows]
            points = [(n, f[key]) for n, f in zip(counts, found, strict=True) if f]
            if not points:
                continue
            across, up = zip(*points, strict=True)
            panel.plot(across, up, "o-", color=COLORS[way], label=way)
            line = [up[-1] * n / across[-1] for n in across]
            panel.plot(across, line, ":", color=COLORS[way], linewidth=1)
        panel.set(xscale="log", yscale="log", xlabel=name)
        panel.set_ylabel("seconds" if key == "min" else "MiB")
        labels = [f"{side}²" for side in SIDES] if name == "rays" else [str(n) for n in counts]
        panel.set_xticks(counts, labels)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    if panels[0].lines:
        panels[0].legend(frameon=False)
    figure.savefig(PLOT, dpi=110)
    plt.close(figure)

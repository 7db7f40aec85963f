"""Draws how training runs went, from the metrics.jsonl in their folders.

    python docs/pictures/curves.py docs/pictures/curves.png \
        runs/small:psnr,depth,novel runs/decoder:psnr,depth,novel runs/prior:bits,val_bits

A row of panels for each run, a panel for each figure, over the minutes that the run took; the pale
line is what was logged, the dark one its running mean.
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

mpl.use("Agg")
WINDOW = 9  # logged values of the running mean


def main() -> None:
    """Reads the folders, writes the picture."""
    out, *runs = sys.argv[1:]
    rows = [(Path(folder), names.split(",")) for folder, names in (run.split(":") for run in runs)]
    wide = max(len(names) for _, names in rows)
    figure, axes = plt.subplots(
        len(rows), wide, figsize=(3.2 * wide, 2.1 * len(rows)), squeeze=False, layout="constrained"
    )
    for (folder, names), panels in zip(rows, axes, strict=True):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for axis, name in zip(panels, [*names, *[""] * wide], strict=False):
            points = [(line["elapsed"] / 60, line[name]) for line in lines if name in line]
            if not points:
                axis.axis("off")
                continue
            minutes, values = zip(*points, strict=True)
            axis.plot(minutes, values, color="0.8", lw=0.8)
            axis.plot(minutes, running_mean(values), color="#1f4e79", lw=1.4)
            axis.set_title(f"{folder.name}: {name.replace('_', ' ')}", fontsize=9)
            axis.set_xlabel("minutes", fontsize=8)
            axis.tick_params(labelsize=8)
    figure.savefig(out, dpi=90)


def running_mean(values):
    """Mean of up to `WINDOW` values around each."""
    half = WINDOW // 2
    around = [values[max(0, at - half) : at + half + 1] for at in range(len(values))]
    return [sum(some) / len(some) for some in around]


if __name__ == "__main__":
    main()

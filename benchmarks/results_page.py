"""Writes the tables of docs/results.md from the reports in benchmarks/results.

    unflat evaluate reconstruction --model vq3d-small --data scenes-val.tar \
        --photos photos-val.tar --report benchmarks/results/reconstruction-64.json
    python benchmarks/results_page.py

Between ``<!-- NAME -->`` and ``<!-- end -->`` the page holds what this script puts there.
"""

import json
import re
from pathlib import Path

from unflat.evaluation import table_lines

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"


def main():
    page = PAGE.read_text(encoding="utf-8")
    for path in sorted(RESULTS.glob("*.json")):
        report = json.loads(path.read_text())
        if "protocol" in report and "figures" in report:
            block = "\n".join(["```text", *table_lines(report), "```"])
        elif all(isinstance(value, int | float | list) for value in report.values()):
            block = "\n".join(
                ["| figure | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in report.items())]
            )
        elif path.stem == "mixing":
            names = list(next(iter(report.values())))
            rows = [[name, *map(str, figures.values())] for name, figures in report.items()]
            head = [["trained on", *(name.replace("_", " ") for name in names)]]
            lines = [f"| {' | '.join(row)} |" for row in [*head, ["---"] * (len(names) + 1), *rows]]
            block = "\n".join(lines)
        else:
            continue
        marks = re.compile(rf"(<!-- {re.escape(path.stem)} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = marks.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

"""How fast `unflat evaluate generation` goes through many pictures, and that memory stays flat.

    python benchmarks/streaming.py [5000 20000 50000]

Writes tars of so many made-up pictures of 32 px, holds 100 flat cards of them against all of them,
each in a process of its own, and keeps pictures a second and the peak of memory in
benchmarks/results/streaming.json.
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent / "results" / "streaming.json"
SIDE = 32
KINDS = 512  # different pictures; their colors are shifted from one to the next


def write(path, count):
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (KINDS, 6, 6, 3), dtype=np.uint8)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            pixels = small[number % KINDS] + np.uint8(number // KINDS)
            file = io.BytesIO()
            picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            picture.save(file, "PNG")
            info = tarfile.TarInfo(f"{number:06d}.png")
            info.size = file.tell()
            archive.addfile(info, io.BytesIO(file.getvalue()))


def measure(count, folder):
    path = folder / f"{count}.tar"
    write(path, count)
    words = ["--model", "flat", "--data", str(path), "--inputs", str(path), "--count", "100"]
    command = [sys.executable, "-m", "unflat", "evaluate", "generation", *words, "--json"]
    done = subprocess.run(
        [*command, "--resolution", str(SIDE)], capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout.splitlines()[-1])
    pictures = count + 700
    seconds = next(v for name, v in report["seconds"].items() if name == "evaluate")
    return {
        "pictures": pictures,
        "pictures_per_second": round(pictures / seconds, 1),
        "peak_mib": round(report["peak_memory_mib"]["process"]),
    }


def main():
    named = [int(word) for word in sys.argv[1:] if re.fullmatch(r"\d+", word)]
    counts = named or [5000, 20000, 50000]
    with tempfile.TemporaryDirectory() as folder:
        rows = {str(count): measure(count, Path(folder)) for count in counts}
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    OUT.write_text(json.dumps({"threads": int(threads), "runs": rows}, indent=1) + "\n")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

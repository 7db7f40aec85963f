"""Many pictures at once: which there are, which are done, and one page to look through them.

rooms/
    cat/ , dog/ , ...    one result folder for each picture, in sub-folders as the pictures were
    index.html           previews, sortable by confidence; failures below
    report.jsonl         one line for each picture, done or failed

Several processes share the work by RANK and WORLD_SIZE; each skips what is done, so the same
command again continues.
"""

import glob
import html
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unflat.data import FolderSource
from unflat.errors import UserError
from unflat.files import atomic_path
from unflat.report import Report

STDIN = "-"
"""The input that stands for a picture piped in."""

_FAILED = ".failed"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to do."""

    source: str
    """Path of the picture, or `STDIN`."""
    name: str
    """Of its result folder, sub-folders included, as in "holiday/cat"."""


@dataclass(kw_only=True)
class Tally:
    """How a run over many pictures went."""

    done: list[str] = field(default_factory=list)
    """Names that were done now."""
    skipped: list[str] = field(default_factory=list)
    """Names that had been done before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Sources that could not be used, and why."""


def find_pictures(inputs: Sequence[str]) -> list[Job]:
    """All pictures of files, folders, patterns (``*.jpg``) and ``-``, each with a name of its own.

    Two pictures of one stem keep their endings: ``cat-jpg`` and ``cat-png``.

    Raises:
        UserError: an input matches nothing.
    """
    found: list[tuple[str, Path]] = []  # source, name with its ending
    for text in inputs:
        path = Path(text)
        if text == STDIN:
            found.append((STDIN, Path("stdin")))
        elif path.is_dir():
            source = FolderSource(path)
            # What nothing here can read is named as well, so that it is counted as failed.
            files = sorted([*source.files, *(Path(reject.name) for reject in source.rejects)])
            found += [(str(file), file.relative_to(path)) for file in files]
        elif not path.exists() and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  (pattern may be absolute)
            if not matches:
                raise UserError(f"{text}: no file matches; check the pattern.")
            found += [(match, Path(Path(match).name)) for match in matches]
        else:
            found.append((text, Path(path.name)))
    return _named(found)


def own_share(jobs: Sequence[Job]) -> list[Job]:
    """The jobs of this process, by RANK and WORLD_SIZE; all of them if those are not set."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return list(jobs[rank::size])


def is_done(out: Path, job: Job) -> bool:
    """Whether a job's result folder is whole."""
    return (out / job.name / "report.json").is_file()


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    work: Callable[[Job, Path, Report], None],
    report: Report,
    *,
    force: bool = False,
) -> Tally:
    """Do what is not done; bad pictures are skipped, counted and listed; then write the page.

    Args:
        jobs: of this process.
        out: folder of the results.
        work: makes one result folder of one picture with a report of its own.
        report: of the whole run.
        force: do again what is done.
    """
    tally = Tally()
    with report.stage("pictures", total=len(jobs), unit="pictures") as stage:
        for job in jobs:
            if is_done(out, job) and not force:
                tally.skipped.append(job.name)
            else:
                _do(job, out, work, report, tally)
            stage.advance()
        stage.note = f"{len(tally.skipped)} had been done" if tally.skipped else ""
    write_index(out)
    return tally


def write_index(out: Path) -> None:
    """``report.jsonl`` and ``index.html`` from what lies in the folder."""
    lines = _collected(out)
    with atomic_path(out / "report.jsonl") as temporary:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(_page(out.name, lines), encoding="utf-8")


def _do(
    job: Job,
    out: Path,
    work: Callable[[Job, Path, Report], None],
    report: Report,
    tally: Tally,
) -> None:
    own = Report(
        report.verb,
        inputs=[job.source],
        seed=report.seed,
        device=report.device,
        settings=report.settings,
    )
    note = out / _FAILED / (quote(job.name, safe="") + ".json")
    try:
        work(job, out / job.name, own)
    except UserError as error:
        reason = str(error)
        tally.failed[job.source] = reason
        report.fail(job.source, reason)
        report.warn(reason)
        note.parent.mkdir(parents=True, exist_ok=True)
        line = {"name": job.name, "input": job.source, "status": "failed", "reason": reason}
        note.write_text(json.dumps(line, ensure_ascii=False), encoding="utf-8")
        return
    tally.done.append(job.name)
    note.unlink(missing_ok=True)
    for sentence, about in own.warnings:
        report.warn(sentence, about or job.source)


def _named(found: list[tuple[str, Path]]) -> list[Job]:
    stems: dict[Path, int] = {}
    for _, path in found:
        stems[path.with_suffix("")] = stems.get(path.with_suffix(""), 0) + 1
    jobs, taken = [], set()
    for source, path in found:
        name = path.with_suffix("").as_posix()
        if stems[path.with_suffix("")] > 1:
            name = f"{name}-{path.suffix.removeprefix('.')}"
        number, unique = 2, name
        while unique in taken:
            number, unique = number + 1, f"{name}-{number}"
        taken.add(unique)
        jobs.append(Job(source=source, name=unique))
    return jobs


def _collected(out: Path) -> list[dict[str, Any]]:
    """One line for each picture of the folder, in the order of names."""
    lines = []
    for path in out.rglob("report.json"):
        name = path.parent.relative_to(out).as_posix()
        if name == "." or any(part.endswith(".partial") for part in path.parts):
            continue
        own = json.loads(path.read_text(encoding="utf-8"))
        lines.append(
            {
                "name": name,
                "input": (own["inputs"] or [""])[0],
                "status": "done",
                "confidence": own["confidence"],
                "seconds_total": own["seconds_total"],
                "warnings": own["warnings"],
                "figures": own["figures"],
            }
        )
    done = {line["name"] for line in lines}
    for path in (out / _FAILED).glob("*.json"):
        line = json.loads(path.read_text(encoding="utf-8"))
        if line["name"] not in done:
            lines.append(line)
    return sorted(lines, key=lambda line: line["name"])


def _page(title: str, lines: list[dict[str, Any]]) -> str:
    done = [line for line in lines if line["status"] == "done"]
    failed = [line for line in lines if line["status"] == "failed"]
    cards = "\n".join(_card(line) for line in done)
    problems = "".join(f"<li>{html.escape(line['reason'])}</li>" for line in failed)
    below = f"<h2>Not usable: {len(failed)}</h2><ul>{problems}</ul>" if failed else ""
    return _PAGE.format(title=html.escape(title), count=len(done), cards=cards, failures=below)


def _card(line: dict[str, Any]) -> str:
    name, place = html.escape(line["name"]), quote(line["name"])
    confidence = line["confidence"]
    shown = "not known" if confidence is None else f"{confidence:.2f}"
    value = -1 if confidence is None else confidence
    return (
        f'<li data-name="{name}" data-confidence="{value}"><a href="{place}/viewer.html">'
        f'<img src="{place}/preview.png" loading="lazy" alt="preview of {name}"></a>'
        f"<p>{name} <span>confidence {shown}</span></p></li>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ margin: 1.5rem; }}
ul.pictures {{ display: grid; gap: 1rem; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }}
img {{ width: 100%; height: auto; display: block; }}
p {{ margin: .2rem 0 0; overflow-wrap: anywhere; }}
select {{ font: inherit; min-height: 44px; }}
</style>
<h1>{title}</h1>
<p>{count} pictures. <label>Sort by <select id="order">
<option value="name">name</option>
<option value="low">confidence, lowest first</option>
<option value="high">confidence, highest first</option>
</select></label></p>
<ul class="pictures" id="pictures">
{cards}
</ul>
{failures}
<script>
const list = document.getElementById("pictures");
document.getElementById("order").addEventListener("change", (event) => {{
  const order = event.target.value;
  const items = [...list.children];
  const confidence = (item) => Number(item.dataset.confidence);
  items.sort((a, b) => order === "name"
    ? a.dataset.name.localeCompare(b.dataset.name)
    : (order === "low" ? 1 : -1) * (confidence(a) - confidence(b)));
  list.append(...items);
}});
</script>
</html>
"""

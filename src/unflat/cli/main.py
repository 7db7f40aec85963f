"""From the words of a command line to an exit code.

0 all done; 1 a bug; 2 a person's mistake; 3 some of many inputs failed; 130 stopped by Ctrl-C.
"""

import difflib
import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unflat.cli.verbs import TRAINED_BY, VERBS
from unflat.errors import UserError
from unflat.report import versions
from unflat.systems.gan.registry import SYSTEMS
from unflat.terminal import Terminal

DONE, BUG, MISTAKE, SOME_FAILED, STOPPED = 0, 1, 2, 3, 130

_HELP = ("-h", "--help", "help")


def main(arguments: Sequence[str]) -> int:
    """Exit code of the command with these arguments (the program's name is not one of them)."""
    terminal = Terminal()
    try:
        name, rest = _split(list(arguments))
        if name is None:
            print(_overview(rest[0] if rest else ""))
            return DONE
        module = importlib.import_module(VERBS[name].module)
        options = _parse(name, module.Options, rest)
        terminal = Terminal(quiet=options.quiet, json_lines=options.json)
        with _listening(terminal):
            return _run(module, options, terminal)
    except UserError as error:
        return _mistake(terminal, str(error))
    except BrokenPipeError:
        # Whoever read us has enough (``unflat ... | head``); nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        terminal.error("stopped; what is whole is kept, run the same again for the rest.")
        return STOPPED


def _run(module: Any, options: Any, terminal: Terminal) -> int:
    try:
        with _marching(getattr(options, "backend", "auto")):
            return module.run(options, terminal)
    except (UserError, KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        sentence = _out_of_memory(error)
        if sentence is not None:
            return _mistake(terminal, sentence)
        for line in traceback.format_exc().rstrip().splitlines():
            terminal.error(line)
        about = ", ".join(f"{name} {version}" for name, version in versions().items())
        terminal.error(
            f"this is a bug in unflat, not your mistake; please report it with these lines: {about}"
        )
        terminal.object("error", {"error": f"{type(error).__name__}: {error}", "exit_code": BUG})
        return BUG


@contextmanager
def _listening(terminal: Terminal) -> Iterator[None]:
    """What the library remarks meanwhile becomes lines of the terminal."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            terminal.line(record.getMessage())

    log, lines = logging.getLogger("unflat"), Lines()
    before = log.level, log.propagate
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(lines)
        log.setLevel(before[0])
        log.propagate = before[1]


@contextmanager
def _marching(backend: str) -> Iterator[None]:
    """Has rays marched in one way, if one is named."""
    if backend == "auto":
        yield
        return
    from unflat.rendering import backends

    if backend == "fused" and not backends.installed():
        raise UserError('--backend fused: not installed; pip install "unflat[fast]".')
    with backends.use("fused" if backend == "fused" else "reference"):
        yield


def _mistake(terminal: Terminal, sentence: str) -> int:
    terminal.error(sentence)
    terminal.object("error", {"error": sentence, "exit_code": MISTAKE})
    return MISTAKE


def _out_of_memory(error: Exception) -> str | None:
    """The sentence for a full memory, None for any other error."""
    if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError"):
        if "out of memory" in str(error).lower():
            return "out of GPU memory; use --device cpu, or close what else uses the GPU."
    elif isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "out of memory; close other programs, or give a smaller picture or batch."
    return None


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The verb and what follows it; no verb where an overview is asked for.

    Raises:
        UserError: there is no such verb.
    """
    if not arguments or arguments[0] in _HELP:
        return None, []
    if arguments[0] in ("--version", "-V"):
        return None, ["--version"]
    first = arguments[0]
    if first in VERBS:
        return first, arguments[1:]
    group = [name for name in VERBS if name.split()[0] == first]
    if group:
        if len(arguments) == 1 or arguments[1] in _HELP:
            return None, [first]
        if arguments[1].startswith("-") and len(group) == 1:
            return group[0], arguments[1:]
        name = f"{first} {arguments[1]}"
        if arguments[1].startswith("-"):
            resumed = _resumed(arguments[1:]) if first == "train" else None
            if resumed is not None:
                return resumed, arguments[1:]
            kinds = ", ".join(verb.split()[1] for verb in group)
            raise UserError(f"{first}: say what; one of {kinds}.")
        if name in VERBS:
            return name, arguments[2:]
        if first == "train" and (system := arguments[1].replace("-", "_")) in SYSTEMS:
            return "train gan", ["--system", system, *arguments[2:]]
        raise UserError(_unknown(name, group))
    raise UserError(_unknown(first, list(VERBS)))


def _resumed(arguments: list[str]) -> str | None:
    """The training verb of the run that is to go on: its folder knows."""
    words = [part for word in arguments for part in word.split("=", 1)]
    if "--resume" not in words or "--out" not in words[:-1]:
        return None
    try:
        run = json.loads((Path(words[words.index("--out") + 1]) / "run.json").read_text())
        return TRAINED_BY.get(run["recipe"]["system"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unknown(name: str, known: list[str]) -> str:
    words = {candidate if " " in name else candidate.split()[0] for candidate in known}
    near = difflib.get_close_matches(name, sorted(words), 1)
    advice = f"did you mean {near[0]}?" if near else "see unflat --help."
    return f"{name}: there is no such verb; {advice}"


def _overview(topic: str) -> str:
    """All verbs, those of a group, or the version."""
    version = versions()["unflat"]
    if topic == "--version":
        return f"unflat {version}"
    shown = {n: verb for n, verb in VERBS.items() if not topic or n.split()[0] == topic}
    width = max(len(name) for name in shown)
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in shown.items()]
    return "\n".join(
        (
            f"unflat {version}: flat pictures into 3D",
            "",
            "usage: unflat VERB [INPUT ...] [--out FOLDER] [options]",
            "",
            *lines,
            "",
            "options of a verb: unflat VERB --help",
            "start with: unflat demo",
        )
    )


def _parse(name: str, options: type, rest: list[str]) -> Any:
    """The verb's options; wrong ones end the process with 2 and the nearest suggestion."""
    import tyro

    return tyro.cli(
        options,
        prog=f"unflat {name}",
        args=rest,
        config=(tyro.conf.DisallowNone, tyro.conf.HelptextFromCommentsOff),
    )

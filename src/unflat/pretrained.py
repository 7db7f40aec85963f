"""Networks as transformers saves them: a folder with settings and weights, read without a network.

What is missing or damaged becomes a sentence, which ends with the caller's advice.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch

from unflat.errors import UserError


def read_settings(path: Path, advice: str) -> dict[str, Any]:
    """The object that a JSON file of the folder holds.

    Args:
        path: as in ``config.json``.
        advice: what to give instead.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is missing or no JSON; {advice}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; {advice}.")
    return content


def load_network(transformers: ModuleType, network: Any, folder: Path | str, advice: str) -> Any:
    """A network (a module of the class given) with all of its weights, in float32 on the CPU.

    Args:
        transformers: the package.
        network: the class of it that is loaded; weights beyond what it needs are passed over.
        folder: as transformers saves it.
        advice: what to give instead.

    Raises:
        UserError: the weights are missing, damaged, or not all there.
    """
    from safetensors import SafetensorError

    try:
        with _quiet(transformers.logging):
            module, found = network.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        raise UserError(f"{folder}: cannot be read ({reason}); {advice}.") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise UserError(
            f"{folder}: its file lacks {len(missing)} weights of the network, "
            f"{missing[0]} among them; {advice}."
        )
    return module


@contextmanager
def _quiet(logging: ModuleType) -> Iterator[None]:
    """No bars, and no warning that a file holds more than is wanted."""
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()

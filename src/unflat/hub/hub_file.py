"""One file of the Hugging Face hub, and what can go wrong on the way in a sentence."""

import re
from collections.abc import Sequence
from pathlib import Path

from unflat.errors import UserError, require_extra

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""As in "facebook/dinov2-base"."""


def hub_file(hub_id: str, names: Sequence[str], *, offline: bool = False) -> Path:
    """The first file that a model of the hub has, of several names; fetched if need be.

    Args:
        hub_id: as in "facebook/dinov2-base".
        names: of the file, the best first; with folders, as in "unet/config.json".
        offline: whether only what was downloaded before may be used.

    Raises:
        UserError: there is no such model, it has none of the files, or the network is needed and
            ruled out or not there.
    """
    hub = require_extra("huggingface_hub", "diffusion", hub_id)
    errors = require_extra("huggingface_hub.errors", "diffusion", hub_id)
    absent: Exception | None = None
    is_local = offline
    for name in names:
        try:
            return Path(hub.hf_hub_download(hub_id, name, local_files_only=is_local))
        except errors.LocalEntryNotFoundError as error:
            absent, is_local = error, True  # a network that is not there is waited for once
        except errors.EntryNotFoundError as error:
            absent = error if absent is None else absent
        except (errors.HfHubHTTPError, OSError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
            raise UserError(
                f"{hub_id}: cannot be downloaded ({reason}); check the name and the network, or "
                "give the path of its folder."
            ) from error
    if isinstance(absent, errors.LocalEntryNotFoundError):
        network = "--offline is set" if offline else "the hub cannot be reached"
        raise UserError(
            f"{hub_id}: is not on this computer and {network}; give the path of its folder."
        ) from absent
    raise UserError(
        f"{hub_id}: lacks a file that is needed ({' or '.join(names)}); choose another model."
    ) from absent

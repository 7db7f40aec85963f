"""What unflat says to a person: one exception type for mistakes that a person can mend."""

import importlib
from types import ModuleType


class UserError(Exception):
    """A person's mistake: one sentence that says what, where, and what to do.

    The command line prints it without a traceback and exits with 2.
    """


def require_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """An optional package, imported.

    Args:
        module: name to import, as in ``"av"``.
        extra: unflat's extra that installs it, as in ``"video"``.
        purpose: what the person asked for, as in ``"--format mp4"``; starts the sentence.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f'{purpose} needs the {extra} extra: pip install "unflat[{extra}]".'
        ) from error

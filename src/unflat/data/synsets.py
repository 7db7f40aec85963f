"""Words for ImageNet's class folders, from the lists that come with it.

::

    ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG     folders are WordNet's numbers
    LOC_synset_mapping.txt      "n01440764 tench, Tinca tinca"
    words.txt                   "n01440764", a tab, "tench, Tinca tinca"

A class is called by its first word (``tench``); where two are, as the bird and the machine
``crane``, the number follows: ``crane n02012849``.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unflat.errors import UserError

LISTS = ("LOC_synset_mapping.txt", "words.txt")
"""Names of lists that are looked for, in this order."""

_NUMBER = re.compile(r"n\d{8}")
_LEVELS = 4  # folders above: from train/ up to where Kaggle's archive is unpacked


def synset_names(path: Path, folders: Iterable[str | None]) -> dict[str, str]:
    """Words for those folders that are numbers of WordNet; empty if no list is found.

    Lists are looked for in the data set's folder, beside it, and in the folders above it. Numbers
    that no list has keep their name.

    Args:
        path: the data set's folder.
        folders: its class folders.

    Raises:
        UserError: a list cannot be read.
    """
    numbers = sorted({name for name in folders if name and _NUMBER.fullmatch(name)})
    if not numbers:
        return {}
    path = path.resolve()
    for folder in (path, *path.parents[:_LEVELS]):
        for name in LISTS:
            if (folder / name).is_file():
                return _named(numbers, folder / name)
    return {}


def _named(numbers: list[str], file: Path) -> dict[str, str]:
    wanted, words = set(numbers), {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: the list of class names cannot be read; mend it, or take it away."
        ) from error
    for line in lines:
        number, _, synonyms = line.replace("\t", " ", 1).partition(" ")
        first = synonyms.split(",")[0].strip()
        if number in wanted and first:
            words[number] = first
    often = Counter(words.values())
    return {n: word if often[word] == 1 else f"{word} {n}" for n, word in words.items()}

"""What a report says of the files it was measured on."""

import hashlib
from pathlib import Path
from typing import Any


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file; a folder has its name and the number of its files."""
    path = Path(path)
    if not path.is_file():
        return {"name": path.name, "files": sum(1 for file in path.rglob("*") if file.is_file())}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}

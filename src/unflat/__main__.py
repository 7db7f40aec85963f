"""``python -m unflat``, and the command ``unflat``."""

import sys

from unflat.cli.main import main as run


def main() -> None:
    """Run the command line of this process and end with its exit code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

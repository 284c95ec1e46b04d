"""`python -m blocks.emulator`: the emulator in the foreground."""

import sys

from blocks.emulator.options import parse_args
from blocks.emulator.server import serve, serve_attached


def main() -> None:
    """The module's command line."""
    options, attached = parse_args()
    try:
        (serve_attached if attached else serve)(options)
    except (OSError, ValueError) as error:
        sys.exit(f"the emulator can't start: {error}")


if __name__ == "__main__":
    main()

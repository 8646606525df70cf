# SPDX-License-Identifier: Apache-2.0
"""The program: `surefoot`, or `python -m surefoot`."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. Ctrl-C while it is still read ends it as at any later time, without a traceback."""
    try:
        from surefoot.cli.main import main as command_line
    except KeyboardInterrupt:
        raise SystemExit(128 + 2) from None
    command_line()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""`python -m surefoot` is `surefoot`."""

from surefoot.cli.main import main

if __name__ == "__main__":
    main()

"""Entry point of ``python -m robusttune`` and of the console script ``robusttune``."""

import sys


def run() -> None:
    """Run the command line, and exit with its status.

    Ctrl-C ends the process at once while the package is being imported.
    """
    from robusttune.interruption import leaving_at_once

    with leaving_at_once():
        from robusttune.cli import main
    sys.exit(main())


if __name__ == "__main__":
    run()

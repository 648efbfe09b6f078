"""``python -m robusttune``, and the console script."""

import sys


def run() -> None:
    from robusttune.interruption import leaving_at_once

    with leaving_at_once():
        from robusttune.cli import main
    sys.exit(main())


if __name__ == "__main__":
    run()

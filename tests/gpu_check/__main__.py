"""The command `python tests/gpu_check`, which needs nothing on the path but torch and the packages of robusttune."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from gpu_check.command import main  # noqa: E402, the path must know it first

if __name__ == "__main__":
    sys.exit(main())

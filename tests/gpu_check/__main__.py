"""The command `python tests/gpu_check`, which needs nothing on the path but torch and the packages of robusttune."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from gpu_check.command import main

if __name__ == "__main__":
    sys.exit(main())

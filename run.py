"""The command of a checkout: `python run.py ...` is `flowerexp run ...`.

The @hydra.main that fish looks for before it completes a command is in flowerexp/cli/run.py.
"""

import sys

from flowerexp.cli import run

if __name__ == "__main__":
    run.main(sys.argv[1:])

"""`python -m attenua` is the command line; `torchrun -m attenua train ...` starts here too."""

import sys

from attenua.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m phi3v_helpers`: the same as the command `phi3v`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

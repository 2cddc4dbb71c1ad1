"""`python -m phi3v_helpers demo`."""

import sys

from .demo import main

if __name__ == "__main__":
    if sys.argv[1:2] != ["demo"]:
        sys.exit("usage: python -m phi3v_helpers demo [--model MODEL] [--device DEVICE]")
    sys.exit(main(sys.argv[2:]))

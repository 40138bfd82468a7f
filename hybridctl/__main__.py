"""`python -m hybridctl` is `hybridctl`."""

import sys

from hybridctl.cli import main

if __name__ == "__main__":
    sys.exit(main())

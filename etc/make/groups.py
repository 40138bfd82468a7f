"""Print the packages of dependency groups in pyproject.toml, for a pip without `--group`."""

import sys
import tomllib
from pathlib import Path

groups = tomllib.loads(Path("pyproject.toml").read_text())["dependency-groups"]
print(*(package for name in sys.argv[1:] for package in groups[name]))

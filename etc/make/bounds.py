"""Print what the engines' tests need, at the newest versions of an index or at the lower bounds.

    python etc/make/bounds.py newest|oldest [torch]

torch is asked for by itself: pip takes it with arguments of its own. Of test tools, which are no
user's concern, the lock's versions are taken. What is pinned in pyproject.toml because a library
changes in each release is pinned with the lower bounds, and tried in its newest version.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_EXTRAS = ("gguf", "huggingface", "quantization", "adapters", "vision")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LOWER = re.compile(r"[>=]=([^,;\s]+)")


def main(which: str, only: str | None = None) -> None:
    """Print the packages of `newest` or `oldest`, on one line; all but torch, or only that."""
    project = tomllib.loads(Path("pyproject.toml").read_text())
    base = project["project"]["dependencies"]
    extras = project["project"]["optional-dependencies"]
    libraries = [
        one for extra in _EXTRAS for one in extras[extra] if not one.startswith("hybridd[")
    ]
    if which == "newest":
        wanted = {**{name(one): one for one in base}, **{name(one): name(one) for one in libraries}}
    else:
        wanted = {name(one): f"{name(one)}=={lower(one)}" for one in [*base, *libraries]}
    torch = wanted.pop("torch")
    if only == "torch":
        print(torch)
        return
    lock = Path("requirements.lock").read_text().splitlines()
    locked = dict(line.split("==") for line in lock if not line.startswith("#"))
    tools = [name(one) for one in project["dependency-groups"]["test"] if name(one) not in wanted]
    print(*wanted.values(), *(f"{tool}=={locked[tool]}" for tool in tools))


def name(requirement: str) -> str:
    """The package that a requirement is about."""
    found = _NAME.match(requirement)
    assert found, requirement
    return found[0]


def lower(requirement: str) -> str:
    """The version from which on it is met."""
    found = _LOWER.search(requirement)
    assert found, f"{requirement} has no lower bound"
    return found[1]


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What crosses a socket. Standard library only, no I/O.

`hybridctl` imports this package and nothing else of hybridd, so every module here must be
cheap to import: no dataclasses, no `typing` at run time, no `importlib.metadata`.
"""

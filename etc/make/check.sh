#!/bin/sh
# Finds a Python and a compiler and makes the virtual environment; whatever is missing is said in
# one line, before anything slow starts. Reads PYTHON (may be empty) and VENV.
set -eu

say() { echo "hybridd: $*" >&2; exit 1; }

good() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ -n "${PYTHON:-}" ]; then
    good "$PYTHON" || say "PYTHON=$PYTHON is no Python 3.11 or newer"
else
    for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
        if good "$candidate"; then PYTHON=$candidate; break; fi
    done
    [ -n "${PYTHON:-}" ] || say "Python 3.11 or newer is missing: sudo apt install python3 python3-venv"
fi
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || say "Python's venv module is missing: sudo apt install python3-venv"
{ command -v c++ || command -v g++ || command -v clang++; } >/dev/null || say "a C++ compiler is missing: sudo apt install build-essential"
{ command -v cc || command -v gcc || command -v clang; } >/dev/null || say "a C compiler is missing: sudo apt install build-essential"

[ -x "$VENV/bin/python" ] && good "$VENV/bin/python" || "$PYTHON" -m venv "$VENV"

#!/bin/sh
# Make .venv ready: everything Vectorwright needs, at the versions of uv.lock. Needs Python 3.11 or later and nothing else.
set -eu
cd "$(dirname "$0")/.."

for python in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$python" ] || continue
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" scripts/bootstrap.py
    fi
done
echo "bootstrap: no Python 3.11 or later was found (tried PYTHON, python3, python3.11 to python3.14): install one, or set PYTHON=/path/to/python3" >&2
exit 1

#!/bin/sh
# Make .venv (or the folder VENV), or bring it up to date: the package, editable, with the extras named by $1
# ("" or "[dev]"). Needs only python3 with pip. uv, itself from the package registry, does the installing where it can.
# LOWEST=1 takes the oldest versions that pyproject.toml allows instead of those of constraints.txt.
set -eu
python=${PYTHON:-python3}
venv=${VENV:-.venv}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "meshwright needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Try: make PYTHON=python3.12" >&2
    exit 1
}

if [ ! -x "$venv"/bin/python ] || ! "$venv"/bin/python -c 'import pip' 2>/dev/null; then
    rm -rf "$venv"
    # Debian's python3 has no ensurepip without python3-venv; virtualenv brings its own.
    "$python" -m venv "$venv" 2>/dev/null || {
        rm -rf "$venv"
        "$python" -m pip install --quiet --target "$venv"/bootstrap virtualenv
        PYTHONPATH="$venv"/bootstrap "$python" -m virtualenv --quiet "$venv"
        rm -rf "$venv"/bootstrap
    }
fi

"$venv"/bin/python -m pip install --quiet uv 2>/dev/null || true
# uv does not read pip's settings; a machine may keep a small build of torch where pip looks for it.
UV_FIND_LINKS=${UV_FIND_LINKS:-$("$venv"/bin/python -m pip config get :env:.find-links 2>/dev/null ||
    "$venv"/bin/python -m pip config get global.find-links 2>/dev/null || true)}
export UV_FIND_LINKS
[ -n "$UV_FIND_LINKS" ] || unset UV_FIND_LINKS

versions=constraints.txt
if [ -n "${LOWEST:-}" ]; then
    versions="$venv/lowest.txt"
    "$venv"/bin/python -m uv pip compile --quiet --resolution lowest-direct --extra dev --output-file "$versions" \
        pyproject.toml
fi

"$venv"/bin/python -m uv pip install --quiet --python "$venv"/bin/python --compile-bytecode \
    --constraint "$versions" --editable ".$1" ||
    "$venv"/bin/python -m pip install --quiet --constraint "$versions" --editable ".$1"

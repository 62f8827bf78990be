#!/bin/sh
# Build the wheel, install it into an empty environment and run the demo from there, outside of this tree: what a user
# gets must not need anything that only the tree has. PIP_OPTIONS="" takes the newest versions of everything.
set -eu
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
options=${PIP_OPTIONS---constraint $root/constraints.txt}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$root"
"$python" -m venv "$folder/venv"
# shellcheck disable=SC2086
"$folder/venv/bin/python" -m pip install --quiet $options "$folder"/meshwright-*.whl
cp -r "$root/examples/demo/orbit.mp4" "$folder"
cd "$folder"
unset PYTHONPATH
venv/bin/python -c "import meshwright; assert meshwright.__file__.startswith('$folder'), meshwright.__file__"
venv/bin/meshwright --help > /dev/null
venv/bin/meshwright reconstruct orbit.mp4 --out demo_out --turntable
for file in mesh.glb preview.png report.json turntable.mp4; do
    [ -s "demo_out/$file" ] || { echo "the wheel's demo wrote no $file" >&2; exit 1; }
done
venv/bin/python -m pip list 2> /dev/null | grep -i -E "^(meshwright|torch|numpy|numba|av) "

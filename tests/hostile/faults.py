"""End runs at random moments and on full disks, and say what is left: python tests/hostile/faults.py [--rounds 50].

Every run writes into a folder that holds whole results of an earlier one. Afterwards the folder must hold all of the
old files or all of the new, and after the next run nothing else.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import campaign
import generators

from meshwright import cli

OLD = ("--resolution", "16", "--refine", "off", "--vertex-colors", "--format", "glb,ply")
NEW = ("--resolution", "20", "--refine", "off", "--vertex-colors", "--format", "glb,ply")
SIGNALS = {"SIGKILL": -9, "SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=50, help="of each signal")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    rng = random.Random(chosen.seed)
    campaign._warm_up()
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        generators.posed(root)
        began = time.monotonic()
        _end(_start(root, "old", OLD))
        seconds = time.monotonic() - began
        _end(_start(root, "new", NEW))
        wrong = sum(_signalled(root, name, chosen.rounds, seconds, rng) for name in SIGNALS)
        wrong += _full_disks(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if wrong else 0


def _start(root: Path, out: str, options: tuple[str, ...]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.chdir(root)
            sink = os.open(root.parent / f"{root.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            sys.argv = ["meshwright", "reconstruct", ".", "--out", out, *options]
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        except KeyboardInterrupt:
            code = 71  # the signal came before the command line had begun, or after it had ended
        finally:
            os._exit(code)
    return pid


def _end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _state(folder: Path, root: Path) -> str:
    """old, new or mixed: whose meshes lie there."""

    def sums(place: Path) -> dict[str, str]:
        return {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in ("mesh.glb", "mesh.ply")}

    if {p.name for p in folder.iterdir() if p.name[0] != "."} != {p.name for p in (root / "old").iterdir()}:
        return "mixed"
    found = sums(folder)
    return "old" if found == sums(root / "old") else "new" if found == sums(root / "new") else "mixed"


def _signalled(root: Path, name: str, rounds: int, seconds: float, rng: random.Random) -> int:
    states: Counter[str] = Counter()
    for _ in range(rounds):
        shutil.rmtree(root / "out", ignore_errors=True)
        shutil.copytree(root / "old", root / "out")
        pid = _start(root, "out", NEW)
        time.sleep(rng.uniform(0, 1.1 * seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, name))
        code = _end(pid)
        left = any(path.name.startswith(".meshwright-") for path in (root / "out").iterdir())
        if code not in (0, SIGNALS[name], 71, -getattr(signal, name)) or (left and name != "SIGKILL"):
            states[f"exit {code}, leftovers {left}"] += 1
        _end(_start(root, "out/next", OLD))  # must not sweep what is not in its own folder
        shutil.rmtree(root / "out" / "next")
        from meshwright.files import atomic_path

        with atomic_path(root / "out" / "touch") as temporary:  # the next run that writes there
            temporary.touch()
        (root / "out" / "touch").unlink()
        if any(path.name.startswith(".") for path in (root / "out").iterdir()):
            states["not clean after the next run"] += 1
        states[_state(root / "out", root)] += 1
    print(f"{name} x {rounds}: {dict(states)}", flush=True)
    return rounds - states["old"] - states["new"] + sum(n for s, n in states.items() if s not in ("old", "new"))


def _full_disks(root: Path) -> int:
    """File systems of 32 KiB to 1 MiB, which fill up at different writes."""
    states: Counter[str] = Counter()
    place = root / "disk"
    place.mkdir()
    for kib in (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)], check=False, capture_output=True
        )
        if mounted.returncode:
            print("full disks: cannot mount a tmpfs here")
            return 0
        try:
            code = _end(_start(root, "disk", NEW))
            left = sorted(path.name for path in place.iterdir())
            kind = "empty" if not left else "new" if _state(place, root) == "new" else f"mixed {left}"
            states[f"exit {code}, {kind}"] += 1
        finally:
            subprocess.run(["umount", str(place)], check=False)
    print(f"full disks: {dict(states)}", flush=True)
    return sum(count for state, count in states.items() if state not in ("exit 2, empty", "exit 0, new"))


if __name__ == "__main__":
    sys.exit(main())

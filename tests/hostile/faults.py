"""End runs by signals and by refusals of the file system, and say what is left in DIR.

    python tests/hostile/faults.py [--rounds 50] [--seed 0] [--only signals,errors,kills,pairs,disks]
        [--signals SIGKILL] [--sample]

Every run writes into a folder that holds whole results of an earlier one. Afterwards the folder must hold all of the
old files or all of the new, and after the next run that writes there nothing else. Printed are tables of what was
found; what must not be stands after WRONG, and the exit code says so.

signals: each signal at the beginning of each stage, and before each rename of the last step.
errors:  each error of the file system at each operation that makes, writes, renames or removes: once, and from then on.
kills:   each signal at random moments. pairs: two runs into one folder at once. disks: full file systems.

Children are forks of this process, in which the functions that reach the file system are replaced (`_Saboteur`).
"""

import argparse
import builtins
import contextlib
import dataclasses
import errno
import functools
import hashlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import campaign
import generators

from meshwright import cli, evaluate, isolated
from meshwright.capture import load_views
from meshwright.cli import display
from meshwright.color import color_vertices
from meshwright.evaluate import preview
from meshwright.files import atomic_path
from meshwright.options import ColorOptions, FitOptions, ShapeOptions

# Results with every kind of file, made quickly; the two differ in every one of them.
OLD = ("--resolution", "16", "--refine", "off", "--vertex-colors", "--format", "glb,obj,ply,stl")
NEW = ("--resolution", "20", "--refine", "off", "--vertex-colors", "--format", "glb,obj,ply,stl")
# Through every stage; as long as signals need, no longer.
WHOLE = (
    "--resolution", "16", "--refine", "fast", "--time-budget", "0.5", "--texture-size", "256", "--format",
    "glb,obj,ply,stl", "--turntable",
)  # fmt: skip
UNREFINED = FitOptions(refine="off")
VERTEX_COLORS = ColorOptions(vertex_colors=True)
reconstruct = importlib.import_module("meshwright.reconstruct")  # the package's own name of it is the function
SIGNALS = {"SIGKILL": -9, "SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
ERRORS = ("ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS", "EIO", "ENAMETOOLONG", "EMFILE", "EBUSY")
LASTING = ("ENOSPC", "EROFS", "EIO")  # a disk that stays full, turns read-only or dies


class _Saboteur:
    """Replaces what reaches the file system below ``folder``, and calls ``act(number, what)`` before each of these.

    Operations are counted from 0. ``act`` may raise, or end the process.
    """

    def __init__(self, folder: Path, act: Callable[[int, str], None]) -> None:
        self._folder, self._act, self._count = str(folder), act, 0
        self._open = io.open
        for name in ("mkdir", "replace", "rename", "link", "unlink", "rmdir"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        os.open = self._os_open(os.open)
        builtins.open = io.open = self._file

    def _happens(self, what: str) -> None:
        self._count += 1
        self._act(self._count - 1, what)

    def _is_inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self._folder)

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            # shutil.rmtree names files by their folder's handle.
            if named.get("dir_fd") is not None or any(map(self._is_inside, arguments)):
                self._happens(name)
            return function(*arguments, **named)

        return called

    def _os_open(self, function: Callable[..., int]) -> Callable[..., int]:
        def called(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and self._is_inside(path):
                self._happens("create")
            return function(path, flags, *arguments, **named)

        return called

    def _file(self, file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or not self._is_inside(file):
            return self._open(file, mode, *arguments, **named)
        self._happens("open")
        return _SabotagedFile(self._open(file, mode, *arguments, **named), self._happens)


class _SabotagedFile:
    """A file whose writes and whose closing count as operations; closing, since buffers are written then."""

    def __init__(self, file: Any, happens: Callable[[str], None]) -> None:
        self._file, self._happens = file, happens

    def write(self, content: Any) -> int:
        self._happens("write")
        return self._file.write(content)

    def close(self) -> None:
        if not self._file.closed:
            try:
                self._happens("close")
            finally:
                self._file.close()

    def __enter__(self) -> "_SabotagedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Driver:
    """Runs in a temporary folder, and the table of how they ended."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng, self.wrong = root, random.Random(seed), 0
        generators.posed(root)
        began = time.monotonic()
        self._must_end_well("old", OLD)
        self.seconds = time.monotonic() - began
        self._must_end_well("new", NEW)
        self._sums = {name: _sums(root / name) for name in ("old", "new")}
        assert all(self._sums["old"][name] != self._sums["new"][name] for name in self._sums["old"])

    def _must_end_well(self, out: str, options: tuple[str, ...]) -> None:
        code = _end(self.start(out, options))
        if code:
            raise RuntimeError(f"a sound input ends in {code}: {(self.root / 'said').read_text()}")

    def start(self, out: str, options: tuple[str, ...], prepare: Callable[[], None] = lambda: None) -> int:
        """A run in a child, after ``prepare`` in that child; the child's number. What it says goes to ``said``."""
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.chdir(self.root)
                sink = os.open(self.root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(sink, 1)
                os.dup2(sink, 2)
                sys.argv = ["meshwright", "reconstruct", ".", "--out", out, *options]
                prepare()
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

    def broken(self, options: tuple[str, ...], prepare: Callable[[], None]) -> str:
        """One run into old results that ``prepare`` sabotages: how it ended, in words."""
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.root / "old", out)
        code = _end(self.start("out", options, prepare))
        said = (self.root / "said").read_text(errors="replace")
        lines = said.count("error: ")
        if "Traceback" in said or (code == 2 and lines != 1) or code in (1, 70):
            return f"exit {code} and {said.strip()[-200:]!a}"
        left = self._leftovers()
        state = self.state(out)
        self.next_run()
        if self._leftovers():
            return f"exit {code}, {state}, not clean after the next run"
        after = self.state(out)
        shown = f"exit {code}, {state}"
        if left:
            shown += ", leftovers until the next run"
        if after != state:
            shown += f", {after} after it"
        return shown

    def next_run(self) -> None:
        """What the next run that writes into the folder does first and last."""
        with atomic_path(self.root / "out" / "touch") as temporary:
            temporary.touch()
        (self.root / "out" / "touch").unlink()

    def _leftovers(self) -> list[str]:
        return [path.name for path in (self.root / "out").iterdir() if path.name.startswith(".")]

    def state(self, folder: Path) -> str:
        """old, new or mixed: whose files lie there. WHOLE's are new where they are whole: they take long to make."""
        if not folder.is_dir() or not any(folder.iterdir()):
            return "nothing"
        found = _sums(folder)
        for name, sums in self._sums.items():
            if found == sums:
                return name
        old = self._sums["old"]
        fresh = {"mesh.png", "turntable.mp4"}  # which a textured result has more
        own = old.keys() - {"report.json"}  # WHOLE has the resolution of OLD
        if found.keys() == old.keys() | fresh and all(found[name] != old[name] for name in own):
            return "new"
        return "mixed"

    def judge(self, where: str, states: Counter[str], allowed: Callable[[str], bool]) -> None:
        """One row of a table; what must not be is counted."""
        bad = {state: count for state, count in states.items() if not allowed(state)}
        self.wrong += sum(bad.values())
        row = "; ".join(f"{count} x {state}" for state, count in sorted(states.items()))
        print(f"| {where} | {sum(states.values())} | {row} |" + (f" WRONG: {bad}" if bad else ""), flush=True)

    def signals(
        self, names: Sequence[str] = tuple(SIGNALS), stages: Sequence[str] | None = None, every: int = 1
    ) -> None:
        """Each signal at the beginning of each stage, then before each rename of the last step."""
        moves = len(self._sums["old"])
        stages = self._stages() if stages is None else stages
        print("| signal at | runs | ended |\n| --- | --- | --- |")
        for name in names:
            number = getattr(signal, name)
            for stage in stages:
                state = self.broken(WHOLE, lambda stage=stage, number=number: _at_stage(stage, number))
                self.judge(f"{name} at {stage}", Counter([state]), lambda s, name=name: _is_sound(s, SIGNALS[name]))
            states: Counter[str] = Counter()
            for move in range(0, moves, every):
                prepare = lambda move=move, number=number: _at_move(self.root / "out", move, number)  # noqa: E731
                states[self.broken(NEW, prepare)] += 1
            self.judge(f"{name} at a rename", states, lambda s, name=name: _is_sound(s, SIGNALS[name]))

    def _stages(self) -> list[str]:
        notes = self.root / "stages"
        code = _end(self.start("all", WHOLE, lambda: _note_stages(notes)))
        if code:
            raise RuntimeError((self.root / "said").read_text())
        shutil.rmtree(self.root / "all")
        return list(dict.fromkeys(notes.read_text().split("\n")[:-1]))

    def errors(self, names: Sequence[str] = ERRORS, lasting: Sequence[str] = LASTING, every: int = 1) -> None:
        """Each error at each operation, and for some from that operation on."""
        _ = self._work  # once, here
        operations = self._operations()
        chosen = list(enumerate(operations))[::every]
        print(f"{len(operations)} operations: {dict(Counter(operations))}")
        print("| error at | runs | ended |\n| --- | --- | --- |")
        for name, on in [*((name, False) for name in names), *((name, True) for name in lasting)]:
            rows: dict[str, Counter[str]] = {}
            for number, what in chosen:
                state = self.broken(NEW, lambda n=number, e=name, on=on: self._refuse(n, e, on))
                rows.setdefault(what, Counter())[state] += 1
            for what, states in rows.items():
                where = f"{name} from there on: {what}" if on else f"{name} once at: {what}"
                self.judge(where, states, lambda s: _is_sound(s, 2))

    def _refuse(self, number: int, name: str, lasting: bool) -> None:
        code = getattr(errno, name)

        def act(count: int, what: str) -> None:
            # A full disk takes no more, but lets go.
            if count == number or (lasting and count > number and not (name == "ENOSPC" and what in _REMOVALS)):
                raise OSError(code, os.strerror(code))

        self._know_the_work()
        _Saboteur(self.root / "out", act)

    def _operations(self) -> list[str]:
        notes = self.root / "operations"
        handle = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def note() -> None:
            self._know_the_work()
            _Saboteur(self.root / "out", lambda _, what: os.write(handle, what.encode() + b"\n") and None)

        ended = self.broken(NEW, note)
        os.close(handle)
        if ended != "exit 0, new":
            raise RuntimeError(f"{ended}: {(self.root / 'said').read_text()}")
        return notes.read_text().split("\n")[:-1]

    @functools.cached_property
    def _work(self) -> dict[str, Any]:
        views = load_views(self.root)
        start = reconstruct.start_shape(views, shape=ShapeOptions(resolution=int(NEW[1])), fit=UNREFINED)
        finished = reconstruct.finish(start, views, fit=UNREFINED, color=VERTEX_COLORS)
        colored = color_vertices(start.mesh, views)
        scored = [evaluate.Scored.of(colored, views), evaluate.Scored.of(finished.mesh, finished.views)]
        start = dataclasses.replace(start, mesh=colored)
        return {"views": views, "start": start, "finished": finished, "scored": scored, "preview": preview(scored)}

    def _know_the_work(self) -> None:
        """In a child: what a run computes is there already, so that its time goes into files."""
        known = self._work
        isolated.file_readers = lambda _: isolated.Readers(lambda *_, **__: known["views"], None, None)
        reconstruct.start_shape = lambda *_, **__: known["start"]
        reconstruct.finish = lambda *_, **__: known["finished"]
        in_turn = iter(known["scored"])
        evaluate.Scored.of = lambda *_: next(in_turn)
        evaluate.preview = lambda *_: known["preview"]

    def kills(self, rounds: int, names: Sequence[str] = tuple(SIGNALS)) -> None:
        """Each signal at random moments of a run."""
        print("| signal at random moments | runs | ended |\n| --- | --- | --- |")
        for name in names:
            code = SIGNALS[name]
            states: Counter[str] = Counter()
            for _ in range(rounds):
                moment = self.rng.uniform(0, 1.1 * self.seconds)
                number = getattr(signal, name)
                states[self.broken(NEW, lambda n=number, m=moment: _after(m, n))] += 1
            # 71 and the signal itself: it came before the command line had begun, or after it had ended
            ends = (code, -getattr(signal, name), 71)
            self.judge(name, states, lambda s, ends=ends: any(_is_sound(s, end) for end in ends))

    def pairs(self, rounds: int) -> None:
        """Two runs into one folder that begin and end almost together: the files of one of them, all of them."""
        states: Counter[str] = Counter()
        for _ in range(rounds):
            shutil.rmtree(self.root / "out", ignore_errors=True)
            runs = [self.start("out", OLD), self.start("out", NEW)]
            codes = [_end(run) for run in runs]
            left = self._leftovers()
            states[f"exits {codes}, {self.state(self.root / 'out')}" + (f", left {left}" if left else "")] += 1
        print("| two runs at once | runs | ended |\n| --- | --- | --- |")
        self.judge("into one DIR", states, lambda s: s in ("exits [0, 0], old", "exits [0, 0], new"))

    def disks(self) -> None:
        """File systems of 32 KiB to 1 MiB, which fill up at different writes."""
        states: Counter[str] = Counter()
        place = self.root / "disk"
        place.mkdir()
        for kib in (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024):
            mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
            if subprocess.run(mount, check=False, capture_output=True).returncode:
                print("full disks: cannot mount a tmpfs here")
                return
            try:
                code = _end(self.start("disk", NEW))
                states[f"exit {code}, {self.state(place)}"] += 1
            finally:
                subprocess.run(["umount", str(place)], check=False)
        print("| full disk | runs | ended |\n| --- | --- | --- |")
        self.judge("tmpfs of 32 KiB to 1 MiB", states, lambda s: s in ("exit 2, nothing", "exit 0, new"))


_REMOVALS = ("unlink", "rmdir")


def _is_sound(state: str, code: int) -> bool:
    """Whether a run that ``code`` ended left whole results, or leaves them to the next run."""
    if state == "exit 0, new" or state == f"exit {code}, old":
        return True
    if state in ("exit 0, new, leftovers until the next run", f"exit {code}, new"):  # it came after the last rename
        return True
    left = f"exit {code}, (?:old|new|mixed), leftovers until the next run"
    return bool(re.fullmatch(rf"{left}(?:, new after it)?", state)) and (
        "mixed" not in state or state.endswith("new after it")
    )


def _at_stage(stage: str, number: int) -> None:
    show = display.Bars.__call__

    def call(bars: Any, name: str, fraction: float, detail: str = "") -> None:
        if name == stage:
            os.kill(os.getpid(), number)
        show(bars, name, fraction, detail)

    display.Bars.__call__ = call  # type: ignore[method-assign]


def _note_stages(notes: Path) -> None:
    show = display.Bars.__call__

    def call(bars: Any, name: str, fraction: float, detail: str = "") -> None:
        with notes.open("a") as file:
            file.write(name + "\n")
        show(bars, name, fraction, detail)

    display.Bars.__call__ = call  # type: ignore[method-assign]


def _at_move(folder: Path, number: int, sent: int) -> None:
    """Send a signal before the ``number``-th rename into ``folder`` itself."""
    replace, moves = os.replace, []

    def called(source: Any, target: Any) -> None:
        if Path(target).absolute().parent == folder:
            moves.append(target)
            if len(moves) - 1 == number:
                os.kill(os.getpid(), sent)
        replace(source, target)

    os.replace = called


def _after(seconds: float, number: int) -> None:
    """Have a signal sent by a process of its own, whatever this one is busy with."""
    target = os.getpid()
    if os.fork() == 0:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, number)
        os._exit(0)


def _end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _sums(folder: Path) -> dict[str, str]:
    return {path.name: _sum(path) for path in folder.iterdir() if not path.name.startswith(".")}


def _sum(path: Path) -> str:
    """What tells one run's file from another's; of a report the settings, since it has times in it, too."""
    content = path.read_bytes()
    if path.name == "report.json":
        content = json.dumps(json.loads(content)["settings"]["shape"]).encode()
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=50, help="of each signal at random moments")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--signals", default=",".join(SIGNALS), help="those that are sent")
    options.add_argument("--errors", default=",".join(ERRORS), help="those that come once")
    options.add_argument("--lasting", default=",".join(LASTING), help="those that stay from there on")
    options.add_argument("--only", default="signals,errors,kills,pairs,disks")
    options.add_argument("--sample", action="store_true", help="a few of each, in some seconds")
    chosen = options.parse_args()
    names, once, lasting = (text.split(",") for text in (chosen.signals, chosen.errors, chosen.lasting))
    campaign._warm_up()
    root = Path(tempfile.mkdtemp(prefix="faults-")).resolve()
    try:
        driver = Driver(root, chosen.seed)
        for what in chosen.only.split(","):
            if what == "signals":
                driver.signals(*((("SIGKILL", "SIGTERM"), ("hull",), 3) if chosen.sample else (names,)))
            elif what == "kills":
                driver.kills(2 if chosen.sample else chosen.rounds, names)
            elif what == "errors":
                driver.errors(*((("ENOSPC",), ("EROFS",), 19) if chosen.sample else (once, lasting)))
            elif what == "disks":
                driver.disks()
            else:
                driver.pairs(2 if chosen.sample else chosen.rounds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{driver.wrong} wrong")
    return 1 if driver.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run hostile inputs through the real command line, each in a child with limits, and count what goes wrong.

    python tests/hostile/campaign.py --count 2000 --seed 1 [--corpus] [--only TEXT] [--show]

The library is loaded once; every case is a fork of that process, with its own folder, limits on memory and time, an
audit that notes programs started, connections and files written elsewhere, and a listener that notes who calls.
The last line is ``N inputs, tracebacks, wrong exits, leftovers, code executions, worst memory, worst time``.
"""

import argparse
import contextlib
import itertools
import os
import re
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import generators

from meshwright import cli

EXTRA_MEMORY = 6 << 30  # address space beyond what the loaded library has; what was resident is measured
CPU_S, WALL_S = 60, 240
MOST_MEMORY_MIB, MOST_CPU_S = 1536, 30  # for a refusal
# Of Python's audit events those that start a program, load code or reach for the net.
FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
    "os.startfile", "webbrowser.open", "urllib.Request", "socket.connect", "socket.getaddrinfo", "socket.bind",
    "ftplib.connect", "http.client.connect", "smtplib.connect",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    name: str
    exit_code: int
    faults: tuple[str, ...]
    cpu_s: float
    wall_s: float
    memory_mib: float
    said: str


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=100, help="random cases, beside the corpus")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--corpus", action="store_true", help="the named cases too")
    options.add_argument("--only", default="", help="cases whose name holds this")
    options.add_argument("--every", type=int, default=1, help="of the corpus only every n-th case")
    options.add_argument("--show", action="store_true", help="one line for each case")
    chosen = options.parse_args()
    named = generators.corpus()[:: chosen.every] if chosen.corpus else []
    cases = itertools.chain(named, itertools.islice(generators.random_cases(chosen.seed), chosen.count))
    outcomes = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        _warm_up()
        for case in cases:
            if chosen.only in case.name:
                outcome = run(case, listener)
                outcomes.append(outcome)
                if chosen.show or outcome.faults:
                    print(_line(outcome), flush=True)
    return _summary(outcomes)


def run(case: generators.Case, listener: socket.socket) -> Outcome:
    """Run one case in a forked child and look at what it said, took and left."""
    # Not named after the case: what is written into it must not depend on the name.
    root = Path(tempfile.mkdtemp(prefix="hostile-"))
    folder, temporary = root / "here", root / "tmp"
    folder.mkdir()
    temporary.mkdir()
    try:
        generators.surroundings(folder)
        case.build(folder)
        port = listener.getsockname()[1]
        for file in folder.iterdir():
            if file.is_file() and not file.is_symlink() and file.stat().st_size < 1 << 20:
                content = file.read_bytes()
                if b"{port}" in content:
                    file.write_bytes(content.replace(b"{port}", str(port).encode()))
        before = {path.name for path in folder.iterdir()}
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _child(case, folder, root, port)
        status, usage, hung = _wait(pid)
        wall_s = time.monotonic() - started
        stderr = (root / "stderr").read_text(errors="replace")
        audit = (root / "audit").read_text(errors="replace").splitlines()
        left = {path.name for path in folder.iterdir()} - before - {"out", "x.safetensors"}
        code = os.waitstatus_to_exitcode(status)
        faults = _faults(case, code, hung, stderr)
        faults += ["code: " + line for line in audit[:3]]
        if (folder / "pwned").exists() or _called(listener):
            faults.append("code: a file or connection was made")
        if code and ("out" in {path.name for path in folder.iterdir()} - before):
            faults.append("leftover: out")
        if any(".meshwright-" in name for _, folders, files in os.walk(root) for name in (*folders, *files)):
            faults.append("leftover: .meshwright-")
        if (code and left) or any(temporary.iterdir()):
            faults.append(f"leftover: {sorted(left)[:3]} {[p.name for p in temporary.iterdir()][:3]}")
        cpu_s, memory_mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        if code and (memory_mib > MOST_MEMORY_MIB or cpu_s > MOST_CPU_S):
            faults.append(f"wrong exit: took {memory_mib:.0f} MiB and {cpu_s:.0f} s to refuse")
        return Outcome(case.name, code, tuple(faults), cpu_s, wall_s, memory_mib, _error(stderr))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _child(case: generators.Case, folder: Path, root: Path, port: int) -> None:
    """Never returns: becomes the command line with its output in files."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(case.environment, TMPDIR=str(root / "tmp"))
        tempfile.tempdir = None
        audit = os.open(root / "audit", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        error = os.open(root / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        out = os.open(case.stdout if case.stdout == "/dev/full" else root / "stdout", os.O_WRONLY | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(error, 2)
        encoding = case.environment.get("PYTHONIOENCODING", "utf-8")
        # ruff: noqa: SIM115
        sys.stdout = open(1, "w", encoding=encoding, closefd=False)
        sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)
        if case.stdout == "closed":
            os.close(1)
            sys.stdout = None  # as Python itself sets it
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + EXTRA_MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        def note(event: str, arguments: Any) -> None:
            if event in FORBIDDEN:
                os.write(audit, f"{event} {arguments!a}\n"[:500].encode())

        sys.addaudithook(note)
        sys.argv = ["meshwright", *(argument.replace("{port}", str(port)) for argument in case.arguments)]
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except Exception:
            code = code or 120  # as Python itself ends where it cannot flush
    except BaseException:
        import traceback

        with contextlib.suppress(BaseException):
            os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        code = 1
    finally:
        os._exit(code)


def _wait(pid: int) -> tuple[int, Any, bool]:
    end = time.monotonic() + WALL_S
    pause = 0.002
    while time.monotonic() < end:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage, False
        time.sleep(pause)
        pause = min(0.05, pause * 1.3)
    os.kill(pid, 9)
    _, status, usage = os.wait4(pid, 0)
    return status, usage, True


def _faults(case: generators.Case, code: int, hung: bool, stderr: str) -> list[str]:
    if hung:
        return ["wrong exit: hangs"]
    if "Traceback (most recent call last)" in stderr:
        return [f"traceback: {stderr.strip().splitlines()[-1][:200]}"]
    if code not in (0, 2):
        return [f"wrong exit: {code} {stderr.strip()[-150:]!a}"]
    lines = len(re.findall(r"^(?:\x1b\[[0-9;]*m)*error: ", stderr, re.MULTILINE))
    # What argument parsers say spans several lines; it must still name the mistake.
    if code == 2 and lines != 1 and not re.search(r"(?i)usage|error|option|argument", stderr):
        return [f"wrong exit: 2 without a line that says why: {stderr[-200:]!a}"]
    if code == 2 and re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\u202e]|\x1b\[(?![0-9;?]*[mKAlhGJ])", stderr):
        return [f"wrong exit: control characters: {stderr[-200:]!a}"]
    return []


def _error(stderr: str) -> str:
    found = [line for line in stderr.splitlines() if "error" in line.lower()]
    return found[-1][:200] if found else ""


def _called(listener: socket.socket) -> bool:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True


def _warm_up() -> None:
    """Load everything that a run loads, and compile what it compiles, so that cases are timed without that."""
    root = Path(tempfile.mkdtemp(prefix="hostile-"))
    here, arguments, out = os.getcwd(), sys.argv, sys.stdout
    try:
        os.chdir(root)
        generators.posed(root)
        (root / "m.glb").write_bytes(generators.glb(*_gltf_bytes()))
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            for case in (
                ("reconstruct", ".", "--out", "out", *generators.QUICK),
                ("texture", "m.glb", ".", "--out", "out", "--vertex-colors"),
            ):
                sys.argv = ["meshwright", *case]
                try:
                    cli.main()
                except SystemExit as end:
                    if end.code:
                        raise RuntimeError(f"a sound input is refused: {case}") from end
    finally:
        os.chdir(here)
        sys.argv, sys.stdout = arguments, out
        shutil.rmtree(root, ignore_errors=True)


def _gltf_bytes() -> tuple[bytes, bytes]:
    import json

    tree, binary = generators.gltf_tree()
    return json.dumps(tree).encode(), binary


def _line(outcome: Outcome) -> str:
    faults = "; ".join(outcome.faults) or outcome.said
    return (
        f"{outcome.name!a}: exit {outcome.exit_code}, {outcome.cpu_s:.2f} s, {outcome.memory_mib:.0f} MiB: {faults!a}"
    )


def _summary(outcomes: list[Outcome]) -> int:
    kinds = Counter(kind for outcome in outcomes for kind in {fault.split(":")[0] for fault in outcome.faults})
    refused = [outcome for outcome in outcomes if outcome.exit_code]
    if refused:
        print(
            f"refused {len(refused)}: CPU s median {statistics.median(o.cpu_s for o in refused):.2f}, "
            f"worst {max(o.cpu_s for o in refused):.2f}, memory worst {max(o.memory_mib for o in refused):.0f} MiB; "
            f"accepted {len(outcomes) - len(refused)}"
        )
    print(
        f"{len(outcomes)} inputs, {kinds['traceback']} tracebacks, {kinds['wrong exit']} wrong exits, "
        f"{kinds['leftover']} leftovers, {kinds['code']} code executions, "
        f"worst memory {max((o.memory_mib for o in outcomes), default=0):.0f} MiB, "
        f"worst time {max((o.cpu_s for o in outcomes), default=0):.1f} s"
    )
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())

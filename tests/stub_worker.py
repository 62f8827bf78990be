"""A stand-in for `meshwright.app.worker` that needs no torch: does what the first uploaded file says."""

import json
import os
import sys
import threading
import time
from pathlib import Path


def _end_with_the_server() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    task = json.loads(sys.stdin.readline() or "null")
    if task is None:
        return
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    folder = Path(task["folder"])
    order = (folder / "upload" / "0000").read_bytes()[:100].decode("utf-8", "replace").split()
    order = order or ["done"]

    def say(**message: object) -> None:
        print(json.dumps(message), flush=True)

    say(stage="hull", fraction=0.5, detail="half")
    if order[0] == "wait":  # until a file appears, then done
        while not Path(order[1]).exists():
            time.sleep(0.02)
    if order[0] == "hang":
        (folder / "live" / "pid.txt").write_text(str(os.getpid()))
        say(show="pid.txt")
        time.sleep(600)
    if order[0] == "half":  # dies while writing
        (folder / "result-half").mkdir()
        (folder / "result-half" / "mesh.glb").write_bytes(b"half")
        os.kill(os.getpid(), 9)
    if order[0] == "hog":
        hog = bytearray(600 << 20)
        hog[::4096] = b"x" * len(hog[::4096])
        time.sleep(600)
    if order[0] == "crash":
        raise RuntimeError("secret of the server")
    if order[0] == "noise":
        print("x" * 200_000, flush=True)
        time.sleep(600)
    if order[0] == "fail":
        say(end="failed", error="film.mp4: is no film; send another")
        return
    (folder / "result").mkdir()
    (folder / "result" / "mesh.glb").write_bytes(b"glTF" + bytes(range(256)))
    (folder / "result" / "report.json").write_text(json.dumps(task["options"]))
    say(end="done")


if __name__ == "__main__":
    main()

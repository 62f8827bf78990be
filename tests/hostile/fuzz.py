"""Coverage-guided fuzzing of the parsers by atheris: pip install atheris; python tests/hostile/fuzz.py glb --seconds 60

Parsers: transforms, colmap, npz, pickle, glb, gltf, obj, mtl, ply, stl, safetensors, torch, mindspore. Each is fed
changes of a sound file of its kind that reach new lines. It may read it or refuse it as an `InputError` of one line;
whatever else it raises stops the run, with the input in the current folder. ``--corpus DIR`` keeps inputs for the next
run.
"""

import argparse
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["meshwright"]):
    from meshwright.capture.camera_files import read_camera_file
    from meshwright.errors import InputError
    from meshwright.mesh_files import load_mesh
    from meshwright.weights import read_checkpoint

import generators

ROOT = Path(tempfile.mkdtemp(prefix="fuzz-"))


def _in_folder(prepare: Callable[[Path], object], name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """Read one file of a folder that else is sound."""
    prepare(ROOT)
    path = ROOT / name

    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
        except InputError as error:
            if "\n" in str(error):
                raise RuntimeError("more than one line") from error

    return one


def _npz() -> bytes:
    import io

    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, cam_poses=generators.poses())
    return stream.getvalue()


def _beside_obj(folder: Path) -> None:
    (folder / "m.obj").write_text(generators.obj()[0])
    generators.disc().save(folder / "map.png")


def targets() -> dict[str, tuple[Callable[[Path], object], str, Callable[[Path], object], Callable[[], list[bytes]]]]:
    """By name: what else lies in the folder, the file that is fuzzed, its reader, and sound contents."""
    import json

    def tree() -> bytes:
        content, binary = generators.gltf_tree()
        content["buffers"][0]["uri"] = "m.bin"
        (ROOT / "m.bin").write_bytes(binary)
        return json.dumps(content).encode()

    def binary_tree() -> bytes:
        content, binary = generators.gltf_tree()
        return generators.glb(json.dumps(content).encode(), binary)

    forms = ("ascii", "binary_little_endian", "binary_big_endian")
    colmap = generators.colmap_binary()
    return {
        "transforms": (generators.posed, "transforms.json", read_camera_file,
                       lambda: [json.dumps(generators.transforms()).encode()]),
        "colmap": (lambda folder: generators.colmap(folder, colmap), "colmap/sparse/0/images.bin",
                   lambda path: read_camera_file(path.parent), lambda: [colmap["images.bin"]]),
        "npz": (generators.numbered, "cameras.npz", read_camera_file, lambda: [_npz()]),
        "pickle": (generators.numbered, "meta.pkl", read_camera_file,
                   lambda: [pickle.dumps([1, 2, 3, 4, generators.poses()], protocol) for protocol in (2, 4)]),
        "glb": (lambda _: None, "m.glb", load_mesh, lambda: [binary_tree()]),
        "gltf": (lambda _: None, "m.gltf", load_mesh, lambda: [tree()]),
        "obj": (_beside_obj, "m.obj", load_mesh, lambda: [generators.obj()[0].encode()]),
        "mtl": (_beside_obj, "m.mtl", lambda path: load_mesh(path.with_suffix(".obj")),
                lambda: [generators.obj()[1].encode()]),
        "ply": (lambda _: None, "m.ply", load_mesh, lambda: [generators.ply(form) for form in forms]),
        "stl": (lambda _: None, "m.stl", load_mesh, lambda: [generators.stl()]),
        "safetensors": (lambda _: None, "w.safetensors", read_checkpoint,
                        lambda: [generators.safetensors(), generators.whole_model({})]),
        "torch": (lambda _: None, "w.pt", read_checkpoint, lambda: [generators.torch_file()]),
        "mindspore": (lambda _: None, "w.ckpt", read_checkpoint, lambda: [generators.mindspore_file()]),
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("parser", choices=sorted(targets()))
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--corpus", type=Path, default=ROOT / "corpus")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    if child := os.fork():  # libFuzzer ends its process where it likes
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        shutil.rmtree(ROOT, ignore_errors=True)
        sys.exit(code)
    prepare, name, read, sound = targets()[chosen.parser]
    chosen.corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(sound()):
        (chosen.corpus / f"sound-{number}").write_bytes(content)
    flags = [
        f"-max_total_time={chosen.seconds}", f"-seed={chosen.seed}", "-max_len=8192", "-rss_limit_mb=2048",
        "-timeout=10", f"-artifact_prefix={os.getcwd()}/", "-verbosity=0", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, str(chosen.corpus)], _in_folder(prepare, name, read))
    atheris.Fuzz()


if __name__ == "__main__":
    main()

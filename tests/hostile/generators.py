"""Inputs that people feed by accident, and others on purpose: seeded, for every format and layer.

A `Case` is a command line and the folder it is run in. `corpus` holds the cases that once did harm, each with a name;
`random_cases` draws new ones without end: whole files with one to four changes, in their structure or in their bytes.
"""

import copy
import functools
import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from scipy.spatial.transform import Rotation

import captures
from meshwright import Cameras
from meshwright.model import ModelConfig, build_model

URL = "http://127.0.0.1:{port}/x"  # where the driver listens
LONG = 10**400
QUICK = ("--resolution", "16", "--refine", "off", "--vertex-colors")
OF_MODEL = ("--refine", "off", "--vertex-colors", "--model")  # which has its own resolution
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**63, -(2**63), LONG, -LONG, 1e-300, 1e-30, 1e-5, 1e7, 1e12, 1e30, 1e300, -1e300, 3e38, 1e308,
    float("nan"), float("inf"), -float("inf"), 0.0011, 3.139, 4294967295, 0.5, 65536,
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", "x", "/dev/zero", "/dev/urandom", "/etc/passwd", "../secret.png", "pipe", "sparse", "folder", "loop", URL,
    "file:///etc/passwd", "concat:0.png|1.png", "data:image/png;base64,AAAA", "[/red]", "\u202egnp", "\x1b[31m", "a\0b",
    "\udcff", "x" * 5000, "0.png/..", ".", "..", "~", "$(touch pwned)", "`touch pwned`", "| touch pwned", "-rf",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"a": 1}, [0] * 10_000)


@dataclass(frozen=True)
class Case:
    """``arguments`` of the command line, run in the folder that ``build`` has filled."""

    name: str
    arguments: tuple[str, ...]
    build: Callable[[Path], None]
    environment: dict[str, str] = field(default_factory=dict)
    stdout: str | None = None  # a file to write to instead; "closed" for none at all


# --- whole inputs, from which the broken ones are made ---------------------------------------------------------------


def surroundings(folder: Path) -> None:
    """What hostile names point at: a pipe, a file of 20 GB without content, a folder, a link to itself."""
    os.mkfifo(folder / "pipe")
    with (folder / "sparse").open("wb") as file:
        file.truncate(20 << 30)
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")


def disc(number: int = 0, side: int = 24) -> Image.Image:
    """A round object on a transparent ground."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 200, 40 * number % 256, 90
    pixels[..., 3] = 255 * (x**2 + y**2 < (side * 0.35) ** 2)
    return Image.fromarray(pixels)


def transforms() -> dict[str, Any]:
    cameras = Cameras.spherical([i * 60.0 for i in range(6)], [20.0, -30.0] * 3, 4.0, 30.0)
    frames = [
        {"file_path": f"{i}.png", "transform_matrix": [[round(x, 6) for x in row] for row in T]}
        for i, T in enumerate(cameras.T_world_camera.tolist())
    ]
    return {"camera_angle_x": 0.5236, "w": 24, "h": 24, "cx": 12.0, "cy": 12.0, "k1": 0.0, "frames": frames}


def posed(folder: Path, content: bytes | None = None) -> None:
    for i in range(6):
        disc(i).save(folder / f"{i}.png")
    (folder / "transforms.json").write_bytes(json.dumps(transforms()).encode() if content is None else content)


def numbered(folder: Path) -> None:
    """Pictures as published training sets have them, without their table of cameras."""
    for i in range(6):
        disc(i).save(folder / f"{i:03d}.png")


def capture(kind: str, files: dict[str, bytes]) -> Callable[[Path], None]:
    """A capture's files in their places, with its pictures."""
    places = {"polycam": ("keyframes/images", "keyframes/cameras"), "record3d": ("rgb", "."), "idr": ("image", ".")}

    def build(folder: Path) -> None:
        pictures, cameras = places.get(kind, (".", "."))
        for place in (pictures, cameras):
            (folder / place).mkdir(parents=True, exist_ok=True)
        for i in range(6):
            disc(i).save(folder / pictures / f"{i}.png")
        for name, content in files.items():
            (folder / cameras / name).write_bytes(content)

    return build


def poses() -> np.ndarray:
    cameras = Cameras.spherical([i * 60.0 for i in range(6)], [20.0, -30.0] * 3, 4.0, 30.0)
    return np.linalg.inv(cameras.T_world_camera.numpy().astype(np.float64))


def _colmap_poses() -> list[list[float]]:
    """qvec (w, x, y, z) and tvec of the cameras of `transforms`: world to camera, OpenCV."""
    T_camera_world = np.diag([1.0, -1, -1, 1]) @ poses()
    turns = Rotation.from_matrix(T_camera_world[:, :3, :3]).as_quat()[:, [3, 0, 1, 2]]
    return np.hstack([turns, T_camera_world[:, :3, 3]]).tolist()


def colmap_text() -> dict[str, bytes]:
    images = "".join(
        " ".join(map(str, [i + 1, *pose, 1, f"{i}.png"])) + "\n3.5 4.5 1 7.5 8.5 -1\n"
        for i, pose in enumerate(_colmap_poses())
    )
    return {
        "cameras.txt": b"# Camera list\n1 OPENCV 24 24 44.8 44.8 12 12 0.01 0 0 0\n",
        "images.txt": images.encode(),
        "points3D.txt": b"1 0.1 0.2 0.3 9 99 199 0.5 1 0 2 0\n2 0.0 0.1 -0.3 9 99 199 0.5 1 0 2 1\n",
    }


def colmap_binary() -> dict[str, bytes]:
    images = b"".join(
        struct.pack("<i7di", i + 1, *pose, 1) + f"{i}.png".encode() + b"\0" + struct.pack("<Q2dq", 1, 3.5, 4.5, 1)
        for i, pose in enumerate(_colmap_poses())
    )
    return {
        "cameras.bin": struct.pack("<QiiQQ4d", 1, 1, 1, 24, 24, 44.8, 44.8, 12, 12),
        "images.bin": struct.pack("<Q", 6) + images,
        "points3D.bin": struct.pack("<QQ3d3BdQ2i", 1, 1, 0.1, 0.2, 0.3, 9, 99, 199, 0.5, 1, 1, 0),
    }


def colmap(folder: Path, files: dict[str, bytes]) -> None:
    (folder / "images").mkdir()  # and not into sparse, which is a file of 20 GB here
    (folder / "colmap" / "sparse" / "0").mkdir(parents=True)
    for i in range(6):
        disc(i).save(folder / "images" / f"{i}.png")
    for name, content in files.items():
        (folder / "colmap" / "sparse" / "0" / name).write_bytes(content)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if kind in ("png", "webp", "tiff", "gif") else image.convert("RGB")).save(stream, kind, **options)
    return stream.getvalue()


def animation(kind: str, count: int = 6, side: int = 24) -> bytes:
    frames = [disc(i, side) for i in range(count)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)


def film(kind: str, count: int = 6) -> bytes:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format={"mkv": "matroska"}.get(kind, kind)) as container:
        container.metadata["title"] = "turn"
        video = container.add_stream("mpeg4" if kind == "avi" else "libx264", rate=30)
        video.width = video.height = 24
        video.pix_fmt = "yuv420p"
        for i in range(count):
            picture = Image.new("RGB", (24, 24), "white")
            picture.paste(disc(i), mask=disc(i))
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode())
    return stream.getvalue()


CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) - np.float32(0.3)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.uint32)


def gltf_tree() -> tuple[dict[str, Any], bytes]:
    uv = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    colors = np.full((4, 3), 0.5, np.float32)
    picture = encoded(disc().convert("RGB"), "png")
    parts = [CORNERS.tobytes(), uv.tobytes(), colors.tobytes(), FACES.tobytes(), picture]
    offsets = np.cumsum([0] + [len(part) for part in parts]).tolist()
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "children": [1], "scale": [1.0, 1.0, 1.0]}, {"mesh": 0, "translation": [1.0, 0.0, 0.0]}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "TEXCOORD_0": 1, "COLOR_0": 2}, "indices": 3, "material": 0}
                ]
            }
        ],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [1.0, 0.5, 1.0, 1.0]}}
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": offsets[i], "byteLength": len(part)} for i, part in enumerate(parts)
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [-0.3] * 3, "max": [0.7] * 3},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 3, "componentType": 5125, "count": 12, "type": "SCALAR"},
        ],
        "buffers": [{"byteLength": offsets[-1]}],
    }
    return tree, b"".join(parts)


def glb(tree: bytes, binary: bytes) -> bytes:
    tree += b" " * (-len(tree) % 4)
    binary += b"\0" * (-len(binary) % 4)
    size = 12 + 8 + len(tree) + 8 + len(binary)
    return (
        struct.pack("<4sII", b"glTF", 2, size)
        + struct.pack("<I4s", len(tree), b"JSON")
        + tree
        + struct.pack("<I4s", len(binary), b"BIN\0")
        + binary
    )


def obj(mtl: str = "newmtl a\nKd 1 1 1\nmap_Kd map.png\n") -> tuple[str, str]:
    lines = ["mtllib m.mtl", "usemtl a"]
    lines += [f"v {x:g} {y:g} {z:g}" for x, y, z in CORNERS.tolist()]
    lines += ["vt 0 0", "vt 1 0", "vt 0 1", "vt 1 1"]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in face) for face in FACES.tolist()]
    return "\n".join(lines) + "\n", mtl


def ply(form: str = "ascii") -> bytes:
    head = (
        f"ply\nformat {form} 1.0\ncomment TextureFile map.png\nelement vertex 4\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nelement face 4\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    if form == "ascii":
        rows = [f"{x:g} {y:g} {z:g} 9 99 199" for x, y, z in CORNERS.tolist()]
        rows += [f"3 {a} {b} {c}" for a, b, c in FACES.tolist()]
        return head.encode() + "\n".join(rows).encode() + b"\n"
    order = "<" if "little" in form else ">"
    body = b"".join(struct.pack(order + "3f3B", *corner, 9, 99, 199) for corner in CORNERS.tolist())
    body += b"".join(struct.pack(order + "B3i", 3, *face) for face in FACES.tolist())
    return head.encode() + body


def stl() -> bytes:
    triangles = CORNERS[FACES.astype(int)]
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *triangle.reshape(-1).tolist(), 0) for triangle in triangles)
    return bytes(80) + struct.pack("<I", len(triangles)) + body


def safetensors(header: bytes | None = None, data: bytes = bytes(64)) -> bytes:
    if header is None:
        header = json.dumps(
            {
                "__metadata__": {"format": "meshwright", "version": "1", "config": "{}", "dtype": "float32"},
                "transformer.norm.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                "vit.embeddings.cls_token": {"dtype": "F32", "shape": [3, 4], "data_offsets": [16, 64]},
            }
        ).encode()
    return len(header).to_bytes(8, "little") + header + data


def tiny_config() -> dict[str, Any]:
    return {
        "kind": "mesh", "encoder_hidden_size": 8, "encoder_layers": 1, "encoder_heads": 2, "encoder_mlp_size": 8,
        "encoder_image_size": 64, "patch_size": 64, "layer_norm_eps": 1e-6, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, "transformer_dim": 8, "transformer_layers": 1, "transformer_heads": 2,
        "triplane_low_res": 4, "triplane_dim": 4, "samples_per_ray": 8, "grid_res": 8, "grid_scale": 2.1,
        "mesh_resolution": 8, "mesh_threshold": 10.0,
    }  # fmt: skip


@functools.cache
def _tiny_tensors(kind: str) -> dict[str, torch.Tensor]:
    config = ModelConfig.from_json(json.dumps({**tiny_config(), "kind": kind}))
    return {name: tensor.contiguous() for name, tensor in build_model(config, seed=0).state_dict().items()}


def whole_model(changes: dict[str, Any], config: bytes | None = None) -> bytes:
    """Weights in the own form with every tensor of a tiny model, and a config that says otherwise."""
    stated = {**tiny_config(), **changes}
    text = json.dumps(stated) if config is None else config.decode(errors="replace")
    kind = stated["kind"] if stated["kind"] in ("mesh", "nerf") else "mesh"
    metadata = {"format": "meshwright", "version": "1", "config": text, "dtype": "float32"}
    return save(_tiny_tensors(kind), metadata)


def torch_file() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"vit.embeddings.cls_token": torch.ones(3, 4)}}, stream)
    return stream.getvalue()


def mindspore_file() -> bytes:
    tensor = b"\x08\x04" + b"\x12\x07Float32" + b"\x1a\x10" + np.ones(4, np.float32).tobytes()
    name = b"embeddings.cls_token"
    value = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(tensor)]) + tensor
    return b"\x0a" + bytes([len(value)]) + value


# --- changes ---------------------------------------------------------------------------------------------------------


def changed_tree(tree: Any, rng: random.Random) -> bytes:
    """JSON of ``tree`` with one to four values replaced, removed or repeated."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.randint(1, 4)):
        places: list[tuple[Any, Any]] = []

        def walk(node: Any, places: list[tuple[Any, Any]] = places) -> None:
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                if isinstance(node[key], (dict, list)):
                    walk(node[key])

        walk(tree)
        if not places:
            break
        owner, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del owner[key]
            case 1 if isinstance(owner, list):
                owner.extend(copy.deepcopy(owner[key]) for _ in range(rng.choice([1, 3, 1000])))
            case 2:
                owner[key] = copy.deepcopy(rng.choice(OTHERS))  # later changes are of the copy
            case 3:
                owner[key] = rng.choice(TEXTS)
            case _:
                owner[key] = rng.choice(NUMBERS)
    return json.dumps(tree).encode()


def changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flips, cuts, insertions and repeats, more often near the front, where headers are."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        at = int(len(data) * rng.random() ** rng.choice([1, 4]))
        match rng.randrange(7):
            case 0:
                del data[at:]
            case 1:
                data[at : at + rng.randint(1, 8)] = b""
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 16))
            case 3:
                data[at : at + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
                )
            case 4:
                data[at : at + 8] = data[at : at + 8] * rng.choice([2, 500])
            case _:
                data[at] = rng.randrange(256)
    return bytes(data)


def changed_words(text: str, rng: random.Random) -> bytes:
    """A text file with some of its words replaced by hostile numbers and names."""
    lines = [line.split(" ") for line in text.split("\n")]
    for _ in range(rng.randint(1, 4)):
        line = rng.choice(lines)
        at = rng.randrange(len(line))
        value = rng.choice([*NUMBERS, *TEXTS, -5, 0, 10**9, "1/2/3/4", "//", "#", "\\"])
        match rng.randrange(4):
            case 0:
                line[at:at] = [str(value)]
            case 1:
                lines.extend([list(line)] * rng.choice([1, 2000]))
            case _:
                line[at] = str(value)[:4000]
    return "\n".join(" ".join(line) for line in lines).encode("utf-8", "surrogateescape")


# --- new cases without end -------------------------------------------------------------------------------------------


def _files(**contents: bytes) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name.replace("__", ".")).write_bytes(content)

    return build


def _named(contents: dict[str, bytes]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name).write_bytes(content)

    return build


def _in_turn(*builds: Callable[[Path], None]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for part in builds:
            part(folder)

    return build


def _mesh_case(name: str, file: str, build: Callable[[Path], None]) -> Case:
    """A mesh is read and given colours."""
    return Case(name, ("texture", file, ".", "--out", "out", "--vertex-colors"), _in_turn(posed, build))


def _random_case(rng: random.Random, number: int) -> Case:
    kind = rng.choice(
        ["json"] * 5 + ["capture"] * 6 + ["npz", "pkl", "picture", "picture", "film", "film", "glb"] * 2
        + ["glb", "gltf", "obj", "mtl", "ply", "ply", "stl", "safetensors", "torch", "mindspore", "option", "option"]
        + ["config", "capture", "colmap", "colmap"]
        + ["name", "out"]
    )  # fmt: skip
    name = f"{number}-{kind}"
    read = rng.choice([("info", "."), ("reconstruct", ".", "--out", "out", *QUICK)])
    match kind:
        case "json":
            content = changed_tree(transforms(), rng)
            if rng.random() < 0.2:
                content = changed_bytes(content, rng)
            return Case(name, read, lambda folder: posed(folder, content))
        case "capture":
            kind = rng.choice(captures.KINDS)
            files, file = captures.whole(kind)
            tree = captures.trees(kind)
            if tree is not None and rng.random() < 0.7:
                files[file] = changed_tree(tree, rng)
            elif kind in ("colmap-txt", "metashape", "realitycapture") and rng.random() < 0.7:
                files[file] = changed_words(files[file].decode(), rng)
            else:
                file = rng.choice(list(files))
                files[file] = changed_bytes(files[file], rng)
            return Case(f"{number}-{kind}", read, capture(kind, files))
        case "npz":
            stream = io.BytesIO()
            table = poses()
            if rng.random() < 0.5:
                table.reshape(-1)[rng.randrange(table.size)] = float(rng.choice(NUMBERS[8:]))
            (np.savez if rng.random() < 0.5 else np.savez_compressed)(stream, cam_poses=table)
            content = stream.getvalue() if rng.random() < 0.3 else changed_bytes(stream.getvalue(), rng)
            return Case(name, read, _in_turn(numbered, _files(cameras__npz=content)))
        case "pkl":
            content = pickle.dumps([1, 2, 3, 4, poses(), 5], protocol=rng.choice([2, 3, 4, 5]))
            return Case(name, read, _in_turn(numbered, _files(meta__pkl=changed_bytes(content, rng))))
        case "picture":
            form = rng.choice(["png", "jpeg", "webp", "gif", "bmp", "tiff", "heic"])
            heic = Path(__file__).parent.parent / "golden" / "gradient.heic"
            content = changed_bytes(heic.read_bytes() if form == "heic" else encoded(disc(), form), rng)
            return Case(name, read, _in_turn(posed, lambda folder: _write(folder / "0.png", content)))
        case "film":
            form = rng.choice(["mp4", "mkv", "avi", "gif", "png", "webp"])
            whole = animation(form) if form in ("gif", "png", "webp") else film(form)
            suffix = form if rng.random() < 0.8 else rng.choice(["mp4", "gif", "webm"])
            content = changed_bytes(whole, rng)
            return Case(
                name, (read[0], f"f.{suffix}", *read[2:]), lambda folder: _write(folder / f"f.{suffix}", content)
            )
        case "glb" | "gltf":
            tree, binary = gltf_tree()
            if kind == "gltf":
                tree["buffers"][0]["uri"] = "m.bin"
            text = changed_tree(tree, rng)
            content = glb(text, binary) if kind == "glb" else text
            if rng.random() < 0.2:
                content = changed_bytes(content, rng)
            both = {"m.bin": binary, f"m.{kind}": content}
            return _mesh_case(name, f"m.{kind}", _named(both))
        case "obj" | "mtl":
            text, material = obj()
            contents = {
                "m.obj": changed_words(text, rng) if kind == "obj" else text.encode(),
                "m.mtl": changed_words(material, rng) if kind == "mtl" else material.encode(),
                "map.png": encoded(disc(), "png"),
            }
            return _mesh_case(name, "m.obj", _named(contents))
        case "ply":
            whole = ply(rng.choice(["ascii", "binary_little_endian", "binary_big_endian"]))
            head, _, body = whole.partition(b"end_header\n")
            if rng.random() < 0.5:
                content = changed_words(head.decode(), rng) + b"end_header\n" + body
            else:
                content = changed_bytes(whole, rng)
            return _mesh_case(name, "m.ply", _files(m__ply=content, map__png=encoded(disc(), "png")))
        case "stl":
            return _mesh_case(name, "m.stl", _files(m__stl=changed_bytes(stl(), rng)))
        case "safetensors" | "torch" | "mindspore":
            whole = {"safetensors": safetensors, "torch": torch_file, "mindspore": mindspore_file}[kind]()
            content = changed_bytes(whole, rng)
            if kind == "safetensors" and rng.random() < 0.7:
                content = safetensors(changed_tree(json.loads(whole[8:-64]), rng))
            source = {"safetensors": "w.safetensors", "torch": "w.pt", "mindspore": "w.ckpt"}[kind]
            use = ("convert", source, "x.safetensors")
            if rng.random() < 0.3:
                use = ("reconstruct", ".", "--out", "out", *OF_MODEL, source)
            return Case(name, use, _in_turn(posed, lambda folder: _write(folder / source, content)))
        case "config":
            content = whole_model({}, changed_tree(tiny_config(), rng))
            use = ("reconstruct", ".", "--out", "out", *OF_MODEL, "w.safetensors")
            return Case(name, use, _in_turn(posed, lambda folder: _write(folder / "w.safetensors", content)))
        case "colmap":
            as_text = rng.random() < 0.5
            files = colmap_text() if as_text else colmap_binary()
            for _ in range(rng.randint(1, 2)):
                file = rng.choice(list(files))
                text = files[file].decode("utf-8", "surrogateescape") if as_text else ""
                files[file] = changed_words(text, rng) if as_text else changed_bytes(files[file], rng)
            return Case(name, read, lambda folder: colmap(folder, files))
        case "capture":
            return Case(name, read, _many_pictures(rng))
        case "option":
            option = rng.choice(
                ["--elevation", "--fov", "--radius", "--max-size"] * 2
                + ["--seed", "--faces", "--resolution", "--texture-size", "--time-budget", "--format", "--device"]
                + ["--masks", "--rig", "--model"]
            )
            value = str(rng.choice([*NUMBERS, *TEXTS, *NUMBERS])).replace("\0", "")
            base = ("reconstruct", "f.gif", "--out", "out", *QUICK)
            return Case(name, (*base, f"{option}={value}"), _files(f__gif=animation("gif")))
        case "name":
            odd = rng.choice([text for text in TEXTS if "/" not in text and "\0" not in text and 2 < len(text) < 200])
            odd += rng.choice([".mp4", ".gif", ".json", "", ".glb"])
            content = {".mp4": film("mp4"), ".gif": animation("gif")}.get(Path(odd).suffix, b"{}")
            use = ("info", f"./{odd}" if rng.random() < 0.5 else odd)
            return Case(name, use, lambda folder: _write(folder / odd, content))
        case _:
            place = rng.choice([t for t in TEXTS if "\0" not in t and not t.startswith(("-", "/etc", "..", URL))])
            place = rng.choice([place, "/dev/null/x", "/proc/x", "/dev/full", "0.png", "0.png/x", "n" * 300, "a/" * 40])
            return Case(name, ("reconstruct", ".", f"--out={place or 'out'}", *QUICK), posed)


def _many_pictures(rng: random.Random) -> Callable[[Path], None]:
    """A capture of few bytes and many pixels: the same large picture under many names, as picture, mask or depth."""
    side = rng.choice([24, 2000, 7900])
    count = rng.choice([6, 128, 500, 3000])
    role = rng.choice(["file_path", "mask_path", "depth_file_path"])

    def build(folder: Path) -> None:
        posed(folder)
        _write(folder / "big.png", png_of(side, side))
        tree = transforms()
        tree["frames"] = [
            {**tree["frames"][i % 6], role: "big.png"} if i % 6 == 5 or count > 6 else tree["frames"][i]
            for i in range(count)
        ]
        (folder / "transforms.json").write_text(json.dumps(tree))

    return build


def _write(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        return  # the folder of that name is hostile enough
    path.parent.mkdir(parents=True, exist_ok=True)  # of a name with a slash in it
    path.unlink(missing_ok=True)  # a pipe or link of that name would be written through
    path.write_bytes(content)


def random_cases(seed: int) -> Iterator[Case]:
    number = 0
    while True:
        yield _random_case(random.Random(seed * 1_000_003 + number), number)
        number += 1


# --- cases that once did harm ----------------------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(pwned) (w) file\nshowpage\n%%EOF\n"


def png_of(width: int, height: int, frames: int = 1) -> bytes:
    """A PNG of one colour that is small on disk; with more ``frames`` an animation of as many (APNG)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))]
    if frames > 1:
        chunks.append(chunk(b"acTL", struct.pack(">II", frames, 0)))
    for i in range(frames):
        if frames > 1:
            control = struct.pack(">IIIIIHHBB", max(0, 2 * i - 1), width, height, 0, 0, 1, 25, 0, 0)
            chunks.append(chunk(b"fcTL", control))
        chunks.append(chunk(b"IDAT", packed) if i == 0 else chunk(b"fdAT", struct.pack(">I", 2 * i) + packed))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def _gltf(change: Callable[[dict[str, Any]], None], **files: bytes) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        tree, binary = gltf_tree()
        change(tree)
        _write(folder / "m.glb", glb(json.dumps(tree).encode(), binary))
        _files(**files)(folder)

    return build


def _transforms_with(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        tree = transforms()
        change(tree)
        posed(folder, json.dumps(tree).encode())

    return build


def _set(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


class _Touches:
    def __reduce__(self) -> Any:
        return (os.system, ("touch pwned",))


def _memo_bomb() -> bytes:
    """A list of lists of lists ..., each ten times the one before: small as a pickle, large as an object."""
    return (
        b"\x80\x04]" + b"(" + b"K\x01" * 10 + b"e" + b"".join(b"\x94](" + b"h\x00" * 10 + b"e" for _ in range(3)) + b"."
    )


def _many_lists() -> bytes:
    return b"\x80\x04](" + b"]" * 8_000_000 + b"e."


def _objects_in_npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, cam_poses=np.array([_Touches()], dtype=object))
    return stream.getvalue()


def _bomb_npz() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
        text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (300000000, 4, 4), }"
        archive.writestr("cam_poses.npy", head + text.ljust(117) + b"\n" + bytes(1 << 20))
    return stream.getvalue()


def _accessor(number: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tree: tree["accessors"][number].update(values)


def _counts_that_cancel(tree: dict[str, Any]) -> None:
    tree["accessors"][0].update(count=2**40)
    tree["accessors"][3].update(count=-(2**40))


def _points_without_data(tree: dict[str, Any]) -> None:
    tree["accessors"][0].update(count=75_000_000)
    del tree["accessors"][0]["bufferView"]


def _sparse_20_gb(tree: dict[str, Any]) -> None:
    tree["accessors"][2] = {
        "componentType": 5126, "type": "VEC4", "count": 1_200_000_000,
        "sparse": {"count": 1, "indices": {"bufferView": 3, "componentType": 5125}, "values": {"bufferView": 2}},
    }  # fmt: skip


def _external(uri: str) -> Callable[[dict[str, Any]], None]:
    return lambda tree: tree["images"].__setitem__(0, {"uri": uri})


def _deep_nodes(tree: dict[str, Any]) -> None:
    tree["nodes"] = [{"children": [i + 1]} for i in range(3000)] + [{"mesh": 0}]


def _big_textures(folder: Path) -> None:
    picture = png_of(8192, 8192)
    tree, binary = gltf_tree()
    at = len(binary)
    tree["bufferViews"] += [{"buffer": 0, "byteOffset": at, "byteLength": len(picture)}]
    tree["images"] = [{"bufferView": 5, "mimeType": "image/png"} for _ in range(30)]
    tree["textures"] = [{"source": i} for i in range(30)]
    tree["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": i}}} for i in range(30)]
    primitive = tree["meshes"][0]["primitives"][0]
    tree["meshes"][0]["primitives"] = [{**primitive, "material": i} for i in range(30)]
    tree["buffers"][0]["byteLength"] = at + len(picture)
    _write(folder / "m.glb", glb(json.dumps(tree).encode(), binary + picture))


def _many_groups(folder: Path) -> None:
    text, material = obj()
    faces = "".join(f"g n{i}\nusemtl m{i}\nf 1/1 2/2 3/3\n" for i in range(100_000))
    _write(folder / "m.obj", (text + faces).encode())
    _write(folder / "m.mtl", material.encode())


def _obj_files(mtl: str, **files: bytes) -> Callable[[Path], None]:
    text, material = obj(mtl)
    return _files(m__obj=text.encode(), m__mtl=material.encode(), **files)


def _ply_with(old: bytes, new: bytes, form: str = "ascii") -> Callable[[Path], None]:
    return _files(m__ply=ply(form).replace(old, new), map__png=encoded(disc(), "png"))


def _replaced(build: Callable[[Path], None], file: str, target: str) -> Callable[[Path], None]:
    """The same with one of its files become a link to something else."""

    def linked(folder: Path) -> None:
        build(folder)
        (path,) = folder.rglob(file)
        path.unlink()
        path.symlink_to(target if target.startswith("/") else folder / target)

    return linked


def corpus() -> list[Case]:
    """Named cases, those of the first campaign among them (27 tracebacks, 80 wrong exits, two programs started)."""
    cases = []

    def views(name: str, build: Callable[[Path], None], *more: str, path: str = ".", **rest: Any) -> None:
        cases.append(Case(name, ("reconstruct", path, "--out", "out", *QUICK, *more), build, **rest))

    def mesh(name: str, file: str, build: Callable[[Path], None]) -> None:
        cases.append(_mesh_case(name, file, build))

    def weights(name: str, file: str, build: Callable[[Path], None]) -> None:
        cases.append(Case(f"weights-{name}", ("reconstruct", ".", "--out", "out", *OF_MODEL, file), build))

    # Numbers in transforms.json.
    for key in ("camera_angle_x", "cx", "fl_x", "k1", "w", "h", "depth_unit_scale_factor"):
        for value in (LONG, -LONG, 1e300, 1e-300, "1", None):
            views(f"json-{key}-{str(value)[:6]}", _transforms_with(_set(key, value=value)))
    for value in (1e12, 1e30, -1e300, LONG):
        views(f"camera-at-{str(value)[:6]}", _transforms_with(_set("frames", 2, "transform_matrix", 0, 3, value=value)))
    for key, value in (("camera_angle_x", 0.0011), ("camera_angle_x", 3.139), ("fl_x", 1e-5), ("fl_x", 1e7)):
        views(f"json-{key}-{value}", _transforms_with(_set(key, value=value)))
    views("fisheye-flag", _transforms_with(_set("is_fisheye", value=True)))
    views("mask-outside", _transforms_with(_set("frames", 0, "mask_path", value="/etc/passwd")))
    views("picture-outside", _transforms_with(_set("frames", 0, "file_path", value="../../../../etc/passwd")))
    views("picture-is-a-pipe", _transforms_with(_set("frames", 0, "file_path", value="pipe")))
    views("picture-is-sparse", _transforms_with(_set("frames", 0, "file_path", value="sparse")))
    views("picture-is-a-device", _transforms_with(_set("frames", 0, "file_path", value="/dev/zero")))
    views("picture-from-the-net", _transforms_with(_set("frames", 0, "file_path", value=URL)))
    views("json-of-brackets", lambda folder: posed(folder, b"[" * 10_000_000))
    views("json-of-lists", lambda folder: posed(folder, b"[" + b"[]," * 20_000_000 + b"0]"))
    for name in ("/dev/zero", "/dev/urandom", "pipe", "sparse"):
        views(f"json-is-{Path(name).name}", lambda f, name=name: (f / "transforms.json").symlink_to(name))
    cases.append(Case("json-in-capitals", ("info", "transforms.JSON"), _in_turn(posed, _files(transforms__JSON=b"{}"))))

    # Captures of other programs.
    for kind in captures.KINDS:
        files, file = captures.whole(kind)
        views(f"{kind}-whole", capture(kind, files))
        for name in ("/dev/zero", "pipe", "sparse", "folder"):
            views(f"{kind}-is-{Path(name).name}", _replaced(capture(kind, files), file, name))
        for content in (b"", b"\0" * 4096, b"\xff" * 4096, b"[" * 1_000_000, b"<a>" * 1_000_000):
            views(f"{kind}-of-{content[:3]!a}", capture(kind, files | {file: content}))
    text = captures.whole("metashape")[0]["cameras.xml"]
    entities = b'<!DOCTYPE d [<!ENTITY a "x"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    for name, content in {
        "entities": entities + text,
        "entity-used": (entities + text).replace(b'label="0"', b'label="&b;"'),
        "utf-16": text.decode().encode("utf-16"),
        "a-million-cameras": text.replace(b"<cameras>", b"<cameras>" + b"<camera/>" * 1_000_000),
        "attributes": text.replace(b"<camera ", b"<camera " + b" ".join(b'a%d="1"' % i for i in range(100_000)) + b" "),
    }.items():
        views(f"metashape-{name}", capture("metashape", {"cameras.xml": content}))
    images = captures.whole("colmap-txt")[0]
    for name in (
        "/etc/passwd",
        "../secret.png",
        "pipe",
        "sparse",
        URL,
        "a\0b",
        "x" * 5000,
        "\x1b[31m.png",
        "\u202egnp.png",
    ):
        text = images["images.txt"].replace(b"3.png", name.encode())
        views(f"colmap-picture-{ascii(name)[1:12]}", capture("colmap-txt", images | {"images.txt": text}))
    for key, value in (("k1", -1e5), ("k1", 1e6), ("k4", -1e6), ("p1", 1e6), ("k1", LONG), ("k2", float("nan"))):
        views(f"json-{key}-{str(value)[:6]}-distorted", _transforms_with(_set(key, value=value)))

    # Tables of cameras.
    for name, content in {
        "pickle-with-code": pickle.dumps(_Touches()),
        "pickle-of-memos": _memo_bomb(),
        "pickle-of-lists": _many_lists(),
        "pickle-of-text": pickle.dumps("x" * 1000) * 3,
        "pickle-persistent": b"Ppid\n.",
        "pickle-stack": b"\x80\x04" + b"(" * 1_000_000,
    }.items():
        views(name, _in_turn(numbered, _files(meta__pkl=content)))
    views("npz-with-code", _in_turn(numbered, _files(cameras__npz=_objects_in_npz())))
    views("npz-bomb", _in_turn(numbered, _files(cameras__npz=_bomb_npz())))
    views(
        "superscript", _in_turn(numbered, lambda f: disc().save(f / "²³.png"), _files(meta__pkl=pickle.dumps(poses())))
    )

    # COLMAP's models.
    views("colmap-text-sound", lambda f: colmap(f, colmap_text()))
    views("colmap-binary-sound", lambda f: colmap(f, colmap_binary()))
    for name, old, new in (
        ("count", struct.pack("<Q", 6), struct.pack("<Q", 2**62)),
        ("points", struct.pack("<Q2d", 1, 3.5, 4.5), struct.pack("<Q2d", 2**60, 3.5, 4.5)),
        ("outside", b"0.png", b"/etc/passwd"),
        ("two-slashes", b"0.png", b"//etc/passwd"),
        ("size", struct.pack("<QQ", 24, 24), struct.pack("<QQ", 2**40, 2**40)),
        ("model", struct.pack("<iiQ", 1, 1, 24), struct.pack("<iiQ", 1, 99, 24)),
    ):
        changed = {file: content.replace(old, new) for file, content in colmap_binary().items()}
        views(f"colmap-{name}", lambda f, changed=changed: colmap(f, changed))

    # Pictures and films.
    for name, content in {"eps": EPS, "bomb": png_of(20_000, 4000), "text": b"x", "empty": b""}.items():
        views(f"picture-{name}", _in_turn(posed, lambda f, content=content: _write(f / "3.png", content)))
    views("apng-of-7900", lambda f: _write(f / "f.png", png_of(7900, 7900, 200)), path="f.png")
    views("apng-of-4000", lambda f: _write(f / "f.png", png_of(4000, 4000, 300)), path="f.png")
    for name in (
        "a:b.mp4",
        "file:x.mp4",
        "http:x.mp4",
        "concat:a|b.mp4",
        "data:x.mp4",
        "[bold]a.mp4",
        "\x1b[2J.mp4",
        "é\udcff.mp4",
    ):
        cases.append(Case(f"film-named-{name!a}", ("info", name), lambda f, n=name: _write(f / n, film("mp4"))))
    for name in ("pipe:0", "pipe:0.mp4", URL + ".mp4", "/dev/zero.mp4", "concat:x.mp4", "data:x.mp4"):
        cases.append(Case(f"no-film-{name[:12]}", ("info", name), posed))
    playlist = f"#EXTM3U\n#EXTINF:1,\n{URL}\n#EXT-X-ENDLIST\n".encode()
    views("playlist", _files(f__mp4=playlist), path="f.mp4")
    views("concat-list", _files(f__mkv=b"ffconcat version 1.0\nfile '/etc/passwd'\n"), path="f.mkv")
    views(
        "film-metadata", lambda f: _write(f / "f.mp4", film("mp4").replace(b"turn", b"\xff\xfe\xc3\x28")), path="f.mp4"
    )
    views("film-is-a-pipe", lambda f: (f / "f.mp4").symlink_to("pipe"), path="f.mp4")
    views("film-is-zero", lambda f: (f / "f.mp4").symlink_to("/dev/zero"), path="f.mp4")
    views("mask-folder-is-zero", posed, "--masks", "/dev/zero")

    # Meshes.
    mesh("glb-texture-eps", "m.glb", _gltf(_external("t.eps"), t__eps=EPS))
    mesh("glb-texture-eps-as-png", "m.glb", _gltf(_external("t.png"), t__png=EPS))
    for uri in ("pipe", "sparse", "/dev/zero", URL, "../../x", "file:///etc/passwd", "loop", "folder"):
        mesh(f"glb-texture-{uri[:9]}", "m.glb", _gltf(_external(uri)))
        mesh(f"glb-buffer-{uri[:9]}", "m.glb", _gltf(_set("buffers", 0, "uri", value=uri)))
        mesh(f"obj-map-{uri[:9]}", "m.obj", _obj_files(f"newmtl a\nmap_Kd {uri}\n"))
        mesh(f"ply-texture-{uri[:9]}", "m.ply", _ply_with(b"map.png", uri.encode()))
    mesh("obj-map-eps", "m.obj", _obj_files("newmtl a\nmap_Kd t.eps\n", t__eps=EPS))
    for name in ("pipe", "sparse", "/dev/zero", "folder"):
        mesh(f"obj-mtllib-{name[:9]}", "m.obj", _files(m__obj=obj()[0].replace("m.mtl", name).encode()))
        mesh(f"mesh-is-{name[:9]}", "m.stl", lambda f, name=name: (f / "m.stl").symlink_to(name))
    mesh("glb-points-without-data", "m.glb", _gltf(_points_without_data))
    mesh("glb-sparse-20-gb", "m.glb", _gltf(_sparse_20_gb))
    for count in (-3, 2**31, 75_000_000, 5, LONG, 1.5):
        mesh(f"glb-count-{str(count)[:6]}", "m.glb", _gltf(_accessor(0, count=count)))
        mesh(f"glb-index-count-{str(count)[:6]}", "m.glb", _gltf(_accessor(3, count=count)))
    mesh(
        "glb-counts-that-cancel",
        "m.glb",
        _gltf(_counts_that_cancel),
    )
    for value in (1e38, 3e38, LONG, float("nan")):
        mesh(f"glb-scale-{str(value)[:5]}", "m.glb", _gltf(_set("nodes", 0, "scale", value=[value] * 3)))
    mesh("glb-own-child", "m.glb", _gltf(_set("nodes", 1, "children", value=[0])))
    mesh("glb-deep", "m.glb", _gltf(_deep_nodes))
    mesh("glb-30-textures-of-8192", "m.glb", _big_textures)
    mesh("obj-100000-groups", "m.obj", _many_groups)
    for index in ("0", "-9", "99", "4294967297", "1" * 400, "a"):
        mesh(f"obj-index-{index[:5]}", "m.obj", _files(m__obj=obj()[0].replace("f 1/1", f"f {index}/1").encode()))
    mesh("ply-unknown-format", "m.ply", _ply_with(b"ascii", b"binary_middle_endian"))
    mesh("ply-10^9-faces", "m.ply", _ply_with(b"face 4", b"face 1000000000"))
    mesh("ply-10^9-vertices", "m.ply", _ply_with(b"vertex 4", b"vertex 1000000000", "binary_little_endian"))
    mesh("ply-list-of-10^9", "m.ply", _ply_with(b"list uchar int", b"list int int", "binary_little_endian"))
    mesh("ply-nan-colours", "m.ply", _ply_with(b"uchar red", b"float red"))
    mesh(
        "stl-3e38",
        "m.stl",
        lambda f: _write(f / "m.stl", stl().replace(struct.pack("<f", 0.7), struct.pack("<f", 3e38))),
    )
    mesh("stl-count", "m.stl", lambda f: _write(f / "m.stl", stl()[:80] + b"\xff\xff\xff\x7f" + stl()[84:]))
    cases.append(Case("refine-3e38", ("refine", "m.stl", ".", "--out", "out"), cases[-2].build))

    # Weights.
    for kind, key, values in (
        ("mesh", "grid_res", (257, 512, 1024, LONG, 0, -1, 1.5)),
        ("mesh", "grid_scale", (1e300, 1e-300, 0.0, float("nan"))),
        ("mesh", "image_std", ([1e-300] * 3, [0.0] * 3)),
        ("nerf", "mesh_resolution", (1024, 2**40, 1)),
        ("nerf", "mesh_threshold", (1e300, -1.0)),
        ("nerf", "samples_per_ray", (2**31, 0)),
        ("nerf", "patch_size", (1, 0)),
        ("nerf", "transformer_heads", (0, LONG)),
    ):
        for value in values:
            content = whole_model({"kind": kind, key: value})
            weights(f"{key}-{str(value)[:6]}", "w.safetensors", _in_turn(posed, _files(w__safetensors=content)))
    weights("sound", "w.safetensors", _in_turn(posed, _files(w__safetensors=whole_model({}))))
    for name in ("pipe", "sparse", "/dev/zero", "folder"):
        weights(Path(name).name, name, posed)
        cases.append(Case(f"convert-{Path(name).name}", ("convert", name, "x.safetensors"), posed))
    stream = io.BytesIO()
    torch.save({"a": _Touches()}, stream)
    cases.append(Case("weights-with-code", ("convert", "w.pt", "x.safetensors"), _files(w__pt=stream.getvalue())))

    # Options, names, places, terminals.
    turn = _files(f__gif=animation("gif"))
    for option in (
        "--elevation=nan", "--elevation=1e30", "--elevation=inf", "--radius=inf", "--radius=1e30", "--radius=1e-30",
        "--radius=nan", "--fov=nan", "--fov=0", "--fov=180", "--seed=" + "9" * 23, "--seed=-1", "--faces=4",
        "--faces=-1", "--time-budget=nan", "--max-size=99999999", "--resolution=100000", "--format=", "--rig=[/a]",
        "--device=[/a]", "--model=[/a]", "--unknown=[/red]",
    ):  # fmt: skip
        views(f"option{option[:22]}", turn, option, path="f.gif")
    for name in ("[/a]", "[bold]x", "\x1b[31mred", "\u202ertl", "n" * 200, "-dash", "two\nlines", "é\udcff"):
        views(
            f"in-{ascii(name)[:16]}", lambda f, n=name: _write(f / f"{n}.gif", animation("gif")), path=f"./{name}.gif"
        )
        cases.append(Case(f"out-{ascii(name)[:16]}", ("reconstruct", "f.gif", f"--out={name}", *QUICK), turn))
    for place in ("n" * 300, "/dev/null", "/dev/full", "/proc/nothing", "f.gif", "f.gif/x", "pipe", "loop", ""):
        cases.append(Case(f"out-at-{place[:9]}", ("reconstruct", "f.gif", f"--out={place}", *QUICK), turn))
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    views("ascii-terminal", turn, path="f.gif", environment=ascii_only)
    cases.append(Case("ascii-terminal-info", ("info", "f.gif"), turn, ascii_only))
    for where in ("/dev/full", "closed"):
        views(f"stdout-{where}", turn, path="f.gif", stdout=where)
        cases.append(Case(f"info-stdout-{where}", ("info", "f.gif"), turn, stdout=where))
    return cases

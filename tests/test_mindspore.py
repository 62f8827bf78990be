"""MindSpore's checkpoint format: our reader and writer are inverses, and agree with the real package."""

import json
import os
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.errors import InputError
from meshwright.weights import mindspore
from meshwright.weights.mindspore import is_mindspore, mindspore_name, read_mindspore, torch_name, write_mindspore

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published_keys.json").read_text())

# A checkpoint that MindSpore 2.10.0 itself wrote: float32 "w" [2, 3], float32 scalar "s", bfloat16 "b", text "note".
BY_MINDSPORE = bytes.fromhex(
    "0a2c0a01771227080208031207466c6f617433321a18000000000000803f0000004000004040000080400000a040"
    "0a140a0173120f1207466c6f617433321a0400006040"
    "0a1b0a016212160804120842466c6f617431361a080000803f00404040"
    "0a250a046e6f7465121d080012037374721a1468000000650000006c0000006c0000006f000000"
)
VALUE_SIZES = (46, 22, 29, 39)


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    tensors = {
        f"layers.{i}.{str(dtype)[6:]}": (torch.randn(3, 5, generator=generator) * 50).to(dtype)
        for i, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool))
    }
    return tensors | {"scalar": torch.tensor(2.5), "four.axes": torch.randn(2, 1, 3, 4, generator=generator)}


def written(tensors: dict[str, torch.Tensor], path: Path) -> bytes:
    write_mindspore(tensors, path)
    return path.read_bytes()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name])


def test_what_mindspore_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(BY_MINDSPORE)
    tensors = read_mindspore(tmp_path / "x.ckpt")
    assert list(tensors) == ["w", "s", "b"]
    assert tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["s"].shape == ()
    assert tensors["s"] == 3.5
    assert tensors["b"].dtype == torch.bfloat16
    assert tensors["b"].tolist() == [0, 1, 2, 3]


def test_what_is_written_is_what_mindspore_would_write(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(BY_MINDSPORE)
    assert written(read_mindspore(tmp_path / "x.ckpt"), tmp_path / "y.ckpt") == BY_MINDSPORE[: -VALUE_SIZES[-1]]


def test_reading_inverts_writing(tmp_path: Path) -> None:
    write_mindspore(some_tensors(), tmp_path / "x.ckpt")
    assert_same(read_mindspore(tmp_path / "x.ckpt"), some_tensors())


def test_tensors_that_are_not_contiguous_are_written_in_row_order(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    write_mindspore({"x": tensor}, tmp_path / "x.ckpt")
    assert torch.equal(read_mindspore(tmp_path / "x.ckpt")["x"], tensor)


def test_a_large_tensor_is_split_and_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(some_tensors(), tmp_path / "whole.ckpt")
    monkeypatch.setattr(mindspore, "_SLICE_BYTES", 7)
    assert written(some_tensors(), tmp_path / "split.ckpt").count(b"four.axes") == -(-24 * 4 // 7)
    assert whole.count(b"four.axes") == 1
    assert_same(read_mindspore(tmp_path / "split.ckpt"), some_tensors())


def test_a_right_checksum_is_accepted_and_a_wrong_one_refused(tmp_path: Path) -> None:
    content = written(some_tensors(), tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").write_bytes(content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big"))
    assert_same(read_mindspore(tmp_path / "x.ckpt"), some_tensors())
    (tmp_path / "x.ckpt").write_bytes(content + b"crc_num" + (zlib.crc32(content) ^ 1).to_bytes(10, "big"))
    with pytest.raises(InputError, match="checksum"):
        read_mindspore(tmp_path / "x.ckpt")


@pytest.mark.parametrize("mark", ["d85e3a7f", "d95e3a7f"])
def test_an_encrypted_file_is_named_so(tmp_path: Path, mark: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(bytes.fromhex(mark) + bytes(60))
    assert is_mindspore(bytes.fromhex(mark) + bytes(4))
    with pytest.raises(InputError, match=r"encrypted .*enc_key"):
        read_mindspore(tmp_path / "x.ckpt")


def test_norms_alone_are_renamed_and_names_come_back() -> None:
    names = [name for preset in PUBLISHED.values() for name in preset]
    assert [torch_name(mindspore_name(name)) for name in names] == names
    assert mindspore_name("transformer.layers.3.norm2.weight") == "transformer.layers.3.norm2.gamma"
    assert mindspore_name("encoder.model.layernorm.bias") == "encoder.model.layernorm.beta"
    assert mindspore_name("norm.bias") == "norm.beta"
    for same in ("encoder.model.encoder.layer.0.adaLN_modulation.1.weight", "transformer.layers.0.mlp.0.bias"):
        assert mindspore_name(same) == same


def tampered(**changes: bytes) -> bytes:
    """One value "w" float32 [2] with parts replaced."""
    dims = changes.get("dims", b"\x08\x02")
    kind = changes.get("kind", b"\x12\x07Float32")
    content = changes.get("content", b"\x1a\x08" + bytes(8))
    tensor = dims + kind + content
    value = changes.get("name", b"\x0a\x01w") + changes.get("tensor", b"\x12" + bytes([len(tensor)]) + tensor)
    return b"\x0a" + bytes([len(value)]) + value


def test_the_untampered_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(tampered())
    assert read_mindspore(tmp_path / "x.ckpt")["w"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tampered(dims=b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), "shape"),
        (tampered(dims=b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "shape"),  # -1
        (tampered(dims=b"\x08\x00\x08\xff\xff\xff\xff\xff\xff\xff\x7f", content=b"\x1a\x00"), "shape"),
        (tampered(dims=b"\x08" + b"\x80" * 11), "ten bytes"),
        (tampered(dims=b"\x08\x01" * 17), "should not have"),
        (tampered(dims=b"\x0a\x01\x02"), "should not have"),  # packed: not how the schema says it
        (tampered(content=b"\x1a\x7f" + bytes(8)), "length"),
        (tampered(content=b"\x1a\xff\xff\xff\xff\x0f"), "length"),
        (tampered(content=b"\x1d" + bytes(8)), "wire type 5"),
        (tampered(content=b""), "lacks its type or content"),
        (tampered(kind=b""), "lacks its type or content"),
        (tampered(kind=b"\x12\x04Int4"), "type Int4"),
        (tampered(name=b""), "lacks its name"),
        (tampered(name=b"\x0a\x01\xff"), "UTF-8"),
        (tampered(tensor=b"\x1a\x02\x0a\x00"), "no plain tensor"),
        (tampered() + tampered(name=b"\x0a\x01v") + tampered(), "twice"),
        (tampered() + tampered(dims=b"\x08\x03"), "differ"),
        (b"\x12" + tampered()[1:], "field 2 at the top"),
        (b"\x0a", "breaks off"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.ckpt.*{reason}"):
        read_mindspore(tmp_path / "x.ckpt")


def test_a_file_of_countless_values_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore, "_MOST_FIELDS", 1000)
    (tmp_path / "x.ckpt").write_bytes(tampered() * 1000)
    with pytest.raises(InputError, match="more than 1000 fields"):
        read_mindspore(tmp_path / "x.ckpt")


def test_truncation_anywhere_is_noticed(tmp_path: Path) -> None:
    whole = set(np.cumsum(VALUE_SIZES))  # where a value ends, less is a checkpoint too
    for end in set(range(1, len(BY_MINDSPORE))) - whole:
        (tmp_path / "x.ckpt").write_bytes(BY_MINDSPORE[:end])
        with pytest.raises(InputError):
            read_mindspore(tmp_path / "x.ckpt")


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(BY_MINDSPORE) - 1), byte=st.integers(0, 255), tail=st.binary(max_size=20))
def test_no_bytes_make_it_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.ckpt"
    path.write_bytes(BY_MINDSPORE[:position] + bytes([byte]) + BY_MINDSPORE[position + 1 :] + tail)
    try:
        tensors = read_mindspore(path)
    except InputError:
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) <= path.stat().st_size


@pytest.mark.parametrize("tensor", [torch.zeros(0, 3), torch.zeros(2, dtype=torch.complex64)])
def test_what_mindspore_cannot_hold_is_refused_and_nothing_left(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(InputError, match="does not fit"):
        write_mindspore({"x": tensor}, tmp_path / "x.ckpt")
    assert list(tmp_path.iterdir()) == []


# --- against the real package ------------------------------------------------------------------------------------

REAL_READS = """
import sys, numpy as np, mindspore as ms
from mindspore import nn
loaded = ms.load_checkpoint(sys.argv[1])
arrays = {n: (p.astype(ms.float32) if p.dtype == ms.bfloat16 else p).asnumpy() for n, p in loaded.items()}
np.savez(sys.argv[2], **arrays)
net = nn.LayerNorm([5], epsilon=1e-5)
net.gamma.name, net.beta.name = "layers.1.norm.gamma", "layers.1.norm.beta"
missing, _ = ms.load_param_into_net(net, loaded)
assert not missing, missing
"""

REAL_WRITES = """
import sys, numpy as np, mindspore as ms
arrays = np.load(sys.argv[1])
data = [{"name": n, "data": ms.Tensor(arrays[n])} for n in arrays.files]
data.append({"name": "bf16", "data": ms.Tensor(np.arange(4, dtype=np.float32)).astype(ms.bfloat16)})
ms.save_checkpoint(data, sys.argv[2], append_dict={"epoch": 3, "note": "hello"})
ms.save_checkpoint(data, sys.argv[3], crc_check=True)
ms.train.serialization.SLICE_SIZE = 1  # KiB
ms.save_checkpoint(data, sys.argv[4])
"""


def real_mindspore(script: str, *arguments: Path) -> None:
    python = os.environ.get("MESHWRIGHT_MINDSPORE_PYTHON")
    if not python:
        pytest.skip("MESHWRIGHT_MINDSPORE_PYTHON does not name the Python of a venv with mindspore")
    done = subprocess.run([python, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.mindspore
@pytest.mark.parametrize("slice_bytes", [512 << 20, 16])
def test_mindspore_loads_what_we_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice_bytes: int) -> None:
    monkeypatch.setattr(mindspore, "_SLICE_BYTES", slice_bytes)
    norm = {"layers.1.norm.weight": torch.arange(5.0), "layers.1.norm.bias": -torch.arange(5.0)}
    tensors = {mindspore_name(name): tensor for name, tensor in (some_tensors() | norm).items()}
    write_mindspore(tensors, tmp_path / "x.ckpt")
    real_mindspore(REAL_READS, tmp_path / "x.ckpt", tmp_path / "x.npz")
    arrays = np.load(tmp_path / "x.npz")
    assert set(arrays.files) == set(tensors)
    for name, tensor in tensors.items():
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


@pytest.mark.mindspore
def test_we_load_what_mindspore_writes(tmp_path: Path) -> None:
    tensors = {name: t for name, t in some_tensors().items() if t.dtype != torch.bfloat16}
    tensors["large"] = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "x.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    files = [tmp_path / name for name in ("plain.ckpt", "crc.ckpt", "split.ckpt")]
    real_mindspore(REAL_WRITES, tmp_path / "x.npz", *files)
    assert files[2].read_bytes().count(b"large") == 8
    for file in files:
        read = read_mindspore(file)
        assert read.pop("bf16").tolist() == [0, 1, 2, 3]
        assert int(read.pop("epoch", torch.tensor(3))) == 3
        assert_same(read, tensors)

"""Which torch device the work runs on."""

import torch

from meshwright.errors import InputError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``npu`` into a device that is really there.

    ``auto`` takes the first of CUDA, NPU, MPS that is usable, else the CPU.

    Raises:
        InputError: the name is unknown to torch, or no such device is present.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        return torch.device(available_devices()[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: torch knows no such device; use auto, cpu, cuda, mps or npu") from None
    if device.type not in available_devices() or (device.index or 0) >= _count(device.type):
        present = ", ".join(available_devices())
        raise InputError(f"--device {name}: not present on this machine; present: {present}")
    return device


def available_devices() -> list[str]:
    """Device types that torch can use here, fastest first; always ends with ``cpu``."""
    return [kind for kind in ("cuda", "npu", "mps", "cpu") if _count(kind) > 0]


def _count(kind: str) -> int:
    if kind == "cpu":
        return 1
    module = getattr(torch, kind, None)  # torch.npu exists only where torch_npu has been imported
    if module is None or not hasattr(module, "is_available") or not module.is_available():
        return 0
    return int(module.device_count())

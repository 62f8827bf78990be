"""Which torch device the work runs on."""

import torch

from meshwright.errors import InputError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``npu`` into a device that is really there.

    ``auto`` is the CPU: no accelerator has been tried with this version, so none is taken that was not asked for.

    Raises:
        InputError: the name is unknown to torch, or no such device is present.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"`device='{name}'`: torch knows no such device; use auto, cpu, cuda, mps or npu") from None
    if device.type not in available_devices() or (device.index or 0) >= _count(device.type):
        present = ", ".join(available_devices())
        raise InputError(f"`device='{name}'`: not present on this machine; present: {present}")
    return device


def available_devices() -> list[str]:
    """Device types that torch can use here, accelerators first; always ends with ``cpu``."""
    return [kind for kind in ("cuda", "npu", "mps", "cpu") if _count(kind) > 0]


def items_per_chunk(device: torch.device, bytes_per_item: int) -> int:
    """How many items to work on at once where each needs this much memory; at least one.

    On the CPU as many as stay near its caches (more only slows it down), elsewhere a bounded share of free memory.
    """
    budget = 1 << 30
    if device.type == "cpu":
        budget = 1 << 24
    elif device.type == "cuda":
        budget = min(budget, torch.cuda.mem_get_info(device)[0] // 4)
    return max(1, budget // bytes_per_item)


def _count(kind: str) -> int:
    if kind == "cpu":
        return 1
    module = getattr(torch, kind, None)  # torch.npu exists only where torch_npu has been imported
    if module is None or not hasattr(module, "is_available") or not module.is_available():
        return 0
    return int(module.device_count())

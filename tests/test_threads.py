"""Sharing the processor: what is set before torch loads, and how many threads do what."""

import os
import subprocess
import sys

import pytest
import torch

from meshwright.threads import kernel_threads, one_torch_thread, wait_without_spinning


def test_one_torch_thread_leaves_the_kernels_theirs_and_gives_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with one_torch_thread():
            assert (torch.get_num_threads(), kernel_threads()) == (1, 3)
            with one_torch_thread():
                assert (torch.get_num_threads(), kernel_threads()) == (1, 3)
            assert (torch.get_num_threads(), kernel_threads()) == (1, 3)
        assert (torch.get_num_threads(), kernel_threads()) == (3, 3)
        with pytest.raises(KeyboardInterrupt), one_torch_thread():
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def _policy(code: str, **environment: str) -> str:
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_DISPLAY_ENV")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**plain, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks libgomp what it has read")
def test_torch_reads_the_wait_policy_that_the_package_has_set():
    shown = _policy("import meshwright, torch; torch.ones(9)", OMP_DISPLAY_ENV="true")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_without_spinning()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_nothing_is_set_when_it_is_too_late(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    wait_without_spinning()
    assert "OMP_WAIT_POLICY" not in os.environ

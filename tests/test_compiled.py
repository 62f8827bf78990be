"""Compiled functions give their results wherever they can be kept."""

import errno
import os

import numba
import numpy as np
import pytest

from meshwright.compiled import compiled


def _total(values):
    total = 0.0
    for i in range(values.shape[0]):
        total += values[i]
    return total


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def _files(folder, suffix):
    return [path for path in folder.rglob("*") if path.suffix == suffix]


def test_what_was_compiled_is_kept_and_found(cache_dir):
    assert compiled(_total)(np.ones(4)) == 4
    assert len(_files(cache_dir, ".nbc")) == 1
    again = compiled(_total)
    assert again(np.ones(5)) == 5
    assert sum(again.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_costs_the_cache_and_nothing_else(cache_dir, monkeypatch, number):
    rename = os.replace

    def refuse(source, target):
        if str(cache_dir) in str(target):
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    assert compiled(_total)(np.ones(4)) == 4
    assert _files(cache_dir, ".nbc") == []
    assert [path for path in cache_dir.rglob("*") if ".tmp" in path.name] == []


def test_a_place_that_cannot_be_made_costs_the_cache_and_nothing_else(cache_dir, monkeypatch):
    (cache_dir / "file").write_text("")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache_dir / "file" / "below"))
    monkeypatch.setattr("numba.core.caching.InTreeCacheLocator.ensure_cache_path", _refuse)
    monkeypatch.setattr("numba.core.caching.UserWideCacheLocator.ensure_cache_path", _refuse)
    assert compiled(_total)(np.ones(4)) == 4


def _refuse(_):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("left", [0, 20])
def test_half_a_file_in_the_cache_is_not_used(cache_dir, suffix, left):
    assert compiled(_total)(np.ones(4)) == 4
    (kept,) = _files(cache_dir, suffix)
    kept.write_bytes(kept.read_bytes()[:left])
    assert compiled(_total)(np.ones(6)) == 6

"""Jobs on disk: order, restarts, sweeping; and the options of the command line as JSON."""

import time
from dataclasses import fields
from pathlib import Path

import pytest

from meshwright import options as road
from meshwright.app.job_request import TASKS
from meshwright.app.option_fields import option_name, options_schema, read_options
from meshwright.app.store import JobStore
from meshwright.cli.flags import flag
from meshwright.errors import InputError


def _queued(store: JobStore, data: bytes = b"x") -> str:
    job_id = store.create("reconstruct")
    (store.folder(job_id) / "upload" / "0000").write_bytes(data)
    store.enqueue(job_id, "x", {"options": {}, "exclude": []}, ["x"])
    return job_id


def test_first_come_first_served(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    jobs = [_queued(store) for _ in range(3)]
    taken = [store.take() for _ in range(4)]
    assert [job and job.id for job in taken] == [*jobs, None]


def test_a_job_at_which_the_server_died_twice_is_given_up(tmp_path: Path) -> None:
    job_id = _queued(JobStore(tmp_path))
    for state in ("queued", "failed"):
        store = JobStore(tmp_path)
        assert store.take() is not None
        store.close()
        store = JobStore(tmp_path)
        store.recover()
        job = store.get(job_id)
        assert job is not None
        assert job.state == state
    assert job.error is not None


def test_old_and_large_jobs_go_and_others_stay(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    first, second, third = (_queued(store, bytes(10_000)) for _ in range(3))
    for job_id in (first, second):
        store.end(job_id, "done")
        time.sleep(0.01)
    assert store.sweep(kept_s=60.0, kept_bytes=40_000) == 0
    assert store.sweep(kept_s=60.0, kept_bytes=25_000) == 1  # the one that ended first
    assert store.get(first) is None
    assert not store.folder(first).exists()
    assert store.sweep(kept_s=60.0, kept_bytes=0) == 1
    assert store.get(second) is None
    assert store.get(third) is not None  # has not ended
    store.end(third, "failed", "because")
    assert store.sweep(kept_s=0.0, kept_bytes=1 << 40) == 1


def test_a_cancelled_job_stays_cancelled(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job_id = _queued(store)
    store.take()
    store.end(job_id, "cancelled")
    store.end(job_id, "done")  # the worker was just ready
    job = store.get(job_id)
    assert job is not None
    assert job.state == "cancelled"


@pytest.mark.parametrize("job_id", ["..", "../x", "", "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n"])
def test_only_ids_name_folders(tmp_path: Path, job_id: str) -> None:
    with pytest.raises(KeyError):
        JobStore(tmp_path).folder(job_id)


def test_options_have_the_names_and_defaults_of_the_command_line() -> None:
    for groups in TASKS.values():
        schema = options_schema(groups)["properties"]
        made = read_options(groups, {})
        for group in groups:
            assert made[group] == group()
            for field in fields(group):
                name = option_name(field.name)
                assert "--" + name == flag(field.name)
                if name in schema:
                    assert schema[name]["description"]
                    assert schema[name].get("default", None) == (
                        list(field.default) if isinstance(field.default, tuple) else field.default
                    )
    assert "masks" not in options_schema((road.ViewOptions,))["properties"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("seed", True), ("seed", 1.5), ("seed", 10**400), ("seed", "1"), ("fov", float("nan")), ("fov", 10**400),
     ("fov", "wide"), ("turntable", 1), ("format", "exe"), ("format", [["glb"]]), ("format", ["glb"] * 17),
     ("rig", ["auto"]), ("rig", {}), ("rig", None), ("device", "x" * 300), ("device", "a\nb")],
)  # fmt: skip
def test_ill_typed_options_are_named(option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^options: {option} "):
        read_options(TASKS["reconstruct"], {option: value})

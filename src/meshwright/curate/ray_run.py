"""Rendering on a Ray cluster: a task an object (extra ``ray``).

All nodes see the objects and the data set under the same paths. Each task runs its object in a process of its own with
limits, as on one machine, and results are written by renames, so a task that Ray runs twice does no harm.
"""

from collections.abc import Iterator
from pathlib import Path

from meshwright.curate.isolate import Outcome, run_isolated
from meshwright.curate.options import Limits
from meshwright.curate.run import Job, render_job
from meshwright.errors import InputError

_RETRIES = 3  # of a task whose node or worker was lost
_IN_FLIGHT_PER_CPU = 4  # enough to keep every processor busy, few enough for the scheduler's memory


def run_on_ray(jobs: list[Job], address: str, limits: Limits) -> Iterator[tuple[int, Outcome]]:
    """As `run_isolated`, on the cluster at ``address``; "local" starts one on this machine.

    Raises:
        InputError: Ray is not installed, there is no cluster at ``address``, or tasks are lost again and again.
    """
    try:
        import ray
    except ImportError:
        raise InputError("`ray`: is not installed; pip install 'meshwright[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except Exception as error:  # Ray has no name for "did not start in time"
        raise InputError(f"`ray={address}`: there is no cluster ({' '.join(str(error).split())[:200]})") from None
    try:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_render)
        waiting = list(range(len(jobs)))[::-1]
        running: dict[object, int] = {}
        while waiting or running:
            most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _IN_FLIGHT_PER_CPU
            while waiting and len(running) < most:
                number = waiting.pop()
                running[task.remote(jobs[number], limits)] = number
            ready, _ = ray.wait(list(running))
            number = running.pop(ready[0])
            try:
                yield number, ray.get(ready[0])
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"{jobs[number].item.path}: Ray lost its task ({type(error).__name__}); run again"
                ) from None
    finally:
        ray.shutdown()


def _render(job: Job, limits: Limits) -> Outcome:
    """Runs on a node of the cluster."""
    if not Path(job.dataset / "dataset.json").is_file():
        raise InputError(f"{job.dataset}: this node does not see the data set; put it where all nodes do")
    ((_, outcome),) = run_isolated(render_job, [(job,)], 1, limits)
    return outcome

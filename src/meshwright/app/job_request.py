"""What a request for a job may say, checked before anything is queued. The one place that knows each task's options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwright import options as road
from meshwright.app.limits import Limits
from meshwright.app.option_fields import option_name, read_options
from meshwright.app.uploads import Refused
from meshwright.errors import InputError

_AROUND = (road.ViewOptions, road.RunOptions)
_FINISH = (road.ColorOptions, road.OutputOptions)
TASKS: Mapping[str, tuple[type, ...]] = {
    "inspect": _AROUND,
    "reconstruct": (*_AROUND, road.ModelOptions, road.ShapeOptions, road.FitOptions, *_FINISH),
    "refine": (*_AROUND, road.FitOptions, *_FINISH),
    "texture": (*_AROUND, *_FINISH),
}


@dataclass(frozen=True)
class JobRequest:
    """``exclude``: numbers of views that are left out. ``options``: by their names on the command line."""

    task: str = "reconstruct"
    options: dict[str, Any] = field(default_factory=dict)
    exclude: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"options": self.options, "exclude": list(self.exclude)}

    def groups(self) -> dict[type, Any]:
        """The options as the road's own dataclasses.

        Raises:
            InputError: an option is unknown, of the wrong type or out of its range.
        """
        return read_options(TASKS[self.task], self.options)


def job_request(
    given: Mapping[str, object], limits: Limits, models: tuple[str, ...] = (), task: str = "reconstruct"
) -> JobRequest:
    """Check what a client asks for: ``task``, ``options``, ``exclude``.

    Args:
        models: the weights that jobs may use, by name.
        task: what is done if ``given`` does not say.

    Raises:
        Refused: with 400 and a sentence.
    """
    unknown = set(given) - {"task", "options", "exclude"}
    if unknown:
        raise Refused(400, "the request has unknown fields; known are task, options and exclude")
    wanted = given.get("task", task)
    if not isinstance(wanted, str) or wanted not in TASKS:
        raise Refused(400, f"task: must be one of {', '.join(TASKS)}")
    options = given.get("options", {})
    if not isinstance(options, dict):
        raise Refused(400, 'options: must be a JSON object, such as {"refine": "full"}')
    exclude = given.get("exclude", [])
    if (
        not isinstance(exclude, list)
        or len(exclude) > limits.frames
        or not all(
            isinstance(number, int) and not isinstance(number, bool) and 0 <= number < limits.frames
            for number in exclude
        )
    ):
        raise Refused(400, "exclude: must be a list of numbers of views, counted from 0")
    request = JobRequest(wanted, options, tuple(sorted(set(exclude))))
    try:
        groups = request.groups()
    except InputError as error:
        raise Refused(400, str(error)) from None
    views = groups[road.ViewOptions]
    for name, most in (("max_views", limits.frames), ("max_size_px", limits.picture_px)):
        if getattr(views, name) > most:
            raise Refused(400, f"options: {option_name(name)} may be {most} at most on this server")
    model = groups[road.ModelOptions].model if road.ModelOptions in groups else "none"
    if model not in ("none", *models):
        raise Refused(400, f"options: model may be {' or '.join(('none', *models))} on this server")
    return request

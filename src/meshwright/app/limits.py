"""What the server lets one request, one job and all jobs together cost."""

from dataclasses import dataclass

_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Every bound of the server. Beyond one the answer is a 4xx (or 503, where waiting helps) and a sentence."""

    upload_bytes: int = 1024 * _MIB
    """One request's body."""

    upload_files: int = 2_000
    """Files of one request, and of the archives in it."""

    unpacked_bytes: int = 4096 * _MIB
    """What the archives of one job may unpack to."""

    options_bytes: int = 64 * 1024
    """The form's other fields together: options, names."""

    uploads_at_once: int = 8
    """Requests whose bodies are being read."""

    event_streams: int = 64
    """Open streams of events."""

    silence_s: float = 30.0
    """A client that sends nothing for so long, in the middle of a request, is cut off."""

    upload_s: float = 1800.0
    """One request's body must have arrived after so long."""

    queued_jobs: int = 32
    """Jobs that wait."""

    jobs_of_one_request: int = 32
    """Jobs that one batch may make."""

    job_s: float = 1800.0
    """A job is stopped after so long."""

    job_memory_bytes: int = 8192 * _MIB
    """Resident memory of a job's process (Linux only)."""

    frames: int = 512
    """Pictures of one job that are used, at most: bounds ``max_views``."""

    picture_px: int = 4096
    """Longer side of pictures that are used, at most: bounds ``max_size``."""

    kept_s: float = 7 * 24 * 3600.0
    """Jobs that ended are removed after so long."""

    kept_bytes: int = 20 * 1024 * _MIB
    """All jobs' files together: the oldest that ended go first."""

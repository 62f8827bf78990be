"""The one exception that means "the user can fix this"."""


class InputError(ValueError):
    """Something given from outside cannot be used: says what, where and what to do about it.

    The command line prints the message alone (no traceback) and exits with code 2. A message is one sentence
    that names the file or setting, then the remedy, for example
    ``orbit.mp4: the video breaks off after 3 frames; re-encode it or pass a folder of pictures``.

    Options are named as Python's arguments in backticks, with or without a value: ```fov_deg```, ```rig='orbit'```.
    The command line shows the same message with its flags: ``--fov``, ``--rig orbit``.
    """

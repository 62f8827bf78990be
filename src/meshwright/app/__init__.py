"""The app: a job server for pictures to meshes, and its page in the browser.

`serve` runs it (extra ``app``). The server itself never opens what it was sent: every job runs in a process of its own
(`meshwright.app.worker`), which walks the same road as the command line and writes to its job's folder.
"""

from meshwright.app.limits import Limits
from meshwright.app.server import default_data_folder, serve

__all__ = ["Limits", "default_data_folder", "serve"]

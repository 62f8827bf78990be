"""meshwright in Blender: pictures to a mesh, and the selected mesh refined or textured by pictures.

The work is done by a meshwright server on this computer (`meshwright serve`), which the add-on finds or starts; torch
is too big to be bundled with an extension.
"""

import contextlib
import queue
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, IntProperty, StringProperty

from . import scene
from .client import ENDED, Client, ServerError, start_server

_ADDON = __package__ or "meshwright_bridge"
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".json", ".npz", ".pkl", ".bin", ".txt"}
_started: list[Any] = []  # servers that this Blender started, and ends with itself


class MeshwrightPreferences(bpy.types.AddonPreferences):
    bl_idname = _ADDON

    address: StringProperty(name="Server", default="http://127.0.0.1:8765")  # type: ignore[valid-type]
    token: StringProperty(name="Token", subtype="PASSWORD")  # type: ignore[valid-type]
    command: StringProperty(name="Program to start it", default="meshwright")  # type: ignore[valid-type]

    def draw(self, context: Any) -> None:
        for name in ("address", "token", "command"):
            self.layout.prop(self, name)


class MeshwrightSettings(bpy.types.PropertyGroup):
    source: StringProperty(name="Pictures", description="A film, a sheet, or a folder of pictures", subtype="FILE_PATH")  # type: ignore[valid-type]
    refine: EnumProperty(  # type: ignore[valid-type]
        name="Fit", items=[("off", "Outlines only", ""), ("fast", "Fast", ""), ("full", "Full", "")], default="fast"
    )
    texture_size: IntProperty(name="Texture", default=2048, min=256, max=8192)  # type: ignore[valid-type]
    cameras: BoolProperty(name="Import the cameras", default=True)  # type: ignore[valid-type]
    status: StringProperty()  # type: ignore[valid-type]


def client_of(context: Any) -> Client:
    """The server of the preferences; started if it should be on this computer and is not there.

    Raises:
        ServerError: there is none.
    """
    preferences = context.preferences.addons[_ADDON].preferences
    client = Client(preferences.address, preferences.token)
    if client.is_there():
        return client
    host, _, port = preferences.address.rpartition("//")[2].partition(":")
    local = host in ("127.0.0.1", "localhost")
    if not local and not bpy.app.online_access:
        raise ServerError("Blender is not allowed to go online; allow it in the preferences, or use a local server")
    if local:
        _started.append(start_server(preferences.command, int(port.strip("/") or 80)))
    return client


def files_of(source: Path) -> list[tuple[Path, str]]:
    """A file, or all pictures and camera files below a folder, with the names they are sent under."""
    if source.is_file():
        return [(source, source.name)]
    found = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix.lower() in _PICTURES)
    if not found:
        raise ServerError(f"{source}: holds no pictures; choose a film or a folder of pictures")
    return [(path, path.relative_to(source.parent).as_posix()) for path in found]


class _Job(bpy.types.Operator):
    """Send, follow and import, without stopping Blender: the network is a thread's, the scene the timer's."""

    bl_options = frozenset({"REGISTER"})
    task = "reconstruct"

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.meshwright
        try:
            client = client_of(context)
            source = Path(bpy.path.abspath(settings.source))
            files = files_of(source)
            self._folder = Path(tempfile.mkdtemp(prefix="meshwright-"))
            if self.task != "reconstruct":
                mesh = context.active_object
                files.append((scene.export_mesh(mesh, self._folder), "mesh.glb"))
                if source.is_file():
                    files = [(path, path.name) for path, _ in files]
                else:
                    files[-1] = (files[-1][0], f"{source.name}/mesh.glb")
        except (ServerError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        options: dict[str, object] = {"texture-size": settings.texture_size}
        if self.task != "texture":
            options["refine"] = "fast" if self.task == "refine" and settings.refine == "off" else settings.refine
        self._name, self._with_cameras = source.stem, settings.cameras
        self._said: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(client, files, options), daemon=True)
        self._thread.start()
        if bpy.app.background:  # no timers there: wait
            self._thread.join()
            return self._take(context) or {"CANCELLED"}
        self._timer = context.window_manager.event_timer_add(0.3, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> set[str]:
        if event.type == "ESC":
            self._stop.set()
        if event.type == "TIMER":
            ended = self._take(context)
            if ended is not None:
                context.window_manager.event_timer_remove(self._timer)
                return ended
        return {"PASS_THROUGH"}

    def _take(self, context: Any) -> set[str] | None:
        """What the thread has said since: progress is shown, an end ends."""
        settings = context.scene.meshwright
        ended = None
        while ended is None and not self._said.empty():
            kind, value = self._said.get()
            settings.status = str(value) if kind != "done" else ""
            if kind == "failed":
                self.report({"ERROR"}, str(value))
                ended = {"CANCELLED"}
            elif kind == "done":
                scene.import_mesh(self._folder / "mesh.glb", self._name)
                if self._with_cameras:
                    scene.import_cameras(self._folder / "views.json", self._folder, self._name)
                ended = {"FINISHED"}
        for area in context.screen.areas if context.screen else ():
            area.tag_redraw()
        return ended

    def _follow(self, client: Client, files: Any, options: Any) -> None:
        try:
            job_id = client.create(files, self.task, options)
            while True:
                job = client.job(job_id)
                if job["state"] in ENDED:
                    break
                if self._stop.is_set():
                    client.remove(job_id)
                    self._said.put(("failed", "cancelled"))
                    return
                waiting = job["state"] == "queued"
                self._said.put(("at", "waiting" if waiting else f"{job['stage']} {job['fraction']:.0%} (Esc cancels)"))
                time.sleep(0.5)
            if job["state"] != "done":
                self._said.put(("failed", job.get("error") or job["state"]))
                return
            for file in job["files"]:
                if file["name"] in ("mesh.glb", "views.json") or file["name"].startswith("view-"):
                    client.download(job_id, file["name"], self._folder / file["name"])
            self._said.put(("done", ""))
        except (ServerError, OSError, ValueError) as error:
            self._said.put(("failed", str(error)))


class MESHWRIGHT_OT_reconstruct(_Job):
    """Make a textured mesh of the pictures"""

    bl_idname = "meshwright.reconstruct"
    bl_label = "Make a mesh"


class MESHWRIGHT_OT_refine(_Job):
    """Fit the selected mesh to the pictures and paint it"""

    bl_idname = "meshwright.refine"
    bl_label = "Refine selected"
    task = "refine"

    @classmethod
    def poll(cls, context: Any) -> bool:
        return context.active_object is not None and context.active_object.type == "MESH"


class MESHWRIGHT_OT_texture(MESHWRIGHT_OT_refine):
    """Paint the selected mesh with the pictures"""

    bl_idname = "meshwright.texture"
    bl_label = "Texture selected"
    task = "texture"


class MESHWRIGHT_PT_panel(bpy.types.Panel):
    bl_label = "meshwright"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "meshwright"

    def draw(self, context: Any) -> None:
        settings = context.scene.meshwright
        for name in ("source", "refine", "texture_size", "cameras"):
            self.layout.prop(settings, name)
        for operator in (MESHWRIGHT_OT_reconstruct, MESHWRIGHT_OT_refine, MESHWRIGHT_OT_texture):
            self.layout.operator(operator.bl_idname)
        if settings.status:
            self.layout.label(text=settings.status)


_CLASSES = (
    MeshwrightPreferences,
    MeshwrightSettings,
    MESHWRIGHT_OT_reconstruct,
    MESHWRIGHT_OT_refine,
    MESHWRIGHT_OT_texture,
    MESHWRIGHT_PT_panel,
)


def register() -> None:
    for kind in _CLASSES:
        bpy.utils.register_class(kind)
    bpy.types.Scene.meshwright = bpy.props.PointerProperty(type=MeshwrightSettings)


def unregister() -> None:
    del bpy.types.Scene.meshwright
    for kind in reversed(_CLASSES):
        bpy.utils.unregister_class(kind)
    for process in _started:
        with contextlib.suppress(OSError):
            process.terminate()
    _started.clear()

"""Results into the scene: the mesh with its material, and the input cameras with their pictures behind them."""

import json
import math
from pathlib import Path
from typing import Any

import bpy
from mathutils import Matrix

_SENSOR_MM = 36.0


def import_mesh(glb: Path, name: str) -> Any:
    """The GLB's one object, named, on top of the selection."""
    before = set(bpy.data.objects)
    bpy.ops.import_scene.gltf(filepath=str(glb))
    made = [thing for thing in bpy.data.objects if thing not in before]
    (mesh,) = [thing for thing in made if thing.type == "MESH"]
    mesh.name = name
    bpy.ops.object.select_all(action="DESELECT")
    mesh.select_set(True)
    bpy.context.view_layer.objects.active = mesh
    return mesh


def import_cameras(views: Path, pictures: Path, name: str) -> list[Any]:
    """A camera for each view of views.json, with its picture as background, in a collection of their own.

    Cameras of views.json are camera-to-world, z up, looking along -z: Blender's own convention, so nothing is turned.
    """
    collection = bpy.data.collections.new(f"{name} cameras")
    bpy.context.scene.collection.children.link(collection)
    made = []
    for entry in json.loads(views.read_text(encoding="utf-8"))["views"]:
        camera = bpy.data.cameras.new(entry["name"])
        set_lens(camera, entry["intrinsics"], entry["width"], entry["height"])
        thing = bpy.data.objects.new(entry["name"], camera)
        values = entry["T_world_camera"]
        thing.matrix_world = Matrix([values[row * 4 : row * 4 + 4] for row in range(4)])
        picture = pictures / entry["file"]
        if picture.exists():
            camera.show_background_images = True
            behind = camera.background_images.new()
            behind.image = bpy.data.images.load(str(picture))
            behind.alpha = 0.6
        collection.objects.link(thing)
        made.append(thing)
    return made


def set_lens(camera: Any, intrinsics: list[float], width: int, height: int) -> None:
    """Focal length and shift of a Blender camera from (fx, fy, cx, cy) in shares of width and height.

    Blender counts shift in shares of the longer side. Pixels that are not square are not Blender's: fy is followed.
    """
    _, fy, cx, cy = intrinsics
    longer = max(width, height)
    camera.sensor_fit = "AUTO"
    camera.sensor_width = _SENSOR_MM  # before the lens: setting it afterwards changes the angle
    camera.lens = fy * height / longer * _SENSOR_MM
    camera.shift_x = (0.5 - cx) * width / longer
    camera.shift_y = (cy - 0.5) * height / longer
    camera.clip_start = 0.001


def camera_angle_deg(camera: Any) -> float:
    """Horizontal or vertical field of view of the longer side."""
    return math.degrees(camera.angle)


def export_mesh(mesh: Any, folder: Path) -> Path:
    """One object as a GLB, in world coordinates, without touching the others."""
    selected, active = list(bpy.context.selected_objects), bpy.context.view_layer.objects.active
    bpy.ops.object.select_all(action="DESELECT")
    mesh.select_set(True)
    bpy.context.view_layer.objects.active = mesh
    target = folder / "mesh.glb"
    bpy.ops.export_scene.gltf(filepath=str(target), export_format="GLB", use_selection=True, export_apply=True)
    bpy.ops.object.select_all(action="DESELECT")
    for thing in selected:
        thing.select_set(True)
    bpy.context.view_layer.objects.active = active
    return target

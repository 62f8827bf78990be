"""Runs inside Blender's Python (bpy): the add-on against a running server. Prints one line of JSON.

python blender_addon_script.py ADDON_FOLDER SERVER_ADDRESS VIEWS_JSON
"""

import importlib
import json
import sys
from pathlib import Path

import bpy
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

addon_folder, address, source = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.path.insert(0, str(addon_folder.parent))
bpy.ops.wm.read_factory_settings(use_empty=True)
module = importlib.import_module(addon_folder.name)
entry = bpy.context.preferences.addons.new()
entry.module = addon_folder.name
module.register()
entry.preferences.address = address
settings = bpy.context.scene.meshwright
settings.source, settings.refine, settings.texture_size = source, "off", 512
result = {}
try:
    result["made"] = sorted(bpy.ops.meshwright.reconstruct())
    meshes = [thing for thing in bpy.data.objects if thing.type == "MESH"]
    cameras = [thing for thing in bpy.data.objects if thing.type == "CAMERA"]
    result["meshes"] = [len(thing.data.polygons) for thing in meshes]
    result["materials"] = [len(thing.data.materials) for thing in meshes]
    result["corner"] = [max(abs(value) for value in corner) for corner in meshes[0].bound_box]
    scene = bpy.context.scene
    points = [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1), (-0.1, 0.25, -0.3)]
    result["points"] = points
    result["seen"] = []
    for camera in cameras:
        background = camera.data.background_images[0].image
        scene.render.resolution_x, scene.render.resolution_y = background.size
        uvs = [world_to_camera_view(scene, camera, Vector(point)) for point in points]
        result["seen"].append({"name": camera.name, "uv": [(uv.x, 1 - uv.y) for uv in uvs]})
    result["textured"] = sorted(bpy.ops.meshwright.texture())
    settings.source = str(addon_folder / "client.py")
    try:
        bpy.ops.meshwright.reconstruct()
    except RuntimeError as error:
        result["refused"] = str(error)
finally:
    module.unregister()
print("RESULT " + json.dumps(result))

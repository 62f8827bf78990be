"""Runs inside Blender's own Python: draws one object from many views with Cycles.

    python blender_render.py JOB.json          where ``import bpy`` works
    blender -b --factory-startup --python blender_render.py -- JOB.json

Imports nothing but the standard library, numpy and bpy: it knows nothing of the package it belongs to. JOB.json and the
arrays that are written (an .npz) are described in ``blender.py``.
"""

import json
import math
import random
import struct
import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector

_NOTHING_IS_NEARER = 1e9  # Cycles writes 1e10 where it sees nothing
_GPU_KINDS = ("OPTIX", "CUDA", "HIP", "METAL", "ONEAPI")
_UNLIT_SAMPLES, _LIT_SAMPLES = 16, 64


def main() -> None:
    job = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    scene = empty_scene(job["size_px"], job["cycles_device"])
    meshes = import_file(Path(job["path"]))
    center, scale, bounds = normalize(meshes, job["fit"])
    for obj in meshes:
        flat_normals(obj.data)
        if job["lighting"] == "unlit":
            emit_base_color(obj.data)
    if job["lighting"] != "unlit":
        light(scene, job["lighting"], job["seed"])
    count, size = len(job["T_world_camera"]), job["size_px"]
    rgba = np.empty((count, 4, size, size), np.float32)
    depth_z, normals = np.empty((count, size, size), np.float32), np.empty((count, 3, size, size), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            aim(scene, job["T_world_camera"][i], job["intrinsics"][i])
            color = render(scene, folder, _UNLIT_SAMPLES if job["lighting"] == "unlit" else _LIT_SAMPLES, 1.0)
            # Depth and normal are asked for at the pixel's centre: one sample through the narrowest filter there is.
            geometry = render(scene, folder, 1, 0.01)
            rgba[i] = np.stack([color[f"Combined.{channel}"] for channel in "RGBA"])
            depth_z[i] = geometry["Depth.V"] if "Depth.V" in geometry else geometry["Depth.Z"]
            normals[i] = np.stack([geometry[f"Normal.{axis}"] for axis in "XYZ"])
    seen = depth_z < _NOTHING_IS_NEARER
    np.savez(
        job["out"],
        rgba=rgba,
        depth_z=np.where(seen, depth_z, 0),
        normals=np.where(seen[:, None], normals, 0),
        center=np.array(center),
        scale=np.array(scale),
        bounds=np.array(bounds),
        faces=np.array(sum(count_triangles(obj) for obj in meshes)),
        version=np.array(bpy.app.version_string),
    )


def empty_scene(size_px: int, device: str) -> bpy.types.Scene:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = device.upper()
    if device == "gpu":
        enable_gpus()
    scene.cycles.pixel_filter_type = "BOX"
    scene.render.threads_mode, scene.render.threads = "FIXED", 1  # objects are drawn side by side
    scene.render.resolution_x = scene.render.resolution_y = size_px
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = True
    scene.render.use_persistent_data = True
    settings = scene.render.image_settings
    settings.media_type = "MULTI_LAYER_IMAGE"  # before the format, which is refused otherwise
    settings.file_format = "OPEN_EXR_MULTILAYER"
    settings.color_depth, settings.exr_codec = "32", "NONE"
    layer = scene.view_layers[0]
    layer.use_pass_z = layer.use_pass_normal = True
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    return scene


def enable_gpus() -> None:
    """All GPUs of the first kind that there is. Blender's factory settings use none, and it then draws on the CPU."""
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for kind in _GPU_KINDS:
        try:
            preferences.compute_device_type = kind
        except TypeError:  # this build does not know it
            continue
        preferences.refresh_devices()
        found = [device for device in preferences.devices if device.type == kind]
        for device in preferences.devices:
            device.use = device in found
        if found:
            return
    raise SystemExit("Cycles finds no GPU here; leave cycles-device out")


def import_file(path: Path) -> list[bpy.types.Object]:
    """All mesh objects of the file, y up turned z up."""
    y_up = {"forward_axis": "NEGATIVE_Z", "up_axis": "Y"}
    importers = {
        ".glb": lambda p: bpy.ops.import_scene.gltf(filepath=p),
        ".gltf": lambda p: bpy.ops.import_scene.gltf(filepath=p),
        ".obj": lambda p: bpy.ops.wm.obj_import(filepath=p, **y_up),
        ".ply": lambda p: bpy.ops.wm.ply_import(filepath=p, **y_up),
        ".stl": lambda p: bpy.ops.wm.stl_import(filepath=p, **y_up),
        ".fbx": lambda p: bpy.ops.wm.fbx_import(filepath=p),
    }
    importers[path.suffix.lower()](str(path))
    for obj in list(bpy.data.objects):
        if obj.type in ("LIGHT", "CAMERA") and obj is not bpy.context.scene.camera:
            bpy.data.objects.remove(obj)
    meshes = [obj for obj in bpy.data.objects if obj.type == "MESH" and len(obj.data.polygons)]
    if not meshes:
        raise SystemExit("the file holds no surface")
    return meshes


def normalize(meshes: list[bpy.types.Object], fit: str) -> tuple[list[float], float, list[list[float]]]:
    """Move and scale all objects together into [-1, 1]^3; centre, scale, and the box afterwards."""
    bpy.context.view_layer.update()
    points = np.concatenate([world_points(obj) for obj in meshes])
    low, high = points.min(0), points.max(0)
    center = (low + high) / 2
    radius = (high - low).max() / 2 if fit == "box" else np.linalg.norm(points - center, axis=1).max()
    if not 1e-20 < radius < 1e20:
        raise SystemExit("the object has no size that can be scaled")
    scale = float(1 / radius)
    into_cube = Matrix.Scale(scale, 4) @ Matrix.Translation(Vector((-center).tolist()))
    for obj in [obj for obj in bpy.data.objects if obj.parent is None and obj is not bpy.context.scene.camera]:
        obj.matrix_world = into_cube @ obj.matrix_world
    bpy.context.view_layer.update()
    return center.tolist(), scale, [((low - center) * scale).tolist(), ((high - center) * scale).tolist()]


def world_points(obj: bpy.types.Object) -> np.ndarray:
    """The vertices that faces use."""
    points = np.empty(3 * len(obj.data.vertices), np.float32)
    obj.data.vertices.foreach_get("co", points)
    used = np.empty(len(obj.data.loops), np.int32)
    obj.data.loops.foreach_get("vertex_index", used)
    T = np.array(obj.matrix_world)
    return points.reshape(-1, 3)[np.unique(used)].astype(np.float64) @ T[:3, :3].T + T[:3, 3]


def count_triangles(obj: bpy.types.Object) -> int:
    obj.data.calc_loop_triangles()
    return len(obj.data.loop_triangles)


def flat_normals(mesh: bpy.types.Mesh) -> None:
    """Every face its own normal, whatever the file says of smoothness."""
    custom = mesh.attributes.get("custom_normal")
    if custom is not None:
        mesh.attributes.remove(custom)
    mesh.shade_flat()


def emit_base_color(mesh: bpy.types.Mesh) -> None:
    """Materials that shine with their base colour and answer to no light."""
    if not mesh.materials:
        mesh.materials.append(bpy.data.materials.new("plain"))
    for slot, material in enumerate(mesh.materials):
        if material is None:
            material = mesh.materials[slot] = bpy.data.materials.new("plain")
        if material.get("emits"):
            continue
        material["emits"] = True
        material.use_nodes = True
        tree = material.node_tree
        principled = next((node for node in tree.nodes if node.type == "BSDF_PRINCIPLED"), None)
        output = next((node for node in tree.nodes if node.type == "OUTPUT_MATERIAL"), None)
        if principled is None or output is None:
            continue  # a material without light already, such as KHR_materials_unlit
        emission = tree.nodes.new("ShaderNodeEmission")
        base = principled.inputs["Base Color"]
        if base.is_linked:
            tree.links.new(base.links[0].from_socket, emission.inputs["Color"])
        elif mesh.color_attributes:
            attribute = tree.nodes.new("ShaderNodeVertexColor")
            attribute.layer_name = mesh.color_attributes[0].name
            tree.links.new(attribute.outputs["Color"], emission.inputs["Color"])
        else:
            emission.inputs["Color"].default_value = base.default_value
        tree.links.new(emission.outputs[0], output.inputs["Surface"])


def light(scene: bpy.types.Scene, lighting: str, seed: int) -> None:
    """studio: the same white from all sides. varied: one to three area lights and dim surroundings, by the seed."""
    draw = random.Random(seed)
    world = bpy.data.worlds.new("world")
    scene.world = world
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    background.inputs["Strength"].default_value = 1.0 if lighting == "studio" else draw.uniform(0.2, 0.7)
    if lighting == "studio":
        return
    for number in range(draw.randint(1, 3)):
        data = bpy.data.lights.new(f"light {number}", "AREA")
        data.energy, data.size = draw.uniform(100, 400), draw.uniform(0.5, 4.0)
        data.color = [draw.uniform(0.8, 1.0) for _ in range(3)]
        lamp = bpy.data.objects.new(f"light {number}", data)
        azimuth_rad, elevation_rad = draw.uniform(0, 2 * math.pi), draw.uniform(math.radians(5), math.radians(85))
        direction = Vector(
            (
                math.cos(elevation_rad) * math.cos(azimuth_rad),
                math.cos(elevation_rad) * math.sin(azimuth_rad),
                math.sin(elevation_rad),
            )
        )
        lamp.location = direction * draw.uniform(3.5, 6.0)
        lamp.rotation_euler = direction.to_track_quat("Z", "Y").to_euler()  # lights shine along their -z
        scene.collection.objects.link(lamp)


def aim(scene: bpy.types.Scene, T_world_camera: list[list[float]], intrinsics: list[float]) -> None:
    """Blender's camera frame is OpenGL's; its lens is in millimetres of a sensor, its shift in picture widths."""
    fx, _, cx, cy = intrinsics
    camera = scene.camera.data
    camera.sensor_fit = "HORIZONTAL"
    camera.sensor_width = 36.0
    camera.lens = fx * camera.sensor_width
    camera.shift_x, camera.shift_y = 0.5 - cx, cy - 0.5
    camera.clip_start, camera.clip_end = 0.001, 1e4
    scene.camera.matrix_world = Matrix(T_world_camera)


def render(scene: bpy.types.Scene, folder: str, samples: int, filter_px: float) -> dict[str, np.ndarray]:
    """The channels of the view layer, such as Combined.R."""
    scene.cycles.samples = samples
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = samples == _LIT_SAMPLES
    scene.cycles.filter_width = filter_px
    scene.render.filepath = str(Path(folder) / "view.exr")
    bpy.ops.render.render(write_still=True)
    channels = read_exr(Path(scene.render.filepath).read_bytes())
    return {name.split(".", 1)[1]: values for name, values in channels.items()}


def read_exr(data: bytes) -> dict[str, np.ndarray]:
    """Channels of an uncompressed scan line OpenEXR file, all its parts together ("OpenEXR file layout")."""
    magic, version = struct.unpack_from("<II", data)
    if magic != 20000630:
        raise SystemExit("Blender wrote no OpenEXR file")
    several = bool(version & 0x1000)
    at, parts = 8, []
    while True:  # Blender 5 writes a part for each pass, Blender 4 one for all
        attributes, at = header(data, at)
        parts.append(Part(attributes))
        if not several:
            break
        if data[at] == 0:
            at += 1
            break
    pictures: dict[str, np.ndarray] = {}
    for part in parts:
        for offset in struct.unpack_from(f"<{part.height}Q", data, at):
            row_at = offset + 4 if several else offset  # behind the number of the part
            row = struct.unpack_from("<i", data, row_at)[0] - part.top
            values_at = row_at + 8
            for name, kind in part.channels:
                picture = pictures.setdefault(name, np.empty((part.height, part.width), np.float32))
                picture[row] = np.frombuffer(data, kind, part.width, values_at)
                values_at += part.width * kind.itemsize
        at += 8 * part.height
    return pictures


class Part:
    """What the header of a part says of its size and channels."""

    def __init__(self, attributes: dict[str, bytes]) -> None:
        if attributes["compression"] != b"\0":
            raise SystemExit("Blender compressed its OpenEXR file")
        left, self.top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
        self.width, self.height = right - left + 1, bottom - self.top + 1
        kinds: dict[int, np.dtype] = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
        self.channels: list[tuple[str, np.dtype]] = []
        at, listed = 0, attributes["channels"]
        while listed[at]:
            name, at = zero_ended(listed, at)
            self.channels.append((name, kinds[struct.unpack_from("<i", listed, at)[0]]))
            at += 16


def header(data: bytes, at: int) -> tuple[dict[str, bytes], int]:
    attributes = {}
    while data[at]:
        name, at = zero_ended(data, at)
        _, at = zero_ended(data, at)
        size = struct.unpack_from("<I", data, at)[0]
        attributes[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return attributes, at + 1


def zero_ended(data: bytes, start: int) -> tuple[str, int]:
    end = data.index(b"\0", start)
    return data[start:end].decode("latin1"), end + 1


if __name__ == "__main__":
    main()

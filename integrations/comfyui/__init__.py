"""ComfyUI nodes (V3 schema): views from a batch of pictures, a mesh of them, its refinement and texture, and a GLB.

The work is meshwright's Python API in ComfyUI's own process. Meshes travel between these nodes as `meshwright.Mesh`.
ComfyUI runs nodes in torch's inference mode, whose tensors know no gradients: all work leaves it, as fits need them.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import ComfyExtension, io

_CATEGORY = "3d/meshwright"
Views = io.Custom("MESHWRIGHT_VIEWS")
MeshValue = io.Custom("MESHWRIGHT_MESH")
_RIGS = ["sv3d", "orbit", "zero123plus", "zero123plus-v1.1"]


def _progress() -> Any:
    """ComfyUI's progress bar as a progress callback; it also ends the work when the user interrupts it."""
    from comfy.model_management import throw_exception_if_processing_interrupted
    from comfy.utils import ProgressBar

    bar = ProgressBar(1000)

    def tell(stage: str, fraction: float, detail: str = "") -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(int(1000 * fraction), 1000)

    return tell


def write_pictures(images: torch.Tensor, mask: torch.Tensor | None, folder: Path) -> None:
    """IMAGE (batch, height, width, channels in [0, 1]) as numbered PNGs; ``mask`` is 1 on the object."""
    from PIL import Image

    if mask is not None:
        if mask.shape[0] not in (1, images.shape[0]) or mask.shape[1:] != images.shape[1:3]:
            raise ValueError(f"mask of shape {tuple(mask.shape)} does not fit images of {tuple(images.shape)}")
        images = torch.cat([images[..., :3], mask.expand(images.shape[:3])[..., None]], dim=3)
    for number, image in enumerate((images.clamp(0, 1) * 255).round().byte().cpu().numpy()):
        Image.fromarray(image).save(folder / f"{number:04d}.png")


class LoadViews(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="MeshwrightViews",
            display_name="Views from pictures",
            category=_CATEGORY,
            description="Pictures of one object in the order of a rig, with the cameras of that rig.",
            inputs=[
                io.Image.Input("images"),
                io.Combo.Input("rig", options=_RIGS, default="sv3d"),
                io.Mask.Input("mask", optional=True, tooltip="1 on the object; else a flat background is removed."),
            ],
            outputs=[Views.Output("views")],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, rig: str, mask: torch.Tensor | None = None) -> Any:
        from meshwright import ViewOptions, load_views

        with torch.inference_mode(False), tempfile.TemporaryDirectory() as folder:
            write_pictures(images, mask, Path(folder))
            return io.NodeOutput(load_views(folder, ViewOptions(rig=rig), progress=_progress()))


class LoadViewsFromPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="MeshwrightViewsFromPath",
            display_name="Views from a path",
            category=_CATEGORY,
            description="A film of one turn, a sheet, a folder of pictures or a transforms.json.",
            inputs=[io.String.Input("path")],
            outputs=[Views.Output("views")],
        )

    @classmethod
    def execute(cls, path: str) -> Any:
        from meshwright import load_views

        with torch.inference_mode(False):
            return io.NodeOutput(load_views(path, progress=_progress()))


class Reconstruct(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="MeshwrightReconstruct",
            display_name="Reconstruct a mesh",
            category=_CATEGORY,
            description="A textured mesh of the views.",
            inputs=[
                Views.Input("views"),
                io.Combo.Input("refine", options=["off", "fast", "full"], default="fast"),
                io.Int.Input("texture_size", default=2048, min=256, max=8192, step=256),
                io.Int.Input("faces", default=0, min=0, max=5_000_000, tooltip="0: as many as there are."),
                io.Int.Input("seed", default=0, min=0, max=2**31 - 1),
            ],
            outputs=[MeshValue.Output("mesh")],
        )

    @classmethod
    def execute(cls, views: Any, refine: str, texture_size: int, faces: int, seed: int) -> Any:
        from meshwright import ColorOptions, FitOptions, reconstruct

        fit = FitOptions(refine=refine, faces=faces or None)
        color = ColorOptions(texture_size_px=texture_size)
        with torch.inference_mode(False):
            return io.NodeOutput(reconstruct(views, fit=fit, color=color, seed=seed, progress=_progress()))


class Refine(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="MeshwrightRefine",
            display_name="Refine a mesh",
            category=_CATEGORY,
            description="Fit the shape of a mesh to views of it. Texture it afterwards.",
            inputs=[
                MeshValue.Input("mesh"),
                Views.Input("views"),
                io.Combo.Input("level", options=["fast", "full"], default="fast"),
                io.Int.Input("seed", default=0, min=0, max=2**31 - 1),
            ],
            outputs=[MeshValue.Output("mesh"), Views.Output("views")],
        )

    @classmethod
    def execute(cls, mesh: Any, views: Any, level: str, seed: int) -> Any:
        from meshwright import refine

        with torch.inference_mode(False):
            refined = refine(mesh, views, level=level, seed=seed, progress=_progress())
        return io.NodeOutput(refined.mesh, refined.views)


class Texture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="MeshwrightTexture",
            display_name="Texture a mesh",
            category=_CATEGORY,
            description="Give a mesh the colours of views of it.",
            inputs=[
                MeshValue.Input("mesh"),
                Views.Input("views"),
                io.Int.Input("texture_size", default=2048, min=256, max=8192, step=256),
            ],
            outputs=[MeshValue.Output("mesh")],
        )

    @classmethod
    def execute(cls, mesh: Any, views: Any, texture_size: int) -> Any:
        from meshwright import bake_texture

        with torch.inference_mode(False):
            return io.NodeOutput(bake_texture(mesh, views, texture_size_px=texture_size, progress=_progress()))


class SaveMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="MeshwrightSave",
            display_name="Save a mesh",
            category=_CATEGORY,
            description="Write a GLB to the output folder and show it.",
            inputs=[MeshValue.Input("mesh"), io.String.Input("filename_prefix", default="mesh/meshwright")],
            outputs=[io.String.Output("path")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, mesh: Any, filename_prefix: str) -> Any:
        import folder_paths

        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        file = f"{name}_{counter:05}_.glb"
        path = os.path.join(folder, file)
        mesh.save(path)
        shown = {"3d": [{"filename": file, "subfolder": subfolder, "type": "output"}]}
        return io.NodeOutput(path, ui=shown)


class MeshwrightExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadViews, LoadViewsFromPath, Reconstruct, Refine, Texture, SaveMesh]


async def comfy_entrypoint() -> MeshwrightExtension:
    return MeshwrightExtension()

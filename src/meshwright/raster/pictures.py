"""Finished pictures of a mesh."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from meshwright.cameras import Cameras
from meshwright.mesh import Mesh
from meshwright.raster.coverage import Fragments, rasterize
from meshwright.raster.shading import interpolate
from meshwright.raster.textures import MipMaps, mip_levels

_CLAY = 0.8  # reflectance of a mesh without colours


@dataclass(frozen=True, eq=False)
class Rendered:
    """Pictures of a mesh, unlit.

    ``rgb`` stands on the background; ``alpha`` is the covered share of the pixel. ``depth_z`` (world units along the
    viewing axis) and ``normals`` (unit, in the world) belong to the pixel's centre and are 0 where it sees nothing.
    """

    rgb: Float[Tensor, "views 3 height width"]
    alpha: Float[Tensor, "views 1 height width"]
    depth_z: Float[Tensor, "views 1 height width"]
    normals: Float[Tensor, "views 3 height width"]


@torch.no_grad()
def render(
    mesh: Mesh,
    cameras: Cameras,
    height: int,
    width: int,
    samples: int = 2,
    background: float = 1.0,
    repeat: bool = False,
    smallest_mip_px: int = 64,
) -> Rendered:
    """Draw the mesh's texture, else its vertex colours, else grey clay lit from the camera.

    Every pixel is the mean of ``samples`` x ``samples`` points. ``repeat`` and ``smallest_mip_px`` are those of
    `sample_texture`. View after view, so memory does not grow with their number; on the mesh's device.
    """
    cameras = cameras.to(mesh.vertices.device)
    vertex_normals = mesh.vertex_normals()
    maps = None if mesh.texture is None else MipMaps.of(mesh.texture, smallest_mip_px)
    rgb, alpha, depth_z, normals = [], [], [], []
    for i in range(len(cameras)):
        camera = cameras[[i]]
        fine = rasterize(mesh.vertices, mesh.faces, camera, samples * height, samples * width)
        centres = rasterize(mesh.vertices, mesh.faces, camera, height, width) if samples > 1 else fine
        seen = (fine.face_ids >= 0)[:, None].float()
        color = torch.where(seen > 0, _color(mesh, maps, fine, camera, repeat), background)
        rgb.append(torch.nn.functional.avg_pool2d(color, samples))
        alpha.append(torch.nn.functional.avg_pool2d(seen, samples))
        depth_z.append(centres.depth_z[:, None])
        normal = interpolate(centres, mesh.faces, vertex_normals)
        normals.append(torch.nn.functional.normalize(normal, dim=3).permute(0, 3, 1, 2))
    return Rendered(torch.cat(rgb), torch.cat(alpha), torch.cat(depth_z), torch.cat(normals))


def _color(
    mesh: Mesh, maps: MipMaps | None, fragments: Fragments, camera: Cameras, repeat: bool
) -> Float[Tensor, "views 3 height width"]:
    if maps is not None:
        assert mesh.texture is not None
        assert mesh.uv is not None
        assert mesh.uv_faces is not None
        levels = mip_levels(fragments, mesh.faces, mesh.uv, mesh.uv_faces, *mesh.texture.shape[1:])
        uv = interpolate(fragments, mesh.uv_faces, mesh.uv)
        color = maps.sample(uv.flatten(0, 2), levels.flatten(), repeat)
        color = color.view(*uv.shape[:3], 3)
    elif mesh.vertex_colors is not None:
        color = interpolate(fragments, mesh.faces, mesh.vertex_colors)
    else:
        normal = torch.nn.functional.normalize(interpolate(fragments, mesh.faces, mesh.vertex_normals()), dim=3)
        rays = camera.rays(*fragments.face_ids.shape[1:])
        color = (_CLAY * (normal * rays.directions).sum(3, keepdim=True).abs()).expand(-1, -1, -1, 3)
    return color.permute(0, 3, 1, 2)

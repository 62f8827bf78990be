"""The reconstruction models: pictures and cameras -> Triplane -> Mesh or radiance field.

InstantNeRF and InstantMesh of Xu et al. 2024 (arXiv 2404.07191). The names and shapes in ``state_dict()`` are exactly
those of the published checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from meshwright.losses import sdf_entropy
from meshwright.mesh import Mesh
from meshwright.model.config import ModelConfig
from meshwright.model.encoder import CameraViT
from meshwright.model.field import Axes, MeshDecoder, MeshFields, PointField, RadianceDecoder
from meshwright.model.triplane import Triplane, TriplaneTransformer
from meshwright.model.volume import RadianceField, density_from_raw
from meshwright.options import ShapeOptions, Surface
from meshwright.progress import Progress, silent
from meshwright.shape import extract, grid_axes, grid_index, marching_cubes, repair_empty, surface_cubes

_CUBE_WEIGHT_FACTOR = 0.1  # of the weight head's output
_DEFORMATION_DIVISOR = 4.0  # grid points move by at most this part of 1 / grid_res world units


class _Reconstructor(nn.Module):
    """What both models share: encoder and triplane transformer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CameraViT(
            hidden_size=config.encoder_hidden_size,
            layers=config.encoder_layers,
            heads=config.encoder_heads,
            mlp_size=config.encoder_mlp_size,
            table_side=config.encoder_image_size // config.patch_size,
            patch_size=config.patch_size,
            layer_norm_eps=config.layer_norm_eps,
            image_mean=config.image_mean,
            image_std=config.image_std,
        )
        self.transformer = TriplaneTransformer(
            dim=config.transformer_dim,
            layers=config.transformer_layers,
            heads=config.transformer_heads,
            image_channels=config.encoder_hidden_size,
            low_res=config.triplane_low_res,
            plane_channels=config.triplane_dim,
        )

    def planes(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        cameras: Float[Tensor, "batch views 16"],
        progress: Progress = silent,
        recompute: bool = False,
    ) -> Triplane:
        """Pictures (sRGB in [0, 1] on white) with their ``Cameras.embedding`` -> feature planes, one set an object.

        ``recompute``: keep no activations of the transformers' blocks for the backward pass, which evaluates them
        again: a fraction of the memory for a third more time.
        """
        tokens = self.encoder(images.flatten(0, 1), cameras.flatten(0, 1), progress, recompute)
        return self.transformer(tokens.unflatten(0, images.shape[:2]).flatten(1, 2), progress, recompute)


class InstantNeRF(_Reconstructor):
    """Pictures -> radiance field (volume rendering, or a mesh by marching cubes)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.synthesizer = nn.ModuleDict({"decoder": RadianceDecoder(config.triplane_dim)})

    @property
    def decoder(self) -> RadianceDecoder:
        return self.synthesizer["decoder"]  # type: ignore[return-value]

    def field(self, planes: Float[Tensor, "3 channels size size"]) -> RadianceField:
        """The radiance field of one object's planes, for `meshwright.model.render_rays`."""
        return self.decoder.field(planes)

    def color_field(
        self, planes: Float[Tensor, "3 channels size size"]
    ) -> Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]:
        """World points to the colours (sRGB, -0.001 to 1.001) of one object."""
        field = self.field(planes)
        return lambda points: field(points)[1]

    def density_grid(
        self, planes: Float[Tensor, "3 channels size size"], resolution: int
    ) -> Float[Tensor, "resolution resolution resolution"]:
        """Density of one object at ``resolution`` points along x, y and z, from -1 to 1 inclusive."""
        axis = torch.linspace(-1, 1, resolution, device=planes.device)
        return density_from_raw(self.decoder.raw_density(planes, (axis, axis, axis)))

    @torch.no_grad()
    def extract_mesh(
        self, triplane: Triplane, resolution: int | None = None, threshold: float | None = None
    ) -> list[Mesh]:
        """Coloured meshes where the density is ``threshold``, by marching cubes; empty ones where it nowhere is.

        ``resolution`` (points along a side) and ``threshold`` are the config's unless given.
        """
        resolution = resolution or self.config.mesh_resolution
        threshold = self.config.mesh_threshold if threshold is None else threshold
        meshes = []
        for planes in triplane.planes:
            mesh = marching_cubes(-self.density_grid(planes, resolution), -threshold, scale=2.0)
            meshes.append(mesh.replace(vertex_colors=self.color_field(planes)(mesh.vertices).clamp(0, 1)))
        return meshes


@dataclass(frozen=True, eq=False)
class Geometry:
    """Meshes of a batch for training (without colours) and the numbers that keep their fields well-behaved.

    ``reg_empty``: mean |sdf| of each object that had no surface, else 0. ``reg_surface``: mean of FlexiCubes' L_dev.
    ``reg_weight``: mean square of the raw cube weights. ``sdf_entropy``: see `meshwright.losses.sdf_entropy`.
    """

    meshes: list[Mesh]
    sdf: Float[Tensor, "batch grid_points"]
    reg_empty: Float[Tensor, " batch"]
    reg_surface: Float[Tensor, ""]
    reg_weight: Float[Tensor, ""]
    sdf_entropy: Float[Tensor, ""]


class InstantMesh(_Reconstructor):
    """Pictures -> mesh by FlexiCubes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.synthesizer = nn.ModuleDict({"decoder": MeshDecoder(config.triplane_dim)})

    @property
    def decoder(self) -> MeshDecoder:
        return self.synthesizer["decoder"]  # type: ignore[return-value]

    def color_field(
        self, planes: Float[Tensor, "3 channels size size"]
    ) -> Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]:
        """World points to the colours (sRGB, -0.001 to 1.001) of one object."""
        return self.decoder.color_field(planes)

    def sdf_field(
        self, planes: Float[Tensor, "3 channels size size"]
    ) -> Callable[[Float[Tensor, "points 3"]], Float[Tensor, " points"]]:
        """World points to the sdf of one object, below 0 inside."""
        decoded = PointField(self.decoder.net_sdf, planes)
        return lambda points: decoded(points)[:, 0]

    def geometry(self, triplane: Triplane, training: bool = False) -> Geometry:
        """The surfaces of a batch, differentiable; ``training`` puts a vertex in the middle of each quad."""
        fields, sdf, empty, reg_empty = self._fields(triplane)
        meshes, deviations = zip(
            *(self._surface(*item, training) for item in zip(fields, sdf, empty, strict=True)), strict=True
        )
        squares = torch.stack([item.weights.mean_square() for item in fields])
        deviation = torch.cat(deviations)
        return Geometry(
            list(meshes),
            sdf,
            reg_empty,
            reg_surface=deviation.sum() / max(len(deviation), 1),
            reg_weight=squares.mean() * _CUBE_WEIGHT_FACTOR**2,
            sdf_entropy=sdf_entropy(sdf.unflatten(1, (self.config.grid_res + 1,) * 3)),
        )

    @torch.no_grad()
    def extract_mesh(self, triplane: Triplane, surface: Surface = ShapeOptions.surface) -> list[Mesh]:
        """Coloured meshes, one an object; a field without a surface becomes the box of the grid, as published.

        ``marching-cubes`` takes the sdf alone, without deformation and weights: plainer, and open at the grid's border.
        """
        fields, sdf, empty, _ = self._fields(triplane)
        meshes = []
        for item, item_sdf, item_empty, planes in zip(fields, sdf, empty, triplane.planes, strict=True):
            if surface == "flexicubes":
                mesh, _ = self._surface(item, item_sdf, item_empty, training=False)
            else:
                mesh = marching_cubes(
                    item_sdf.unflatten(0, (self.config.grid_res + 1,) * 3), scale=self.config.grid_scale
                )
            meshes.append(mesh.replace(vertex_colors=self.color_field(planes)(mesh.vertices).clamp(0, 1)))
        return meshes

    def _axes(self, like: Tensor) -> Axes:
        x, y, z = grid_axes(self.config.grid_res, self.config.grid_scale, published_rounding=True)
        return x.to(like), y.to(like), z.to(like)

    def _fields(
        self, triplane: Triplane
    ) -> tuple[list[MeshFields], Float[Tensor, "batch grid_points"], Bool[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Fields on the grid, the sdf with a surface in every object, which had none, and mean |sdf| of these."""
        axes = self._axes(triplane.planes)
        fields = [self.decoder.on_grid(planes, axes) for planes in triplane.planes]
        raw = torch.stack([item.sdf.everywhere().flatten() for item in fields])
        return fields, *repair_empty(raw, self.config.grid_res)

    def _surface(
        self, fields: MeshFields, sdf: Float[Tensor, " grid_points"], empty: Bool[Tensor, ""], training: bool
    ) -> tuple[Mesh, Float[Tensor, " pairs"]]:
        """Mesh of one object, and L_dev. Deformation and weights are evaluated where the surface passes, only."""
        cells = self.config.grid_res
        surface = surface_cubes(sdf, cells)
        deformation = fields.deformation.at(grid_index(surface.points, (cells + 1,) * 3)).tanh() / (
            cells * _DEFORMATION_DIVISOR
        )
        if empty:
            deformation = deformation.detach()
        weights = fields.weights.at(grid_index(surface.cubes, (cells,) * 3)) * _CUBE_WEIGHT_FACTOR
        beta, alpha, gamma = weights.split([12, 8, 1], dim=1)
        positions = surface.positions(self._axes(sdf)) + deformation
        vertices, faces, L_dev = extract(surface, positions, beta, alpha, gamma[:, 0], training)
        return Mesh(vertices, faces), L_dev


def build_model(config: ModelConfig, seed: int = 0) -> InstantNeRF | InstantMesh:
    """A new model with weights drawn from ``seed``; under ``torch.device("meta")`` one without storage."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return InstantNeRF(config) if config.kind == "nerf" else InstantMesh(config)

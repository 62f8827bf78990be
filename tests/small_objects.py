"""Small mesh files for the tests of curation."""

from pathlib import Path

import torch

from meshwright.mesh import Mesh, subdivide
from meshwright.shape import grid, marching_cubes


def colored_ball(center: tuple[float, float, float] = (0.0, 0.0, 0.0), radius: float = 1.0, rounds: int = 3) -> Mesh:
    """A sphere from an octahedron; colours follow the direction."""
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(rounds):
        points, faces = subdivide(points, faces)
    points = torch.nn.functional.normalize(points, dim=1)
    return Mesh(torch.tensor(center) + radius * points, faces, vertex_colors=(points + 1) / 2)


def egg_with_nose() -> Mesh:
    """Of many colours."""
    p = grid(32, 2.0)
    egg = (p / torch.tensor([0.5, 0.6, 0.75])).norm(dim=1) - 1
    nose = (p - torch.tensor([0.45, 0.2, 0.1])).norm(dim=1) - 0.25
    mesh = marching_cubes(torch.minimum(0.5 * egg, nose).view(33, 33, 33), scale=2.0)
    return mesh.replace(vertex_colors=0.5 + 0.4 * torch.sin(7 * mesh.vertices + torch.tensor([0.0, 1.0, 2.0])))


def textured_box(sides: tuple[float, float, float] = (2.0, 1.0, 0.5)) -> Mesh:
    """A box with the same checked picture, red to blue, on each side."""
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = [(0, 1, 3, 2), (6, 7, 5, 4), (4, 5, 1, 0), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))])
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    row, column = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checked = ((row // 8 + column // 8) % 2).float()
    texture = torch.stack([0.3 + 0.6 * column / 63, 0.2 + 0.6 * checked, 0.9 - 0.6 * column / 63])
    return Mesh(
        corners * torch.tensor(sides), faces, uv=uv, uv_faces=torch.tensor([[0, 1, 2], [0, 2, 3]] * 6), texture=texture
    )


def two_parts() -> Mesh:
    """A ball on a box, coloured at the vertices."""
    ball, box = colored_ball((0.3, 0.0, 0.6), 0.4), textured_box()
    return Mesh(
        torch.cat([ball.vertices, box.vertices]),
        torch.cat([ball.faces, box.faces + len(ball.vertices)]),
        torch.cat([ball.vertex_colors, torch.full((8, 3), 0.6)]) if ball.vertex_colors is not None else None,
    )


def write_objects(folder: Path) -> list[Path]:
    """A textured GLB off the origin, a coloured PLY, a grey STL in a folder of its own, and two parts."""
    (folder / "sub").mkdir(parents=True)
    box = textured_box()
    files = {
        "box.glb": box.replace(vertices=3 * box.vertices + torch.tensor([5.0, -2.0, 1.0])),
        "ball.ply": colored_ball(radius=0.01),
        "sub/grey.stl": colored_ball().replace(vertex_colors=None),
        "sub/two parts.glb": two_parts(),
    }
    for name, mesh in files.items():
        mesh.save(folder / name)
    return [folder / name for name in files]

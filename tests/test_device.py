"""Which device is taken, and that the work there needs no float64."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from meshwright.cameras import Cameras
from meshwright.device import available_devices, items_per_chunk, resolve_device
from meshwright.errors import InputError
from meshwright.evaluate import SurfaceSamples, compare_shapes, psnr, silhouette_iou, ssim
from meshwright.mesh import Mesh
from meshwright.model import Triplane, render_rays
from small_models import small_mesh, small_nerf


def test_auto_is_the_cpu_even_where_an_accelerator_is_present(monkeypatch):
    monkeypatch.setattr("meshwright.device._count", lambda kind: 1)
    assert available_devices() == ["cuda", "npu", "mps", "cpu"]
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("cuda") == torch.device("cuda")


def test_the_cpu_is_always_there_and_only_what_torch_has_beside_it(monkeypatch):
    for kind in ("cuda", "npu", "mps"):
        monkeypatch.delattr(torch, kind, raising=False)
    assert available_devices() == ["cpu"]


def test_chunks_on_cuda_take_a_quarter_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 << 20, 8 << 20))
    assert items_per_chunk(torch.device("cuda"), 1 << 10) == 1 << 10
    assert items_per_chunk(torch.device("mps"), 1 << 10) == 1 << 20


@pytest.mark.parametrize(
    ("name", "message"), [("quantum", "torch knows no such device"), ("cuda:7", "not present on this machine")]
)
def test_a_device_that_is_not_there_is_one_line(name, message):
    with pytest.raises(InputError, match=rf"device=.{name}.*: {message}"):
        resolve_device(name)


def test_a_chunk_holds_at_least_one_item():
    assert items_per_chunk(torch.device("cpu"), 1 << 40) == 1
    assert items_per_chunk(torch.device("cpu"), 1 << 20) == 16


class NoFloat64(TorchDispatchMode):
    """Like a device without float64 (MPS): refuses to make one, unless it comes from NumPy, which is on the host."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and function is not torch.ops.aten.lift_fresh.default:
                assert tensor.dtype != torch.float64, function
        return result


def test_the_models_need_no_float64():
    torch.manual_seed(0)
    cameras = Cameras.orbit(2, 10.0, 3.0, 40.0)
    rays = cameras.rays(4, 4)
    images, embedding = torch.rand(1, 2, 3, 32, 32), cameras.embedding()[None]
    mesh_model, nerf = small_mesh().eval(), small_nerf().eval()
    with NoFloat64():
        triplane = mesh_model.planes(images, embedding)
        mesh_model.extract_mesh(triplane)
        nerf.extract_mesh(Triplane(triplane.planes), 16)
        render_rays(nerf.field(triplane.planes[0]), rays, 16)


def test_picture_metrics_need_no_float64():
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    with NoFloat64():
        psnr(a, b)
        ssim(a, b)
        silhouette_iou(a[:, :1], b[:, :1])


def test_shape_metrics_take_and_give_the_points_dtype():
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    samples = SurfaceSamples.of(triangle, 100)
    assert samples.points.dtype == samples.normals.dtype == torch.float32
    assert compare_shapes(samples, samples, (0.1,)).chamfer == 0.0
    samples.points.requires_grad_()  # as those of a mesh that is being fitted
    assert compare_shapes(samples, samples, (0.1,)).f_scores == (1.0,)

"""The encoder against published numbers, its plain twin and its own symmetries."""

import pytest
import torch

import plain_model as plain
from meshwright.model.encoder import resize_position_table
from small_models import golden, small_mesh, small_nerf

MESH, NERF, UTILS = golden("small_mesh"), golden("small_nerf"), golden("utils")


def random_views(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(3))
    return images, MESH["cameras"][0, [1, 3, 4]]


@pytest.mark.parametrize("size", ["224x224", "320x320", "320x256", "96x96", "512x512"])
def test_position_table_is_resized_by_the_published_rule(size):
    height, width = map(int, size.split("x"))
    table = resize_position_table(UTILS["pos_embed_224"], height // 16, width // 16)
    torch.testing.assert_close(table, UTILS[f"pos_embed_{size}"], atol=5e-6, rtol=0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (14, 15), (3, 40)])
def test_position_table_equals_its_written_out_twin(rows, columns):
    table = UTILS["pos_embed_224"]
    torch.testing.assert_close(
        resize_position_table(table, rows, columns), plain.position_table(table, rows, columns), atol=1e-5, rtol=0
    )


def test_every_stage_is_the_published_one():
    encoder = small_mesh().encoder
    seen = {}

    def note(name):
        return lambda _module, _inputs, output: seen.update({name: output.detach()})

    encoder.camera_embedder.register_forward_hook(note("camera_embedding"))
    encoder.model.embeddings.register_forward_hook(note("enc_embeddings"))
    for layer in (0, 3):
        encoder.model.encoder["layer"][layer].register_forward_hook(note(f"enc_layer{layer}"))
    seen["encoder_tokens"] = encoder(MESH["images"][0], MESH["cameras"][0]).detach()
    assert len(seen) == 5
    for name, value in seen.items():
        torch.testing.assert_close(value, MESH[name].view_as(value), atol=2e-5, rtol=0, msg=lambda m, n=name: n + m)


def test_pictures_of_the_table_s_own_size_give_the_published_tokens():
    tokens = small_nerf().encoder(NERF["b2v4_images"].flatten(0, 1), NERF["b2v4_cameras"].flatten(0, 1))
    torch.testing.assert_close(tokens, NERF["b2v4_encoder_tokens"], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (80, 112), (112, 80)])
def test_encoder_equals_its_plain_twin_in_value_and_gradient(height, width):
    model = small_mesh()
    images, cameras = random_views(height, width)
    direction = torch.randn(48, generator=torch.Generator().manual_seed(4))
    results = []
    for encode in (model.encoder, lambda i, c: plain.encode(model.state_dict(), model.config, i, c)):
        inputs = images.clone().requires_grad_(), cameras.clone().requires_grad_()
        tokens = encode(*inputs)
        results.append((tokens, *torch.autograd.grad((tokens @ direction).square().mean(), inputs)))
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, atol=2e-5, rtol=1e-4)


def test_each_view_is_encoded_on_its_own():
    encoder = small_mesh().encoder
    images, cameras = random_views(64, 48)
    together = encoder(images, cameras)
    for number in range(3):
        alone = encoder(images[[number]], cameras[[number]])
        torch.testing.assert_close(together[[number]], alone, atol=5e-6, rtol=0)


def test_pixels_beyond_the_last_whole_patch_are_not_seen():
    encoder = small_mesh().encoder
    images, cameras = random_views(79, 63)
    assert torch.equal(encoder(images, cameras), encoder(images[:, :, :64, :48].contiguous(), cameras))


def test_progress_reaches_one():
    reports = []
    images, cameras = random_views(32, 32)
    small_mesh().encoder(images, cameras, lambda stage, fraction, detail="": reports.append((stage, fraction)))
    assert reports == [("encoder", 0.25), ("encoder", 0.5), ("encoder", 0.75), ("encoder", 1.0)]

"""Adam against torch's."""

import torch

from meshwright.descent import Adam


def test_steps_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(5, 3, generator=generator), torch.randn(2, generator=generator)]
    theirs = [values.clone().requires_grad_() for values in ours]
    ours = [values.requires_grad_() for values in ours]
    steps, optimizer = Adam(ours), torch.optim.Adam(theirs, lr=0.1)
    for size in (0.1, 0.1, 0.05, 0.01):
        for values in (ours, theirs):
            ((values[0] - 1).square().sum() + (values[1] * values[1].roll(1)).sum().sin()).backward()
        steps.step(size)
        optimizer.param_groups[0]["lr"] = size
        optimizer.step()
        optimizer.zero_grad()
        for mine, torchs in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, torchs)

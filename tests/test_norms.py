"""Gradients through batch norms ahead of tokens: of one image as of the same image among others."""

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.model.norms import recording


class Tokens(nn.Module):
    """A convolution, its batch norm, and tokens that come of it; with `back`, tokens become a map for one more norm."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.norm, self.again = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.gate, self.head, self.back = nn.Linear(8, 8), nn.Linear(8, 5), back
        for norm in (self.norm, self.again):
            norm.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(norm.weight, generator=generator)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x))
        tokens = features.flatten(2).permute(0, 2, 1)
        tokens = tokens * self.gate(tokens).sigmoid()
        if self.back:
            tokens = (
                self.again(tokens.permute(0, 2, 1).contiguous().reshape(features.shape)).flatten(2).permute(0, 2, 1)
            )
        return self.head((tokens @ (tokens.transpose(1, 2) @ tokens)).mean(1))


@pytest.mark.parametrize("back", [False, True])
def test_the_gradient_of_one_image_is_that_among_others(back: bool) -> None:
    torch.manual_seed(0)
    model = Tokens(back)
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    pair = torch.cat((image, torch.rand_like(image)))
    alone = list(seewhy.compare(model, image, [0, 1, 2], ["saliency", "hires_cam"], layers=["conv"], rectify=False))
    among = list(seewhy.compare(model, pair, [0, 1, 2], ["saliency", "hires_cam"], layers=["conv"], rectify=False))
    for one, other in zip(alone, among, strict=True):
        for name, raw in one.raw.items():
            torch.testing.assert_close(raw[0], other.raw[name][0], rtol=1e-10, atol=1e-14)


def test_the_gradient_of_one_image_is_that_of_differences() -> None:
    torch.manual_seed(0)
    model, image = Tokens(back=True), torch.rand(1, 3, 16, 24, dtype=torch.float64)
    with recording():
        clean = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(clean)[0, 1], clean)
    step = 1e-6 * torch.randn_like(image)
    with torch.no_grad():
        difference = (model(image + step) - model(image - step))[0, 1] / 2
    torch.testing.assert_close((gradient * step).sum(), difference, rtol=1e-5, atol=1e-13)
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks

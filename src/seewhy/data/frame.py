"""The exact way between the pixels of a photo and the pixels that a model is given."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.tensor import interpolation, resize
from seewhy.types import ShapeError


@dataclass(frozen=True)
class Frame:
    """A separable affine map from a photo to a model's input: on each axis, `input = scale * photo + shift`.

    Positions are those of pixel *centers*: pixel p is at p and covers p-.5..p+.5. Resizing N pixels to M therefore
    takes p to (p + .5) * M / N - .5: half a pixel is no detail, at a stride of 32 it is 16 pixels of the photo.
    Boxes (x0, y0, x1, y1) are pixel *edges*, as everywhere else: pixel p covers p..p+1, the photo is (0, 0, W, H).

    Steps compose, each on top of the last: `Frame.identity(size).resized((256, 341)).cropped(16, 58, (224, 224))`.

    Args:
        photo_size: height and width of the photo.
        input_size: height and width of the model's input.
        scale: for y and x; input pixels per photo pixel.
        shift: for y and x; where the center of the photo's first pixel lies in the input.
        view: the box of the photo that the model saw; letterbox borders and what was cropped away are outside.
    """

    photo_size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float]
    shift: tuple[float, float]
    view: tuple[float, float, float, float]

    @classmethod
    def identity(cls, size: tuple[int, int]) -> "Frame":
        """The frame of a photo that is the input itself."""
        if min(size) < 1:
            raise ShapeError(f"got a photo of {size}; height and width are at least 1; check how it was cropped")
        return cls(size, size, (1.0, 1.0), (0.0, 0.0), (0.0, 0.0, float(size[1]), float(size[0])))

    @property
    def seen(self) -> float:
        """The share of the photo's pixels that the model sees, 0..1."""
        x0, y0, x1, y1 = self.view
        return (x1 - x0) * (y1 - y0) / (self.photo_size[0] * self.photo_size[1])

    def resized(self, size: tuple[int, int]) -> "Frame":
        """Then stretch the input to this height and width: p becomes (p + .5) * M / N - .5."""
        if min(size) < 1:
            raise ShapeError(f"cannot resize to {size}; height and width are at least 1; ask for a larger size")
        ratio = [new / old for new, old in zip(size, self.input_size, strict=True)]
        scale = (self.scale[0] * ratio[0], self.scale[1] * ratio[1])
        shift = ((self.shift[0] + 0.5) * ratio[0] - 0.5, (self.shift[1] + 0.5) * ratio[1] - 0.5)
        return replace(self, input_size=size, scale=scale, shift=shift)

    def cropped(self, top: int, left: int, size: tuple[int, int]) -> "Frame":
        """Then keep `size` pixels of the input from (top, left): p becomes p - top."""
        _check_inside(top, left, size, self.input_size, "crop")
        shift = (self.shift[0] - top, self.shift[1] - left)
        moved = replace(self, input_size=size, shift=shift)
        x0, y0, x1, y1 = moved.box_to_photo((0.0, 0.0, float(size[1]), float(size[0])))
        x0, x1 = _overlap((x0, x1), (self.view[0], self.view[2]))
        y0, y1 = _overlap((y0, y1), (self.view[1], self.view[3]))
        return replace(moved, view=(x0, y0, x1, y1))

    def padded(self, top: int, left: int, size: tuple[int, int]) -> "Frame":
        """Then put the input at (top, left) of a larger, empty one of this size: p becomes p + top."""
        _check_inside(top, left, self.input_size, size, "pad")
        return replace(self, input_size=size, shift=(self.shift[0] + top, self.shift[1] + left))

    @property
    def positions(self) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
        """Where the centers of the photo's rows and of its columns lie in the input, in float64."""
        y, x = (torch.arange(n, dtype=torch.float64) for n in self.photo_size)
        return self.scale[0] * y + self.shift[0], self.scale[1] * x + self.shift[1]

    def to_photo(self, map: Float[Tensor, "b h w"]) -> Float[Tensor, "b H W"]:
        """A map over the model's input, at the photo's own pixels.

        out(p) = map(scale * p + shift), linear between the input's pixels, and zero where the model saw nothing of the
        photo. Reading values at places keeps the map's unit (nothing is averaged, so a map shrinks without blur).

        Raises:
            ShapeError: where the map is not as large as the model's input.
        """
        if tuple(map.shape[1:]) != self.input_size:
            raise ShapeError(f"got a map of {tuple(map.shape[1:])}; the model's input is {self.input_size}; resize it")
        x0, y0, x1, y1 = self.view
        matrices = [
            interpolation(positions, cells) * _within(len(positions), low, high)[:, None]
            for positions, cells, low, high in zip(self.positions, self.input_size, (y0, x0), (y1, x1), strict=True)
        ]
        return resize(map, matrices)

    def boxes_to_input(self, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Boxes of the photo, in the model's input: e goes to scale * (e - .5) + shift + .5. Nothing is clipped."""
        scale, offset = self._edges(boxes)
        return boxes * scale + offset

    def boxes_to_photo(self, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Boxes of the model's input, in the photo: the inverse of `boxes_to_input`. Nothing is clipped."""
        scale, offset = self._edges(boxes)
        return (boxes - offset) / scale

    def box_to_photo(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """One box of the model's input, in the photo."""
        x0, y0, x1, y1 = self.boxes_to_photo(torch.tensor([box], dtype=torch.float64))[0].tolist()
        return x0, y0, x1, y1

    def _edges(self, like: Float[Tensor, "n 4"]) -> tuple[Float[Tensor, " 4"], Float[Tensor, " 4"]]:
        scale = torch.tensor([self.scale[1], self.scale[0]] * 2, dtype=torch.float64)
        shift = torch.tensor([self.shift[1], self.shift[0]] * 2, dtype=torch.float64)
        return scale.to(like), (shift + 0.5 - 0.5 * scale).to(like)


def _within(pixels: int, low: float, high: float) -> Float[Tensor, " pixels"]:
    """1 for the pixels whose centers lie between two edges, 0 for the others."""
    centers = torch.arange(pixels, dtype=torch.float64) + 0.5
    return ((centers >= low) & (centers <= high)).double()


def _overlap(part: tuple[float, float], seen: tuple[float, float]) -> tuple[float, float]:
    low = min(max(part[0], seen[0]), seen[1])
    return low, max(min(part[1], seen[1]), low)  # low twice where nothing is left: a crop of letterbox border alone


def _check_inside(top: int, left: int, part: tuple[int, int], whole: tuple[int, int], what: str) -> None:
    ends = (top + part[0], left + part[1])
    if min(top, left) < 0 or min(part) < 1 or ends[0] > whole[0] or ends[1] > whole[1]:
        raise ShapeError(
            f"cannot {what}: {part} pixels at ({top}, {left}) do not lie within {whole}; "
            "a crop lies inside the input, a padded input inside the larger one; check the order of the steps"
        )

"""Where the maps of a visual question answering network look, on pictures of one shape each: docs/questions/vqa.md.

    python benchmarks/vqa.py easy_vqa/data

The folder is that of the package `easy-vqa` (`pip download easy-vqa --no-deps`, unpacked); the network is that of
../shared/data. The shape is what differs from the picture's background, the color of its border. Means with 95 %
bootstrap intervals over pictures.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

import seewhy
from photos import spelled
from seewhy.data.image import read
from seewhy.metrics.localization import energy, pixel_auroc, pointing_game
from shared_vqa import easy_vqa, words

KINDS = {
    "color": ("what color is the shape?", "what is the color of the shape?"),
    "shape": ("what shape is in the image?", "what shape is present?", "what shape does the image contain?"),
}
METHODS = ("grad_cam", "grad_cam_elementwise", "layer_cam", "sharp", "input_x_gradient", "occlusion", "eigen_cam")
ROW = "| {} | {} | {} | {} | {} | {} |"


def shapes(pictures: list[Path]) -> Bool[Tensor, "b h w"]:
    pixels = torch.stack([_pixels(each) for each in pictures])
    border = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], 1).median(1).values
    return (pixels - border[:, None, None]).abs().amax(-1) > 24


def _pixels(picture: Path) -> Float[Tensor, "h w 3"]:
    image = Image.open(picture).convert("RGB")
    return torch.tensor(list(image.getdata())).float().reshape(image.height, image.width, 3)


def row(kind: str, name: str, map: Float[Tensor, "b h w"], mask: Bool[Tensor, "b h w"]) -> str:
    blank = int((map.amax((1, 2)) <= 0).sum())
    scored = (pointing_game(map, mask), energy(map, mask), pixel_auroc(map, mask))
    told = (spelled(each.tolist(), [str(n) for n in range(len(map))]) for each in scored)
    return ROW.format(kind, name, *told, blank or "")


def baselines(mask: Bool[Tensor, "b h w"]) -> dict[str, Float[Tensor, "b h w"]]:
    side = torch.linspace(-1, 1, mask.shape[1])
    middle = torch.exp(-4 * (side[:, None] ** 2 + side**2)).expand(mask.shape)
    chance = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    return {"chance": chance, "middle of the picture": middle.clone()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="the package's folder")
    parser.add_argument("--pictures", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vqa, truth = easy_vqa(), json.loads((given.data / "test" / "questions.json").read_text())
    print("| question | map | peak in the shape | energy in it | AUROC of its pixels | blank maps |")
    print("|---|---|---|---|---|---|")
    for kind, spellings in KINDS.items():
        asked = {n: (text, answer) for text, answer, n in truth if text in spellings and n < given.pictures}
        files = [given.data / "test" / "images" / f"{n}.png" for n in asked]
        images, mask = torch.stack([vqa.preprocess(read(file))[0] for file in files]), shapes(files)
        question = torch.cat([words(text) for text, _ in asked.values()])
        with torch.no_grad():
            said = vqa.module(images, question).argmax(1).tolist()
        right = torch.tensor([vqa.labels[n] == answer for n, (_, answer) in zip(said, asked.values(), strict=True)])
        print(f"{kind}: {int(right.sum())} of {len(right)} right, shape {mask.float().mean():.3f}", file=sys.stderr)
        images, question, mask = images[right], question[right], mask[right]
        for name, base in baselines(mask).items():
            print(row(kind, name, base, mask))
        for method in METHODS:
            found = seewhy.explain(vqa, images, None, method, args=(question,))
            print(row(kind, seewhy.METHODS[method].title, found.map, mask))


if __name__ == "__main__":
    main()

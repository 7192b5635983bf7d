"""Why is this part of the picture segmented so? A class where it is predicted, a box of pixels, a single pixel.

The segmenter is EfficientNet-Lite0 with its real ImageNet weights, its last layer applied at every place in place of
once to their mean (a fully convolutional network): 14 x 14 answers for a picture of 448 x 448 pixels, trained for
pictures, not for places. A SegFormer follows, with random weights: it shows the call, not a finding.
Needs the extras demo and hf. `python examples/segmentation.py [folder]`
"""

import sys
from dataclasses import replace

import torch
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import seewhy


class Segmenter(nn.Module):
    """The classifier's last layer at every place."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.network = classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # noqa: D102
        features = self.network.extract_features(images)
        return self.network._fc(features.movedim(1, -1)).movedim(-1, 1)


loaded = seewhy.load()
model = replace(
    loaded, module=Segmenter(loaded.module), preprocess=replace(loaded.preprocess, size=(448, 448)), name="segmenter"
)
brow = torch.zeros(300, 451, dtype=torch.bool)  # as large as the photo; so are points in the photo's own pixels
brow[30:95, 240:300] = True
asked = [None, "tabby", seewhy.Region(mask=brow), seewhy.Region("tabby", point=(200, 180))]
answers = seewhy.compare(model, "skimage:chelsea", asked, ["hires_cam"], ["network._blocks.10"])
for each in answers:
    print(f"{each.target[0]}: score {float(each.scores):.1f}, peak {each[0].peak()}")
print(next(note for note in answers[0].notes if note.startswith("target:")))

torch.manual_seed(0)
small = SegformerConfig(num_labels=5, depths=[1] * 4, hidden_sizes=[8, 16, 16, 32], decoder_hidden_size=16)
segformer = SegformerForSemanticSegmentation(small).eval()
upper = torch.arange(128)[:, None].expand(128, 128) < 64
e = seewhy.explain(segformer, torch.rand(1, 3, 128, 128), seewhy.Region(3, mask=upper))
print(f"SegFormer, random weights: {e.target[0]}")
if sys.argv[1:]:
    answers.save(sys.argv[1])

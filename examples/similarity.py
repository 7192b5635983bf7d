"""Image to image and image to text: where likeness comes from. Networks of random weights: the maps mean nothing yet.

Needs the extras hf and demo. `python examples/similarity.py [folder]`; in earnest, CLIPModel.from_pretrained(...).
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)

# Image to image: the trained demo network without its last layer puts out 1280 features, an embedding
demo = replace(seewhy.load(), labels=None)
demo.module._fc = torch.nn.Identity()
photos, other = ["skimage:chelsea", "skimage:astronaut"], "skimage:coffee"
features = demo.module(torch.stack([demo.preprocess(seewhy.read(each))[0] for each in (*photos, other)])).detach()
pair = seewhy.explain(demo, photos, seewhy.Similarity([1, 0]), "hires_cam", rectify=False)
for photo, item in zip(photos, pair, strict=True):
    print(f"{photo}: {item.target}, {item.score:.2f}")
    item.overlay().save(out / f"{item.name}-likeness.png")
rather = seewhy.Similarity(features[1]) - seewhy.Similarity(features[2])
print("more like the astronaut than like the coffee:", seewhy.explain(demo, photos[:1], rather).scores.tolist())

# Image to text: the texts are the classes, and as many of them as images are no problem
torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
vision = {**small, "image_size": 64, "patch_size": 8}
clip = CLIPModel(
    CLIPConfig(text_config={**small, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 98}, vision_config=vision)
).eval()
texts = ["a photo of a cat", "a photo of an astronaut"]
ids = torch.tensor([[1, 5, 9, 7, 98], [1, 5, 9, 8, 98]])  # what a processor makes of them
frame = seewhy.Preprocess((64, 64), mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
pixels = torch.stack([frame(seewhy.read(each))[0] for each in photos])
inputs = {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
answers = seewhy.compare(clip, inputs, texts, ["grad_eclip", "score_cam"], labels=texts, preprocess=frame)
answers.figure().save(out / "clip-random.png")
for e in answers:
    print(f"{e.title}, {e.target[0]!r}: {e.scores.tolist()}")

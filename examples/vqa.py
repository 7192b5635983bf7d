"""Why this answer? All answers to a question about one photo, side by side, from one forward and one backward pass.

    python examples/vqa.py [folder]

The network is ViLT of transformers, built small and with RANDOM weights: it knows nothing, and its maps mean nothing.
With a trained one, from `from_pretrained`, the lines below are the same, and the labels are its `config.id2label`.
Needs the extras hf and demo.
"""

import sys
from pathlib import Path

import torch
from transformers import ViltConfig, ViltForQuestionAnswering

import seewhy

ANSWERS = ["yes", "no", "cat", "dog", "fire hydrant", "red", "yellow"]
small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
config = ViltConfig(**small, vocab_size=50, image_size=128, patch_size=16, max_image_length=-1)
config.id2label = dict(enumerate(ANSWERS))
torch.manual_seed(0)
model = ViltForQuestionAnswering(config).eval()

how = seewhy.Preprocess((128, 128), "squash", mean=(0.5,) * 3, std=(0.5,) * 3)
pixels = how(seewhy.read("skimage:chelsea"))[0][None]
question = torch.tensor([[1, 7, 8, 9, 2]])  # what the processor makes of "what is this?"
inputs = {"pixel_values": pixels, "input_ids": question}

predicted = seewhy.explain(model, inputs, labels=ANSWERS, preprocess=how)
print(f"answer: {predicted.target[0]} ({float(predicted.probabilities[0]):.2f})")
print(*predicted.notes, sep="\n")
try:
    seewhy.explain(model, inputs, "fire hidrant", labels=ANSWERS)
except seewhy.TargetError as error:
    print(f"an unknown answer: {error}")

answers = seewhy.compare(model, inputs, ["fire hydrant", "cat", "dog"], labels=ANSWERS, preprocess=how)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
answers.figure().save(folder / "vqa.png")

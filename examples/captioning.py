"""Why this sentence, why this word? A map for each word of a caption, from one forward and one batched backward pass.

    python examples/captioning.py [folder]

The captioner is a ViT and a GPT-2 of transformers, built small and with RANDOM weights: it knows nothing, and its maps
mean nothing. With a trained one, from `from_pretrained`, the lines below are the same.
Needs the extras hf and demo.
"""

import sys
from pathlib import Path

import torch
from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

import seewhy

WORDS = ["<pad>", "<s>", "</s>", "a", "tabby", "cat", "looks", "at", "the", "camera", "dog"]
small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
eye = ViTConfig(**small, image_size=128, patch_size=16)
tongue = GPT2Config(vocab_size=len(WORDS), n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
tongue.add_cross_attention = tongue.is_decoder = True
torch.manual_seed(0)
model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(eye, tongue)).eval()
for weight in model.parameters():
    weight.data *= 3 if weight.ndim > 1 else 1  # so that random words depend on the picture at all

how = seewhy.Preprocess((128, 128), "squash", mean=(0.5,) * 3, std=(0.5,) * 3)
pixels = how(seewhy.read("skimage:chelsea"))[0][None]
ids = torch.tensor([[1, 3, 4, 5, 6, 7, 8, 9]])  # what model.generate would return
inputs = {"pixel_values": pixels, "decoder_input_ids": ids}

caption = seewhy.Sentence(ids, WORDS)
told = seewhy.compare(model, inputs, [caption, *caption.words], preprocess=how)
for word in told:
    print(f"{word.target[0]:40} {float(word.scores[0]):7.2f}")
why_cat = seewhy.explain(model, inputs, caption.phrase("cat") - caption.instead("cat", "dog"), preprocess=how)
print(f"{why_cat.target[0]:40} {float(why_cat.scores[0]):7.2f}")
print(*told[0].notes, sep="\n")

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
told.figure(columns=5).save(folder / "captioning.png")

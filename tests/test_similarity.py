"""Similarity: of embeddings to vectors, to other images and to texts; and what is said of a model without classes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy import Similarity
from seewhy.types import TargetError
from shared_models import cifar10_resnet

D = 5


class Embedder(nn.Module):
    """A small network of metric learning: embeddings in one of the shapes that models have for their outputs."""

    def __init__(self, kind="tensor", unit=False):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Linear(6, D)
        self.kind, self.unit = kind, unit

    def embed(self, x):
        return self.pooled(self.conv(x).relu())

    def pooled(self, hidden):
        made = self.linear(hidden.mean((2, 3)))
        return F.normalize(made, dim=1) if self.unit else made

    def forward(self, x):
        hidden = self.conv(x).relu()
        f = self.pooled(hidden)
        return {
            "tensor": lambda: f,
            "tuple": lambda: (hidden, f),
            "dict": lambda: {"last_hidden_state": hidden, "other": f[:, :2], "embedding": f},
            "nested": lambda: {"vision": {"maps": hidden, "pooler_output": f[:, :, None, None]}},
            "maps": lambda: hidden,
        }[self.kind]()


def model(kind="tensor", **options):
    torch.manual_seed(0)
    return Embedder(kind, **options).double().eval()


X = torch.randn(3, 3, 8, 10, generator=torch.Generator().manual_seed(1)).double()
R = torch.randn(3, D, generator=torch.Generator().manual_seed(2)).double()
BY_HAND = {
    "cosine": lambda f, r: (f * r).sum(1) / f.norm(dim=1) / r.norm(dim=1),
    "dot": lambda f, r: (f * r).sum(1),
    "distance": lambda f, r: -(f - r).square().sum(1).sqrt(),
}
each_kind = pytest.mark.parametrize("kind", list(BY_HAND))


def said(call):
    with pytest.raises(TargetError) as caught:
        call()
    return str(caught.value)


@each_kind
@pytest.mark.parametrize("output", ["tensor", "tuple", "dict", "nested"])
def test_scores_and_gradients_are_those_of_the_formula(kind, output):
    net = model(output)
    cells = net.conv(X).relu().detach().requires_grad_()
    score = BY_HAND[kind](net.linear(cells.mean((2, 3))), R)
    (gradients,) = torch.autograd.grad(score.sum(), cells)
    e = seewhy.explain(net, X, Similarity(R, kind=kind), "hires_cam", layer="conv + relu", rectify=False)
    torch.testing.assert_close(e.scores, score.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(e.raw["conv + relu"], (gradients * cells.detach()).sum(1), rtol=1e-12, atol=1e-14)


@each_kind
def test_the_gradient_is_that_of_finite_differences(kind):
    net, step = model(), 1e-6
    e = seewhy.explain(net, X, Similarity([1, 2, 0], kind=kind), lambda input_gradients: input_gradients.sum(1))
    fixed = net.embed(X)[[1, 2, 0]].detach()
    for place in ((0, 0), (3, 7), (7, 9)):
        moved = [X.clone() for _ in range(2)]
        moved[0][:, :, *place] += step
        moved[1][:, :, *place] -= step
        up, down = (BY_HAND[kind](net.embed(x), fixed).detach() for x in moved)
        torch.testing.assert_close(e.map[:, *place], (up - down) / (2 * step), rtol=1e-6, atol=1e-9)


def test_a_pair_is_told_by_the_maps_of_both():
    """The derivative of cos(f(x), f(z)) with both moving is the two answers of [1, 0]: nothing is lost by holding."""
    net, pair = model(), X[:2].clone().requires_grad_()
    f = net.embed(pair)
    (both,) = torch.autograd.grad(F.cosine_similarity(f[:1], f[1:])[0], pair)
    e = seewhy.explain(net, X[:2], Similarity([1, 0]), lambda input_gradients: input_gradients.sum(1))
    torch.testing.assert_close(e.map, both.sum(1), rtol=1e-12, atol=1e-14)
    assert e.target == ("similarity to image 1", "similarity to image 0")


def test_the_cosine_does_not_depend_on_lengths():
    net = model()
    same = [seewhy.explain(net, X, Similarity(r)).raw["conv + relu"] for r in (R, 7 * R)]
    torch.testing.assert_close(*same, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("to", [R[0], R[0].numpy(), R[:1], R[0].tolist(), R[:1].tolist()])
def test_one_vector_serves_all_images(to):
    e = seewhy.explain(model(), X, Similarity(to))
    torch.testing.assert_close(e.scores, BY_HAND["cosine"](model().embed(X), R[:1]).detach())


@pytest.mark.parametrize("to", [[1, 0, 0], (1, 0, 0), torch.tensor([1, 0, 0]), np.array([1, 0, 0])])
def test_images_of_the_batch_by_their_numbers(to):
    e = seewhy.explain(model(), X, Similarity(to))
    f = model().embed(X).detach()
    torch.testing.assert_close(e.scores, BY_HAND["cosine"](f, f[[1, 0, 0]]))


def test_a_question_of_its_own_for_each_image():
    e = seewhy.explain(model(), X[:2], [Similarity(1), -Similarity(0)])
    f = model().embed(X[:2]).detach()
    cosine = F.cosine_similarity(f[:1], f[1:])
    torch.testing.assert_close(e.scores, torch.cat([cosine, -cosine]))


def test_rather_like_this_than_like_that():
    """A triplet: what makes an image more like one reference than another."""
    e = seewhy.explain(model(), X, Similarity(R[0]) - Similarity(R[1]))
    f = model().embed(X).detach()
    torch.testing.assert_close(e.scores, F.cosine_similarity(f, R[:1]) - F.cosine_similarity(f, R[1:2]))


# Changed copies are compared with the clean other image


@each_kind
def test_changed_copies_keep_the_clean_reference(kind):
    net = model()
    fixed = net.embed(X)[[1, 2, 0]].detach()
    found = []

    def ask(scores_at):
        rows = torch.tensor([2, 2, 0, 1, 0])
        changed = X[rows] + torch.randn(5, 3, 8, 10, generator=torch.Generator().manual_seed(3)).double()
        found.append((scores_at(changed, rows), BY_HAND[kind](net.embed(changed), fixed[rows])))
        return torch.ones(3, 8, 10).double()

    with pytest.warns(seewhy.MapWarning):
        seewhy.explain(net, X, Similarity([1, 2, 0], kind=kind), ask)
    torch.testing.assert_close(found[0][0], found[0][1].detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", ["score_cam", "occlusion", "rise", "ablation_cam", "recipro_cam"])
def test_methods_that_run_the_model_again_answer_as_for_a_fixed_vector(method):
    net, options = model(), {"rise": {"masks": 30}}.get(method)
    fixed = net.embed(X)[[1, 2, 0]].detach()
    pair = seewhy.explain(net, X, Similarity([1, 2, 0]), method, options=options)
    vector = seewhy.explain(net, X, lambda f, rows: F.cosine_similarity(f, fixed[rows]), method, options=options)
    torch.testing.assert_close(pair.map, vector.map, rtol=1e-10, atol=1e-12)
    alone = seewhy.explain(net, X[2:], Similarity(fixed[2]), method, options=options)
    torch.testing.assert_close(pair.map[2:], alone.map, rtol=1e-10, atol=1e-12)
    assert pair.map.abs().amax((1, 2)).min() > 0


# What is read


def test_the_notes_say_which_tensor_is_the_embedding():
    e = seewhy.explain(model("dict"), X, Similarity(R))
    assert "similarity: the embedding is output['embedding']" in e.notes
    e = seewhy.explain(model("dict"), X, Similarity(R[:, :2], read="other"))
    assert "similarity: the embedding is output['other']" in e.notes
    torch.testing.assert_close(e.scores, F.cosine_similarity(model().embed(X)[:, :2], R[:, :2]).detach())
    e = seewhy.explain(model(), X, Similarity(R), labels=list("abcde"))
    assert "similarity: the embedding is the model's output; its numbers are scores of classes" in e.notes


def test_a_function_makes_an_embedding_of_anything():
    def pooled(output):
        return output.mean((2, 3))

    e = seewhy.explain(model("maps"), X, Similarity([1, 0, 0], pooled), layer="conv")
    f = model().conv(X).relu().mean((2, 3)).detach()
    torch.testing.assert_close(e.scores, F.cosine_similarity(f, f[[1, 0, 0]]))
    assert "similarity: the embedding is what pooled reads" in e.notes


def test_a_linear_embedding_may_be_cam():
    """Of the dot product CAM's weights are r^T W, an exact rule."""
    net = model()
    e = seewhy.explain(net, X, Similarity(R, kind="dot"), "cam", layer="conv + relu", rectify=False)
    by_hand = torch.einsum("bd,dc,bchw->bhw", R, net.linear.weight, net.conv(X).relu()).detach()
    torch.testing.assert_close(e.raw["conv + relu"], by_hand, rtol=1e-12, atol=1e-14)


# Models without classes


def test_no_class_is_predicted_of_an_embedding():
    text = said(lambda: seewhy.explain(model(unit=True), X))
    assert text == (
        "no class is predicted: its vectors have length 1, as embeddings have; ask for Similarity(...) to a vector or "
        "to another image, for a number by its index, or say which output holds scores of classes: output=..."
    )
    assert "output['embedding'] is an embedding" in said(lambda: seewhy.explain(model("dict"), X))
    assert "['pooler_output'] is an embedding" in said(lambda: seewhy.explain(model("nested"), X))
    assert seewhy.explain(model(unit=True), X, 2).target == ("class 2",) * 3
    assert seewhy.explain(model(unit=True), X, labels=list("abcde")).notes[0].startswith("target: the class")


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv2_035"])
def test_a_network_that_lost_its_classifier_is_doubted(name):
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8} if name.startswith("vit") else {}
    x = torch.rand(2, 3, 32 if size else 64, 32 if size else 64)
    for classes in (0, 7):
        e = seewhy.explain(
            timm.create_model(name, num_classes=classes, **size).eval(), x, method="hires_cam", rectify=False
        )
        assert any("which may be an embedding and no scores of classes" in note for note in e.notes) == (not classes)


# What cannot be asked


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (lambda: Similarity(R, kind="l2"), "kind is 'l2'; it is 'cosine', 'dot', 'distance': choose one of them"),
        (lambda: Similarity(R, read=True), "got True as read; give the key or index of the embedding in the model's"),
        (lambda: Similarity("a cat"), "texts are the classes of a CLIP: explain(model, inputs, text, labels=texts)"),
        (lambda: Similarity(["a cat"] * 9), "got ['a cat', 'a cat', 'a cat', 'a cat', 'a cat', 'a cat', ...] as the "),
        (lambda: Similarity([0.5, "a"]), "got [0.5, 'a'] as the reference; give a tensor"),
        (lambda: Similarity([]), "got [] as the reference; give a tensor (d) or (b d), or the number of another image"),
        (lambda: Similarity(True), "got True as the reference; give a tensor"),
        (lambda: Similarity(torch.zeros(2, 3, 4)), "got a reference of shape (2, 3, 4); give finite numbers, a vector"),
        (lambda: Similarity(torch.tensor([torch.nan])), "got a reference of shape (1,); give finite numbers"),
    ],
)
def test_what_is_no_similarity(asked, text):
    assert text in said(asked)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Similarity(torch.ones(4)), "got a reference of 4 numbers; the model's output has 5: give as many"),
        (Similarity(R[:2]), "got 2 references for 3 images; give one for all, or exactly one for each"),
        (Similarity([0, 1]), "got 2 numbers of other images for 3 images; give one for all, or exactly one for each"),
        (Similarity(7), "got image 7 as the reference, of a batch of 3: 0 to 2; of another batch, give its embedding"),
        (
            Similarity([1, 1, 0]),
            "image 1 is compared with itself, which no change can make more alike; give each image",
        ),
        (Similarity(torch.zeros(D)), "the reference of image 0 is zero, which is like nothing; use kind='distance'"),
        (Similarity(R, read="embeds"), "there is no output['embeds'] in what the model puts out; read= takes keys"),
        (
            Similarity(R, lambda f: f[:, 0]),
            "reads is of shape (3,); an embedding is one vector for each image, here (3, d)",
        ),
    ],
)
def test_what_does_not_fit_the_model(asked, text):
    assert text in said(lambda: seewhy.explain(model(), X, asked))


@pytest.mark.parametrize(
    ("kind", "reference", "what"),
    [
        ("cosine", lambda f: 2 * f + 2e-5, "a reference that its embedding is equal to but for its length"),
        ("distance", lambda f: f + 1e-5, "a reference that its embedding is equal to"),
    ],
)
def test_an_image_compared_with_its_own_embedding_is_told_wherever_that_comes_from(kind, reference, what):
    net, twice = model(), X[[0, 1, 1]]
    gallery = net(X).detach()
    text = f" is compared with {what}, which no change can make more alike; give each image another one"
    assert "image 1" + text in said(lambda: seewhy.explain(net, twice, Similarity([2, 2, 1], kind=kind)))
    assert "image 0" + text in said(lambda: seewhy.explain(net, X, Similarity(reference(gallery[0]), kind=kind)))
    near = gallery[0] + 0.01 * R[0]
    for asked in (Similarity(near, kind=kind), Similarity(gallery[0], kind="dot")):
        assert bool(seewhy.explain(net, X, asked, rectify=False).map[0].any())


def test_an_output_without_a_known_embedding():
    assert said(lambda: seewhy.explain(model("maps"), X, Similarity(R), layer="conv")).startswith(
        "the model's output is of shape (3, 6, 4, 5); an embedding is one vector for each image, here (3, d)"
    )
    two = nn.Module()
    two.conv = model().conv
    two.forward = lambda x: {"a": two.conv(x).mean((2, 3)), "b": two.conv(x).amax((2, 3))}
    assert said(lambda: seewhy.explain(two, X, Similarity(R))) == (
        "the model's output has no vector that is known to be the embedding (output['a'] (3, 6), output['b'] (3, 6) "
        "has one for each image); say which by read=, a key or a function: read=lambda output: ..."
    )


def test_a_zero_embedding_has_no_direction():
    net = model()
    nn.init.zeros_(net.linear.weight)
    nn.init.zeros_(net.linear.bias)
    assert said(lambda: seewhy.explain(net, X, Similarity(R), "occlusion")) == (
        "the embedding of image 0 is zero, which has no direction; use kind='dot' or 'distance'"
    )


# Images and texts: CLIP and SigLIP, in which the texts are the classes

TEXTS = ["a photo of a cat", "a photo of a dog", "a drawing of a car"]


def two_towers(name, words=8):
    T = pytest.importorskip("transformers", reason="needs the extra hf")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 50, "max_position_embeddings": words, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    config = getattr(T, f"{name}Config")(text_config={**small, **text}, vision_config=vision)
    return getattr(T, f"{name}Model")(config).double().eval()


def paired(images, texts):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, 50, (3, 6), generator=generator)
    ids[:, -1] = 1
    x = torch.rand(3, 3, 32, 32, generator=generator).double()[:images]
    return {"pixel_values": x, "input_ids": ids[:texts], "attention_mask": torch.ones(texts, 6, dtype=torch.long)}


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
@pytest.mark.parametrize(("images", "texts"), [(1, 1), (1, 3), (2, 3), (3, 3)])
def test_texts_are_classes(name, images, texts):
    net, given = two_towers(name), paired(images, texts)
    asked = TEXTS[texts - 1]
    e = seewhy.explain(net, given, asked, labels=TEXTS[:texts], rectify=False)
    assert e.target == (asked,) * images
    torch.testing.assert_close(e.scores, net(**given).logits_per_image[:, texts - 1].detach())
    more = {**given, "pixel_values": given["pixel_values"].clone().requires_grad_()}
    (by_hand,) = torch.autograd.grad(net(**more).logits_per_image[:, texts - 1].sum(), more["pixel_values"])
    pixels = seewhy.explain(net, given, asked, lambda input_gradients: input_gradients.sum(1), labels=TEXTS[:texts])
    torch.testing.assert_close(pixels.map, by_hand.sum(1), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("method", ["occlusion", "score_cam"])
def test_texts_keep_their_places_where_the_images_are_changed(method):
    net = two_towers("CLIP")
    options = {"occlusion": {"patch": 16, "stride": 16}}.get(method)
    three = seewhy.explain(net, paired(3, 3), 2, method, options=options)
    each = [
        seewhy.explain(
            net, {**paired(3, 3), "pixel_values": paired(3, 3)["pixel_values"][n : n + 1]}, 2, method, options=options
        )
        for n in range(3)
    ]
    torch.testing.assert_close(three.map, torch.cat([one.map for one in each]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("method", ["chefer", "grad_eclip", "attention_rollout", "legrad"])
@pytest.mark.parametrize("words", [6, 17])  # 17: as many as the image has tokens
def test_attention_is_followed_through_the_images_tower(method, words):
    net, given = two_towers("CLIP", words), paired(2, 2)
    given |= {name: given[name].repeat(1, 3)[:, -words:] for name in ("input_ids", "attention_mask")}
    same = [
        seewhy.explain(
            net,
            {**given, "input_ids": given["input_ids"][:k], "attention_mask": given["attention_mask"][:k]},
            0,
            method,
        )
        for k in (1, 2)
    ]
    torch.testing.assert_close(same[0].map, same[1].map, rtol=1e-8, atol=1e-10)
    assert same[0].map.abs().amax((1, 2)).min() > 0


def test_the_images_of_a_clip_may_be_compared_with_each_other():
    net, given = two_towers("CLIP"), paired(2, 3)
    e = seewhy.explain(net, given, Similarity([1, 0]))
    f = net(**given).image_embeds.detach()
    torch.testing.assert_close(e.scores, (f * f.flip(0)).sum(1))
    assert "similarity: the embedding is output['image_embeds']" in e.notes
    assert not any("logits_per_image" in note for note in e.notes)
    assert any("logits_per_image" in note for note in seewhy.explain(net, given, 0).notes)
    assert e.map.amax((1, 2)).min() > 0


@pytest.mark.parametrize("name", ["ViT", "Dinov2", "ResNet"])
def test_backbones_of_transformers_are_read_where_they_pool(name):
    T = pytest.importorskip("transformers", reason="needs the extra hf")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    config = made if name == "ResNet" else {**small, "image_size": 32, "patch_size": 8}
    net = getattr(T, f"{name}Model")(getattr(T, f"{name}Config")(**config)).double().eval()
    x = paired(2, 1)["pixel_values"]
    e = seewhy.explain(net, x, Similarity([1, 0]), rectify=False)
    f = net(x).pooler_output.flatten(1).detach()
    torch.testing.assert_close(e.scores, F.cosine_similarity(f, f.flip(0)))
    assert e.map.abs().amax((1, 2)).min() > 0
    assert "['pooler_output'] is an embedding" in said(lambda: seewhy.explain(net, x))


# Trained networks


def test_the_heat_of_real_pairs_is_where_their_likeness_is(shared):
    """CIFAR-10 without the classifier: like classes are alike, and hiding the hottest fifth costs more likeness."""
    trained = cifar10_resnet(20)
    net = trained.module
    net.linear = nn.Identity()
    photos = [shared / "cifar10" / f"{name}_{n:04}.jpg" for name in trained.labels for n in range(4)]
    x = torch.stack([trained.preprocess(seewhy.read(photo))[0] for photo in photos])
    f = F.normalize(net(x).detach(), dim=1)
    alike = torch.block_diag(*[torch.ones(4, 4)] * 10)
    cosines = f @ f.mT
    assert cosines[alike - torch.eye(40) > 0].mean() > cosines[alike == 0].mean() + 0.1
    partners = [n ^ 1 for n in range(40)]
    e = seewhy.explain(net, x, Similarity(partners))
    order, lost = e.map.flatten(1).argsort(1), []
    for hidden in (order[:, -205:], order[:, :205]):
        mask = torch.zeros(40, 1024).scatter(1, hidden, 1).reshape(40, 1, 32, 32)
        covered = net(x * (1 - mask) + x.mean((2, 3), keepdim=True) * mask).detach()
        lost.append((e.scores - F.cosine_similarity(covered, f[partners])).mean())
    assert lost[0] > lost[1] + 0.02

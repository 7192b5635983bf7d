"""Questions about words: which row predicts which id, parts that sum to the whole, and what cannot be asked."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy.targets.arithmetic import Each
from seewhy.targets.question import Question, resolve
from seewhy.targets.sentence import Sentence
from seewhy.types import TargetError

WORDS = ["<pad>", "<s>", "</s>", "a", "dog", "on", "the", "grass", "red", "ball"]
IDS = [1, 3, 4, 5, 6, 7, 2]  # <s> a dog on the grass </s>
LOGITS = torch.randn(2, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Tokenizer:
    """Ids of a list of pieces, as transformers' tokenizers spell and decode them."""

    all_special_ids = (0, 1, 2)

    def __init__(self, pieces):
        self.pieces = pieces

    def convert_ids_to_tokens(self, ids):
        return [self.pieces[each] for each in ids]

    def get_vocab(self):
        return {piece: index for index, piece in enumerate(self.pieces)}


class Decoder:
    """No more than `decode`."""

    def decode(self, ids):
        return "".join(f" {WORDS[each]}" for each in ids)


def settled(asked, logits=LOGITS):
    return resolve(asked, Question((), tuple(logits.shape), None, len(logits), output=logits), logits.flatten(1))


def answer(asked, logits=LOGITS, rows=None):
    return settled(asked, logits)(logits, torch.arange(len(logits)) if rows is None else rows)


def title(asked, image=0):
    return asked.told(Question((), (2, 7, 10), None, 2), image)


def by_hand(logits, pairs):
    """Sum of log softmax at (row, id), entry by entry."""
    return torch.stack(
        [sum(each[row, index] - torch.log(torch.exp(each[row]).sum()) for row, index in pairs) for each in logits]
    )


def test_row_t_minus_1_predicts_id_t():
    asked = Sentence(IDS)  # nothing predicts the first
    torch.testing.assert_close(answer(asked), by_hand(LOGITS, [(t - 1, IDS[t]) for t in range(1, 7)]))
    loss = F.cross_entropy(LOGITS[:, :-1].flatten(0, 1), torch.tensor(IDS[1:] * 2), reduction="none").reshape(2, -1)
    torch.testing.assert_close(answer(asked), -loss.sum(1))


def test_labels_are_predicted_by_their_own_row():
    torch.testing.assert_close(answer(Sentence(IDS, shift=0)), by_hand(LOGITS, list(enumerate(IDS))))


@pytest.mark.parametrize("shift", [0, 1])
def test_rows_are_counted_from_the_end_so_that_rows_of_the_image_do_no_harm(shift):
    longer = torch.cat([torch.randn(2, 4, 10, dtype=torch.float64), LOGITS], 1)
    torch.testing.assert_close(answer(Sentence(IDS, shift=shift), longer), answer(Sentence(IDS, shift=shift)))
    first = Sentence(IDS, shift=shift).at(0)  # a row of the image predicts it, or its own
    torch.testing.assert_close(answer(first, longer), by_hand(longer, [(4 - shift, IDS[0])]))


def test_a_prompt_and_special_tokens_are_given_not_asked():
    words = Tokenizer(WORDS)
    torch.testing.assert_close(answer(Sentence(IDS, prompt=3)), by_hand(LOGITS, [(2, 5), (3, 6), (4, 7), (5, 2)]))
    torch.testing.assert_close(answer(Sentence(IDS, words, prompt=3)), by_hand(LOGITS, [(2, 5), (3, 6), (4, 7)]))
    ignored = [-100, -100, -100, 5, 6, 7, -100]
    torch.testing.assert_close(answer(Sentence(ignored)), by_hand(LOGITS, [(2, 5), (3, 6), (4, 7)]))


def test_words_sum_to_the_sentence_and_phrases_to_their_words():
    sentence = Sentence(torch.tensor([IDS]), Tokenizer(WORDS))
    words = sentence.words
    assert [title(each) for each in words] == [f"log p({w})" for w in ["a", "dog", "on", "the", "grass"]]
    torch.testing.assert_close(sum(answer(word) for word in words), answer(sentence))
    phrase = sentence.phrase("The  grass")
    assert title(phrase) == "log p(the grass)"
    torch.testing.assert_close(answer(phrase), answer(words[3]) + answer(words[4]))
    torch.testing.assert_close(answer(sentence.at(4, 5)), answer(phrase))
    torch.testing.assert_close(answer(sentence.at(-3, -2)), answer(phrase))


def test_several_sentences_have_a_place_of_their_own_for_a_word():
    ids = torch.tensor([IDS, [1, 6, 8, 9, 2, 0, 0]])  # <s> the red ball </s> <pad> <pad>
    asked = Sentence(ids, Tokenizer(WORDS))
    whole = answer(asked)
    torch.testing.assert_close(whole[:1], by_hand(LOGITS[:1], [(t - 1, IDS[t]) for t in range(1, 6)]))
    torch.testing.assert_close(whole[1:], by_hand(LOGITS[1:], [(0, 6), (1, 8), (2, 9)]))
    the = answer(asked.phrase("the"))
    torch.testing.assert_close(the, torch.cat([by_hand(LOGITS[:1], [(3, 6)]), by_hand(LOGITS[1:], [(0, 6)])]))
    copies = torch.tensor([1, 0, 1])
    torch.testing.assert_close(answer_of_rows(asked, copies), whole[copies])
    each = Each((Sentence(IDS, Tokenizer(WORDS)), Sentence(ids[1], Tokenizer(WORDS))))
    torch.testing.assert_close(answer(each), whole)
    assert [title(asked, n) for n in range(2)] == ["log p(a dog on the grass)", "log p(the red ball)"]


def answer_of_rows(asked, rows):
    return settled(asked)(LOGITS[rows], rows)


def test_another_word_in_its_place():
    sentence = Sentence(IDS, Tokenizer(WORDS))
    expected = by_hand(LOGITS, [(1, 9)])
    for other in (sentence.instead("dog", "ball"), sentence.instead(2, 9)):
        torch.testing.assert_close(answer(other), expected)
        assert title(other) == "log p(ball)"
    contrast = answer(sentence.phrase("dog") - sentence.instead("dog", "ball"))
    torch.testing.assert_close(contrast, LOGITS[:, 1, 4] - LOGITS[:, 1, 9])  # the softmax's sum cancels


def test_probabilities_and_their_logarithms_are_read_as_they_are():
    expected = answer(Sentence(IDS))
    torch.testing.assert_close(answer(Sentence(IDS), LOGITS.softmax(-1)), expected)
    torch.testing.assert_close(answer(Sentence(IDS), LOGITS.log_softmax(-1)), expected)


def test_half_precision_is_summed_in_float32():
    found = answer(Sentence(IDS), LOGITS.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, answer(Sentence(IDS), LOGITS.bfloat16().float()))


PIECES = {
    "word piece": ["[PAD]", "[CLS]", "[SEP]", "two", "snow", "##board", "##ers", "jump", "."],
    "byte pairs": ["<pad>", "<s>", "</s>", "two", "Ġsnow", "board", "ers", "Ġjump", "."],
    "sentence pieces": ["<pad>", "<s>", "</s>", "▁two", "▁snow", "board", "ers", "▁jump", "."],
}


@pytest.mark.parametrize("kind", PIECES)
def test_pieces_of_words_are_joined(kind):
    words = Sentence([1, 3, 4, 5, 6, 7, 8, 2], Tokenizer(PIECES[kind])).words
    assert [(each.texts[0], each.asked[0]) for each in words] == [
        ("two", (1,)),
        ("snowboarders", (2, 3, 4)),
        ("jump", (5,)),
        (".", (6,)),
    ]


@pytest.mark.parametrize("tokenizer", [WORDS, dict(enumerate(WORDS)), Decoder()])
def test_words_by_a_list_a_mapping_or_a_decoder(tokenizer):
    sentence = Sentence(IDS[:-1], tokenizer)
    assert [each.texts[0] for each in sentence.words] == ["a", "dog", "on", "the", "grass"]
    assert title(sentence) == "log p(a dog on the grass)"


def test_without_a_tokenizer_the_ids_are_shown():
    assert title(Sentence(IDS).at(2)) == "log p(token 4)"
    assert [each.asked[0] for each in Sentence(IDS).words] == [(t,) for t in range(1, 7)]


S = Sentence(IDS, Tokenizer(WORDS))
ASKED = {
    "text": (
        lambda: Sentence("a dog"),
        "got str as the ids of a sentence; give the whole numbers that went into the model, such as "
        "tokenizer(text)['input_ids'] or what model.generate returned",
    ),
    "empty": (lambda: Sentence([]), "got list as the ids of a sentence; give the whole numbers"),
    "floats": (
        lambda: Sentence(torch.randn(3)),
        "got an array of type float32 and shape (3,) as the ids of a sentence",
    ),
    "ragged": (
        lambda: Sentence([[1, 2], [1, 2, 3]]),
        "got sentences of 2 and 3 ids; pad them to one length, as the model got them",
    ),
    "prompt": (
        lambda: Sentence(IDS, prompt=7),
        "prompt is 7; it is how many of the 7 ids were given to the model ahead of what it says: 0 to 6",
    ),
    "shift": (
        lambda: Sentence(IDS, shift=2),
        "shift is 2; it is 1 where row t of the logits has read id t, or 0 where it predicts id t",
    ),
    "no word": (
        lambda: Sentence([1, 2], Tokenizer(WORDS)),
        "got 2 ids, of which none from place 1 on is a word; give the sentence that follows the prompt too",
    ),
    "tokenizer": (lambda: Sentence(IDS, 3), "got int as the tokenizer; give an object with convert_ids_to_tokens"),
    "short list": (
        lambda: Sentence(IDS, WORDS[:5]),
        "the words that were given as the tokenizer, 5 of them, hold none",
    ),
    "word": (
        lambda: S.phrase("gras"),
        "no 'gras' in the sentence 'a dog on the grass'; closest 'grass'; ask for words that it has",
    ),
    "twice": (
        lambda: Sentence([1, 3, 4, 5, 3, 9], WORDS).phrase("a"),
        "'a' stands 2 times in 'a dog on a ball'; name one by its places: at(1), at(4)",
    ),
    "place": (lambda: S.at(7), "place 7 is out of range; the sentence has 7 ids: 0 to 6"),
    "no place": (lambda: S.at(), "got no place of the sentence; name at least one"),
    "word for place": (lambda: S.at("dog"), "got 'dog' as a place; give whole numbers from 0 to 6"),
    "vocabulary": (
        lambda: S.instead("dog", "bal"),
        "no word 'bal' is a single token of this vocabulary of 10; closest 'ball', 'a'; give one of its words",
    ),
    "long": (
        lambda: S.instead("the grass", "ball"),
        "'the grass' is 2 tokens long, and one token can stand in the place of one only; name a place",
    ),
    "no list": (
        lambda: Sentence(IDS, Decoder()).instead(2, "ball"),
        "got Decoder as the tokenizer, which does not list its words; give the other word by its id",
    ),
    "several": (
        lambda: Sentence([IDS, IDS]).words,
        "got 2 sentences, whose words are different questions; ask image by image: Sentence(ids[0], ...).words",
    ),
    "classes": (
        lambda: settled(S, LOGITS[:, 0]),
        "words were asked for, but the scores have the shape (2, 10), not (images, places, vocabulary); say by output=",
    ),
    "images": (
        lambda: settled(Sentence([IDS] * 3)),
        "got 3 sentences for 2 images; give one for all, or exactly one for each",
    ),
    "too long": (
        lambda: settled(S, LOGITS[:, :-1]),
        "got 7 ids for logits of 6 places; give the ids that went into the model of this pass (where the last id was "
        "not given, or the ids are labels: Sentence(ids[:, 1:], shift=0))",
    ),
    "first": (
        lambda: settled(S.at(0)),
        "place 0 of the sentence is asked about, and no row of the logits ahead of it predicts it; ask from place 1 on",
    ),
    "beyond": (
        lambda: settled(Sentence(IDS), LOGITS[..., :7]),
        "id 7 is out of range; the model's vocabulary has 7 ids: 0 to 6",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_asked(name):
    ask, sentence = ASKED[name]
    with pytest.raises(TargetError) as told:
        ask()
    assert str(told.value).startswith(sentence)


class Captioner(nn.Module):
    """A plain captioner: the pooled picture is what an LSTM reads first, then the words."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.words, self.lstm, self.out = nn.Embedding(10, 8), nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, images, ids):
        seen = self.conv(images).mean((2, 3))[:, None]
        return self.out(self.lstm(torch.cat([seen, self.words(ids)], 1))[0])


def captioner():
    torch.manual_seed(0)
    model = Captioner().double().eval()
    for parameter in model.parameters():
        parameter.data *= 2
    return model, torch.randn(2, 3, 16, 20, dtype=torch.float64)


def test_words_of_a_plain_captioner_share_one_forward_and_one_backward(monkeypatch):
    model, images = captioner()
    ids = torch.tensor([IDS, IDS])
    sentence = Sentence(IDS, WORDS)
    seewhy.compare(model, images, sentence.words, args=(ids,))  # finds the layer, once
    forwards, backwards, backward = [], [], torch.autograd.grad
    model.register_forward_pre_hook(lambda *_: forwards.append(1))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: backwards.append(k) or backward(*a, **k))
    found = seewhy.compare(model, images, [sentence, *sentence.words], args=(ids,))
    monkeypatch.undo()
    assert len(forwards) == 1
    assert [each["is_grads_batched"] for each in backwards] == [True]
    assert found[0].layers == ("conv",)
    activations = model.conv(images).detach().requires_grad_()
    seen = torch.cat([activations.mean((2, 3))[:, None], model.words(ids)], 1)
    logs = model.out(model.lstm(seen)[0]).log_softmax(-1)
    for place, word in enumerate(list(found)[1:], start=1):
        score = logs[:, place, IDS[place]]  # the row of the id ahead of it: the picture's is row 0
        (gradient,) = torch.autograd.grad(score.sum(), activations, retain_graph=True)
        torch.testing.assert_close(word.scores, score.detach())
        expected = (gradient.mean((2, 3), keepdim=True) * activations).sum(1).relu().detach()
        torch.testing.assert_close(word.raw["conv"], expected)
        assert word.target == (f"log p({WORDS[IDS[place]]})",) * 2
    torch.testing.assert_close(sum(each.scores for each in list(found)[1:]), found[0].scores)


@pytest.mark.parametrize("method", ["score_cam", "occlusion", "rise", "ablation_cam"])
def test_changed_copies_are_asked_for_their_own_images_words(method):
    model, images = captioner()
    ids = torch.tensor([IDS, [1, 6, 8, 9, 2, 0, 0]])

    def by_formula(output, rows):
        words = torch.where(ids[:, 1:] > 2, ids[:, 1:], 0)[rows]
        logs = output[:, 1:-1].log_softmax(-1).gather(-1, words[..., None])[..., 0]
        return (logs * (words > 2)).sum(1)

    how = {"args": (ids,), "rectify": False} if method.endswith("cam") else {"args": (ids,)}
    asked = seewhy.explain(model, images, Sentence(ids, Tokenizer(WORDS)), method, **how)
    formula = seewhy.explain(model, images, by_formula, method, **how)
    torch.testing.assert_close(asked.map, formula.map)
    torch.testing.assert_close(asked.scores, formula.scores)
    assert all(value > 0 for value in asked.map.abs().amax((1, 2)))
    alone = seewhy.explain(model, images[1:], Sentence(ids[1], Tokenizer(WORDS)), method, **{**how, "args": (ids[1:],)})
    torch.testing.assert_close(alone.map, asked.map[1:])


def test_the_gradient_is_that_of_finite_differences():
    model, images = captioner()
    ids, sentence = torch.tensor([IDS]), settled(Sentence(IDS, WORDS).phrase("on the"))
    activations = model.conv(images[:1]).detach()
    model.requires_grad_(False)

    def score(a):
        seen = torch.cat([a.mean((2, 3))[:, None], model.words(ids)], 1)
        return sentence(model.out(model.lstm(seen)[0]), torch.zeros(1, dtype=torch.long))[0]

    gradient = torch.autograd.functional.jacobian(score, activations)
    direction = torch.randn_like(activations)
    step = 1e-5
    finite = (score(activations + step * direction) - score(activations - step * direction)) / (2 * step)
    assert math.isclose(float(finite), float((gradient * direction).sum()), rel_tol=1e-7)
    assert gradient.abs().max() > 1e-3

"""Questions about words: how probable the words of a sentence are, each after those ahead of it and with the image.

The sentence is given as the ids that went into the model ("teacher forcing"), so that one forward pass holds the
answers of all its words.
"""

from collections.abc import Sequence
from typing import Any, SupportsIndex, cast

from seewhy.targets.arguments import plain, whole, wholes
from seewhy.targets.tokens import Ids, Tokens, texts_of
from seewhy.targets.vocabulary import words_of
from seewhy.types import TargetError


def Sentence(ids: Any, tokenizer: Any = None, *, prompt: SupportsIndex | None = None, shift: int = 1) -> Tokens:
    """The log-probability of a sentence, word by word: what the gradient of a caption is taken of.

    sum_t log p(w_t | w_<t, image),   log p(. | w_<t, image) = log softmax of row n - T + t - shift

    of the logits (b n v), for the T ids w_0 .. w_(T-1). Rows are counted from the end, so that rows of the image ahead
    of the text, or in place of one id of it, do no harm; where the text that the model was given is known to end
    elsewhere than the sentence, and row t has read w_t, from there. Special tokens and the prompt are given, not asked.
    Of a list of words, those in angle or square brackets are special: `</s>`, `[PAD]`.

    Identity: the scores of `words` sum to the sentence's.

    Args:
        ids: the ids that went into the model, `(t,)` for all images or `(b t)`; padded as they went in.
        tokenizer: for words and titles: an object with `convert_ids_to_tokens` or `decode`, or the list of words.
        prompt: how many of the ids were given to the model as its prompt; None: the first, which nothing predicts.
        shift: 1 where row t has read w_t and predicts the next (`input_ids`, `decoder_input_ids`); 0 where row t
            predicts w_t (`labels` of an encoder-decoder).

    Returns:
        The question, with `words`, `phrase`, `at` and `instead` for parts of it.

    Raises:
        TargetError: ids that are none, or no word among them.

    Reference:
        Selvaraju et al., Grad-CAM: Why did you say that?, arXiv:1611.07450, section 3.3: "given a caption, we compute
        the gradient of its log probability".
    """
    if shift not in (0, 1):
        raise TargetError(
            f"shift is {shift!r}; it is 1 where row t of the logits has read id t, or 0 where it predicts id t"
        )
    rows = _ids(ids)
    start = max(shift, _prompt(prompt, len(rows[0])))
    spelled = tuple(words_of(row, range(start, len(row)), tokenizer) for row in rows)
    if not all(spelled):
        raise TargetError(
            f"got {len(rows[0])} ids, of which none from place {start} on is a word; give the sentence that follows "
            "the prompt too, as model.generate returns it"
        )
    asked = tuple(tuple(place for word in words for place in word.places) for words in spelled)
    return Tokens(rows, asked, texts_of(rows, asked, tokenizer), spelled, shift, tokenizer)


def _ids(given: Any) -> Ids:
    listed = plain(given)
    if isinstance(listed, list | tuple):
        listed = [plain(row) for row in cast(Sequence[Any], listed)]  # a list of tensors
    nested = isinstance(listed, list) and all(isinstance(row, list | tuple) for row in listed)
    rows = [wholes(row) for row in (listed if nested and listed else [listed])]
    if not rows[0] or None in rows:
        raise TargetError(
            f"got {_named(given)} as the ids of a sentence; give the whole numbers that went into the model, "
            "such as tokenizer(text)['input_ids'] or what model.generate returned"
        )
    lengths = {len(row or ()) for row in rows}
    if len(lengths) > 1:
        raise TargetError(
            f"got sentences of {' and '.join(map(str, sorted(lengths)))} ids; pad them to one length, as the model got "
            "them"
        )
    return tuple(tuple(row or ()) for row in rows)


def _named(given: Any) -> str:
    """What was given in place of ids, in words."""
    if not hasattr(given, "dtype"):
        return type(given).__name__
    shape = tuple(given.shape)
    return f"an array of type {str(given.dtype).removeprefix('torch.')} and shape {shape}"


def _prompt(given: Any, length: int) -> int:
    if given is None:
        return 0
    number = whole(given)
    if number is None or not 0 <= number < length:
        raise TargetError(
            f"prompt is {given!r}; it is how many of the {length} ids were given to the model ahead of what it says: "
            f"0 to {length - 1}"
        )
    return number

"""How ids read as text: pieces of words joined to words, and the id of a word, by whatever tokenizer there is.

A tokenizer is any object with `convert_ids_to_tokens` or `decode`, as those of transformers have them; or the words
themselves, in the order of their ids or by id.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from seewhy.types import TargetError
from seewhy.wording import closest, near, some

_BEGINS = ("Ġ", "▁", " ")  # how byte-pair and sentence-piece tokenizers mark the first piece of a word
_GOES_ON = "##"  # how word-piece tokenizers mark the others

_BRACKETED = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")  # how special tokens are spelled


@dataclass(frozen=True)
class Word:
    """A word of a sentence, and the places of its pieces."""

    text: str
    places: tuple[int, ...]


def words_of(ids: Sequence[int], places: Sequence[int], tokenizer: Any) -> tuple[Word, ...]:
    """The words that the ids at these places spell; without a tokenizer, each id is one.

    Special tokens are no words; neither are negative ids, which mark labels that do not count.
    """
    kept = [place for place in places if ids[place] >= 0]
    special = _special({ids[place] for place in kept}, tokenizer)
    kept = [place for place in kept if ids[place] not in special]
    pieces = pieces_of([ids[place] for place in kept], tokenizer)
    marked = any(piece.startswith(_BEGINS) for piece in pieces)
    groups: list[list[int]] = []
    for place, piece in zip(kept, pieces, strict=True):
        if groups and place == groups[-1][-1] + 1 and _goes_on(piece, marked):
            groups[-1].append(place)
        else:
            groups.append([place])
    return tuple(Word(text_of([ids[place] for place in group], tokenizer), tuple(group)) for group in groups)


def _special(ids: Collection[int], tokenizer: Any) -> set[int]:
    """Those that a tokenizer says to be special; where it does not, those in brackets: `</s>`, `[PAD]`."""
    if tokenizer is None or hasattr(tokenizer, "all_special_ids"):
        return set(getattr(tokenizer, "all_special_ids", ()))
    spelled = zip(ids, pieces_of(list(ids), tokenizer), strict=True)
    return {each for each, piece in spelled if _BRACKETED.fullmatch(piece.strip())}


def pieces_of(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """Each id as its tokenizer spells it, with its mark of where words begin; without a tokenizer, the id itself.

    Raises:
        TargetError: no tokenizer, or an id that it does not know.
    """
    if tokenizer is None:
        return [f"token {each}" for each in ids]
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        return [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
    if hasattr(tokenizer, "decode"):
        return [str(tokenizer.decode([each])) for each in ids]
    if isinstance(tokenizer, str) or not isinstance(tokenizer, Mapping | Sequence):
        raise TargetError(
            f"got {type(tokenizer).__name__} as the tokenizer; give an object with convert_ids_to_tokens or decode, or "
            "the words in the order of their ids"
        )
    try:
        return [str(tokenizer[each]) for each in ids]
    except (KeyError, IndexError) as error:
        raise TargetError(
            f"the words that were given as the tokenizer, {len(tokenizer)} of them, hold none for every id of {ids}; "
            "give the vocabulary of the model"
        ) from error


def text_of(ids: Sequence[int], tokenizer: Any) -> str:
    """What the ids read together."""
    if hasattr(tokenizer, "decode"):
        return " ".join(str(tokenizer.decode(list(ids))).split())
    pieces = pieces_of(ids, tokenizer)
    marked = any(piece.startswith(_BEGINS) for piece in pieces)
    return "".join(f"{'' if _goes_on(piece, marked) else ' '}{_bare(piece)}" for piece in pieces).strip()


def places_of(text: str, words: Sequence[Word]) -> tuple[int, ...]:
    """The places of one word, or several in a row, among a sentence's.

    Raises:
        TargetError: the sentence does not have them (its nearest words are listed), or more than once.
    """
    wanted, known = text.casefold().split(), [word.text.casefold() for word in words]
    begins = [n for n in range(len(known) - len(wanted) + 1) if wanted and known[n : n + len(wanted)] == wanted]
    found = [tuple(place for word in words[n : n + len(wanted)] for place in word.places) for n in begins]
    if len(found) == 1:
        return found[0]
    sentence = " ".join(word.text for word in words)
    if found:
        ways = some([f"at({', '.join(map(str, each))})" for each in found])
        raise TargetError(f"{text!r} stands {len(found)} times in {sentence!r}; name one by its places: {ways}")
    similar = [each for word in wanted for each in near(word, [other.text for other in words])]
    hint = f"closest {', '.join(map(repr, dict.fromkeys(similar)))}; " if similar else ""
    raise TargetError(f"no {text!r} in the sentence {sentence!r}; {hint}ask for words that it has, as they are spelled")


def id_of(word: str, beside: int, tokenizer: Any) -> int:
    """The one id that spells a word, with the mark that the piece beside which it may stand begins with.

    Raises:
        TargetError: none does; the words with the nearest spelling are listed.
    """
    known = _ids_by_piece(tokenizer)
    (model,) = pieces_of([beside], tokenizer)
    spelled = f"{model[: len(model) - len(_bare(model))]}{word}"
    if spelled in known:
        return known[spelled]
    bare = {_bare(piece) for piece in known}
    raise TargetError(
        f"no word {word!r} is a single token of this vocabulary of {len(known)}; {closest(word, bare)}; give one of "
        "its words, or an id"
    )


def _ids_by_piece(tokenizer: Any) -> dict[str, int]:
    if hasattr(tokenizer, "get_vocab"):
        return dict(tokenizer.get_vocab())
    if isinstance(tokenizer, Mapping):
        return {str(piece): index for index, piece in cast(Mapping[int, Any], tokenizer).items()}
    if isinstance(tokenizer, Sequence) and not isinstance(tokenizer, str):
        return {str(piece): index for index, piece in enumerate(cast(Sequence[Any], tokenizer))}
    raise TargetError(
        f"got {type(tokenizer).__name__} as the tokenizer, which does not list its words; give the other word by its id"
    )


def _goes_on(piece: str, marked: bool) -> bool:
    """Whether a piece belongs to the word of the piece ahead of it; a mark of punctuation is a word of its own."""
    return piece.startswith(_GOES_ON) or (marked and not piece.startswith(_BEGINS) and any(map(str.isalnum, piece)))


def _bare(piece: str) -> str:
    return piece.lstrip("".join(_BEGINS)).removeprefix(_GOES_ON)

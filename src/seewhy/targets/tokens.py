"""The question about some places of a sentence: how probable their words are, after those ahead of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.nested import follow
from seewhy.targets.arguments import whole, wrong_number
from seewhy.targets.arithmetic import ARITHMETIC
from seewhy.targets.context import reaches, unread
from seewhy.targets.detections import scores_at
from seewhy.targets.question import Question
from seewhy.targets.reading import logits_of
from seewhy.targets.vocabulary import Word, id_of, places_of, text_of
from seewhy.types import Path, Rows, Scores, TargetError

Ids = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Tokens:
    """The log-probability of some places of a sentence; made by `Sentence`, and by its parts.

    Args:
        ids: the sentence, one for all images or one for each.
        asked: for each sentence, the places that are asked about.
        texts: what is written there.
        spelled: the words of each sentence.
        shift: row t - shift predicts id t, both counted from the end.
        tokenizer: see `Sentence`.
        path: where the logits are in the output.
        probabilities: whether they are probabilities, not logits.
        reach: for each sentence, how many rows from the end the one is that has read its first id; as many as it has
            ids, unless the text that the model was given ends elsewhere. Empty where that is not known.
    """

    ids: Ids
    asked: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    spelled: tuple[tuple[Word, ...], ...] = field(repr=False)
    shift: int
    tokenizer: Any = field(repr=False, compare=False)
    path: Path = ()
    probabilities: bool = False
    reach: tuple[int, ...] = ()

    @property
    def words(self) -> list["Tokens"]:
        """A question for each word of the sentence, for `compare`: one forward and one batched backward for all.

        Raises:
            TargetError: there are several sentences.
        """
        if len(self.ids) > 1:
            raise TargetError(
                f"got {len(self.ids)} sentences, whose words are different questions; ask image by image: "
                "Sentence(ids[0], ...).words"
            )
        parts = [word for word in self.spelled[0] if set(word.places) <= set(self.asked[0])]
        return [replace(self, asked=(word.places,), texts=(word.text,)) for word in parts]

    def phrase(self, text: str) -> "Tokens":
        """The log-probability of one word, or several in a row, given all that is ahead of them.

        Raises:
            TargetError: the sentence does not have them, or more than once.
        """
        return self._of(tuple(places_of(text, words) for words in self.spelled))

    def at(self, *places: Any) -> "Tokens":
        """The log-probability of the ids at these places of the sentence; negative ones are counted from its end.

        Raises:
            TargetError: there is no such place.
        """
        length = self._length
        numbers = [whole(place) for place in places]
        for place, number in zip(places, numbers, strict=True):
            if number is None:
                raise TargetError(f"got {place!r} as a place; give whole numbers from 0 to {length - 1}")
            if not -length <= number < length:
                raise TargetError(f"place {place} is out of range; the sentence has {length} ids: 0 to {length - 1}")
        if not places:
            raise TargetError("got no place of the sentence; name at least one")
        return self._of((tuple(number % length for number in numbers if number is not None),) * len(self.ids))

    def instead(self, text: str | SupportsIndex, other: str | SupportsIndex) -> "Tokens":
        """The log-probability of another word in the place of one of the sentence: why not this?

        `s.phrase("dog") - s.instead("dog", "cat")` asks why it is a dog rather than a cat.

        Args:
            text: a word of a single token, or its place.
            other: a word that is a single token, or its id.

        Raises:
            TargetError: words of several tokens, or that are not in the sentence or the vocabulary.
        """
        said = self.phrase(text) if isinstance(text, str) else self.at(text)
        if any(len(places) > 1 for places in said.asked):
            raise TargetError(
                f"{text!r} is {max(map(len, said.asked))} tokens long, and one token can stand in the place of one "
                "only; name a place: sentence.instead(3, ...)"
            )
        ids: list[tuple[int, ...]] = []
        for row, (place,) in zip(self.ids, said.asked, strict=True):
            new = id_of(other, row[place], self.tokenizer) if isinstance(other, str) else _id(other)
            ids.append((*row[:place], new, *row[place + 1 :]))
        return replace(said, ids=tuple(ids), texts=texts_of(tuple(ids), said.asked, self.tokenizer))

    @property
    def fixed(self) -> bool:
        """Whether every image settles it in the same way: it may be asked of the tiles of one."""
        return len(self.ids) == 1

    def of(self, _scores: Float[Tensor, "b k"], question: Question, /) -> "Tokens":
        """With the place of the logits.

        Raises:
            TargetError: logits of no sequence, or sentences of another number or length, or ids beyond the vocabulary,
                or words of which the model has not read those ahead of them.
        """
        path = scores_at(question)
        if len(question.shape) != 3:
            raise TargetError(
                f"words were asked for, but the scores have the shape {question.shape}, not (images, places, "
                "vocabulary); say by output= which of the model's outputs holds the logits of words"
            )
        if len(self.ids) not in (1, question.images):
            raise TargetError(wrong_number(len(self.ids), question.images, "sentences"))
        reach = tuple(self._reach(row, question) for row in range(len(self.ids)))
        for ids, asked, own in zip(self.ids, self.asked, reach, strict=True):
            _check_fits(ids, asked, own, question.shape, self.shift)
        return replace(self, path=path, probabilities=_are_probabilities(follow(question.output, path)), reach=reach)

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The sum of the log-probabilities of the places that are asked about, for each row."""
        logits = follow(output, self.path)
        which = rows if len(self.ids) > 1 else torch.zeros_like(rows)
        reach = self.reach or (self._length,) * len(self.ids)
        table = torch.tensor(_padded(self.ids, self.asked, reach), device=logits.device)[which.to(logits.device)]
        places, ids, counted = table.unbind(1)
        offset = logits.shape[1] - self.shift
        each = torch.arange(len(rows), device=logits.device)[:, None]
        read = logits[each, places + offset].to(torch.promote_types(logits.dtype, torch.float32))
        logs = logits_of(read, "softmax" if self.probabilities else None).log_softmax(-1)
        return (logs.gather(-1, ids[..., None])[..., 0] * counted).sum(1)

    @property
    def reads(self) -> Path:
        """The place of the output that is read."""
        return self.path

    def doubts(self, question: Question, _probabilities: Float[Tensor, "b k"]) -> Iterator[str]:
        """That the model has not read what stands ahead of the words, as where the ids are of another caption."""
        several = len(self.ids) > 1
        for image in question.asked:
            row = image if several else 0
            texts = unread(self.ids[row][: max(self.asked[row])], question.given, image)
            if texts:
                yield (
                    f"the words ahead of those that are asked about do not stand in {texts}, so the model has not read "
                    "them; give the ids that went into the model of this pass"
                )

    def told(self, _question: Question, image: int) -> str:
        """The question in words: `log p(dog)`."""
        return f"log p({self.texts[image if len(self.texts) > 1 else 0]})"

    def _reach(self, row: int, question: Question) -> int:
        """How many rows from the end the one is that has read a sentence's first id."""
        ids, asked = self.ids[row], self.asked[row]
        images = [image for image in question.asked if len(self.ids) == 1 or image == row]
        if self.shift == 0 or not images:
            return len(ids)
        found = sorted(set[int]().union(*(reaches(ids, asked, question.given, image) for image in images)))
        if len(found) > 1:
            raise TargetError(
                f"the {len(ids)} ids of the sentence stand {' and '.join(map(str, found))} ids ahead of the end of the "
                "text that the model was given, so that it is not known which rows predict them; give all ids that "
                "went into the model, for each image"
            )
        return found[0]

    @property
    def _length(self) -> int:
        return min(map(len, self.ids))  # they are all of one length

    def _of(self, asked: tuple[tuple[int, ...], ...]) -> "Tokens":
        return replace(self, asked=asked, texts=texts_of(self.ids, asked, self.tokenizer))

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


def _id(given: Any) -> int:
    number = whole(given)
    if number is None:
        raise TargetError(f"got {given!r} in the place of a word; give a word, or an id, a whole number")
    return number


def texts_of(ids: Ids, asked: Sequence[tuple[int, ...]], tokenizer: Any) -> tuple[str, ...]:
    """What is written at these places of each sentence."""
    return tuple(text_of([row[place] for place in places], tokenizer) for row, places in zip(ids, asked, strict=True))


def _check_fits(ids: Sequence[int], asked: Sequence[int], reach: int, shape: tuple[int, ...], shift: int) -> None:
    _, rows, vocabulary = shape
    if reach + shift <= max(asked):
        raise TargetError(
            f"place {max(asked)} of the sentence is asked about, and the model was given the first {reach} of its "
            f"{len(ids)} ids only, so that no row of the logits predicts it; give the model the sentence too"
        )
    if reach > rows:
        way = " (where the last id was not given, or the ids are labels: Sentence(ids[:, 1:], shift=0))" * (shift == 1)
        raise TargetError(
            f"got {len(ids)} ids for logits of {rows} places; give the ids that went into the model of this pass{way}"
        )
    if shift > rows - reach + min(asked):
        raise TargetError(
            f"place {min(asked)} of the sentence is asked about, and no row of the logits ahead of it predicts it; ask "
            f"from place {shift} on"
        )
    beyond = [ids[place] for place in asked if not 0 <= ids[place] < vocabulary]
    if beyond:
        raise TargetError(
            f"id {beyond[0]} is out of range; the model's vocabulary has {vocabulary} ids: 0 to {vocabulary - 1}"
        )


def _are_probabilities(scores: Float[Tensor, "b n v"]) -> bool:
    return bool((scores >= 0).all()) and bool((scores.float().sum(-1) - 1).abs().max() < 1e-3)


def _padded(ids: Ids, asked: Sequence[tuple[int, ...]], reach: Sequence[int]) -> list[list[list[int]]]:
    """For each sentence the rows that read its places, counted from the end, their ids, and 1 for those that count.

    As many for all, with the first repeated.
    """
    longest, table = max(map(len, asked)), list[list[list[int]]]()
    for row, places, own in zip(ids, asked, reach, strict=True):
        filled = [*places, *[places[0]] * (longest - len(places))]
        table.append(
            [
                [place - own for place in filled],
                [row[place] for place in filled],
                [int(n < len(places)) for n in range(longest)],
            ]
        )
    return table

"""What questions may tell of themselves is written down in one place, and nothing else is looked for or offered."""

import importlib
import inspect
import pkgutil
from dataclasses import fields, is_dataclass

import torch

from seewhy import targets
from seewhy.answer import _about_residual
from seewhy.maps import asked
from seewhy.targets import abilities

KNOWN = {
    name
    for ability in vars(abilities).values()
    if inspect.isclass(ability) and getattr(ability, "_is_protocol", False) and ability.__module__ == abilities.__name__
    for name in vars(ability)
    if not name.startswith("_")
}
OF_A_SENTENCE = {"words", "phrase", "at", "instead"}  # parts of it, which a user asks for


def questions():
    for found in pkgutil.iter_modules(targets.__path__):
        module = importlib.import_module(f"seewhy.targets.{found.name}")
        for each in vars(module).values():
            own = inspect.isclass(each) and each.__module__ == module.__name__ and is_dataclass(each)
            if own and ({"of", "__call__"} & vars(each).keys()):
                yield each


def test_the_public_members_of_every_question_are_known_abilities():
    found = list(questions())
    assert {"ClassScore", "Rank", "Weighed", "Pixels", "Kept", "Number", "Likeness", "Tokens", "Sum"} <= {
        each.__name__ for each in found
    }
    assert {"told", "note", "doubts", "reads", "gradient", "whole", "extent", "sees", "moved", "fixed"} <= KNOWN
    for each in found:
        public = {name for name in vars(each) if not name.startswith("_")} - {field.name for field in fields(each)}
        spoken_of = KNOWN | {"of", "marks"} | (OF_A_SENTENCE if each.__name__ == "Tokens" else set())
        assert public <= spoken_of, (each.__name__, public - spoken_of)


def test_up_to_a_twentieth_of_the_score_is_complete():
    way = asked("full_grad", {}, None)
    scores = torch.tensor([10.0, 100.0])
    assert not list(_about_residual(way, torch.tensor([-0.4, 4.9]), scores))
    assert list(_about_residual(way, torch.tensor([0.1, -6.0]), scores)) == [
        f"{way.title} is not complete here: its parts miss what they should sum to by 6% of the score; "
        "what norms that are no batch norm, attention or softplus add is on no map"
    ]

"""The visual question answering network of ../shared/data, written from its README."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.zoo import Loaded
from shared_models import loaded, plain

ANSWERS = "green,triangle,no,rectangle,gray,red,blue,yes,circle,black,yellow,brown,teal"
WORDS = (
    "is,shape,the,a,image,there,not,what,does,contain,in,present,color,no,"
    "triangle,rectangle,circle,teal,gray,brown,blue,green,yellow,red,black,of"
)


class EasyVQA(nn.Module):
    """A picture net and a bag-of-words question net, multiplied; no rectifier anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.conv3, self.img_fc = nn.Conv2d(16, 32, 3, padding=1), nn.Linear(2048, 32)
        self.q_fc1, self.q_fc2, self.q_fc3 = nn.Linear(27, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.fc, self.out = nn.Linear(32, 32), nn.Linear(32, 13)

    def forward(self, image: Float[Tensor, "b 3 64 64"], question: Float[Tensor, "#b 27"]) -> Float[Tensor, "b 13"]:
        x = F.max_pool2d(self.conv1(image), 2)
        x = F.max_pool2d(self.conv3(F.max_pool2d(self.conv2(x), 2)), 2)
        q = self.q_fc3(self.q_fc2(self.q_fc1(question).tanh()).tanh()).tanh()
        return self.out(self.fc(self.img_fc(x.flatten(1)).tanh() * q).tanh())


class Asked(nn.Module):
    """An EasyVQA that is always asked the same question."""

    question: Tensor

    def __init__(self, vqa: nn.Module, question: str) -> None:
        super().__init__()
        self.vqa = vqa
        self.register_buffer("question", words(question))

    def forward(self, image: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b 13"]:
        return self.vqa(image, self.question)


def words(question: str) -> Float[Tensor, "1 27"]:
    """A question as a bag of words; slot 0 is unused."""
    asked = question.lower().replace("?", "").split()
    return torch.tensor([[0.0, *(float(word in asked) for word in WORDS.split(","))]])


def easy_vqa(question: str | None = None) -> Loaded:
    """easy-VQA: answers about one colored shape. With a question the module takes the picture alone."""
    vqa = loaded("easy_vqa", EasyVQA(), plain(64, 0.5), tuple(ANSWERS.split(",")))
    return vqa if question is None else replace(vqa, module=Asked(vqa.module, question).eval())

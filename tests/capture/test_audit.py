"""What running the source itself shows: state, and the true shapes of outputs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graphkit.capture.audit import changed_state, output_shapes, refuse_state
from graphkit.errors import StateMutated
from graphkit.model import SourceLine


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(4))
        self.plain = torch.zeros(4)
        self.weight = nn.Parameter(torch.ones(4))
        self.count = 0
        self.items: list[Tensor] = []
        self.named: dict[str, Tensor] = {}
        self.cache: Tensor | None = None


class InPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.table[1:] += 1.0
        return x


class Replaced(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.plain = self.plain + x
        return x


class Counted(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x


class Appended(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.items.append(x)
        return x


class Keyed(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.named["h"] = x * 2
        return x


class Learned(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.mul_(0.5)
        return x


class Cached(Base):
    """Filled once: that is a cache, not state."""

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = torch.arange(4.0)
        return x + self.cache


def changes(module: nn.Module) -> dict[str, SourceLine | None]:
    with torch.no_grad():
        return dict(changed_state(module, lambda: module(torch.ones(4))))


@pytest.mark.parametrize(
    ("cls", "name", "code"),
    [
        (InPlace, "table", "self.table[1:] += 1.0"),
        (Replaced, "plain", "self.plain = self.plain + x"),
        (Counted, "count", "self.count += 1"),
        (Appended, "items", "self.items.append(x)"),
        (Keyed, "named", 'self.named["h"] = x * 2'),
    ],
)
def test_state_is_found_with_its_line(cls, name, code):
    found = changes(cls())
    assert list(found) == [name]
    line = found[name]
    assert line is not None
    text = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert text[line.line - 1].strip() == code
    assert line.function == f"{cls.__name__}.forward"


def test_state_of_a_part_is_named_by_its_path():
    module = nn.Sequential(nn.ReLU(), nn.Sequential(InPlace()))
    assert list(changes(module)) == ["1.0.table"]
    assert changes(module)["1.0.table"].module == "1.0"


@pytest.mark.parametrize(
    "module", [Cached(), nn.BatchNorm1d(4).eval(), nn.Linear(4, 4)], ids=["cache", "norm", "linear"]
)
def test_what_settles_is_no_state(module):
    found = dict(changed_state(module, lambda: module(torch.ones(2, 4))))
    assert found == {}


def test_a_refusal_names_everything_and_offers_the_parts_without_state():
    line = SourceLine("", "net.py", 7, "Net.forward")
    with pytest.raises(StateMutated) as caught:
        refuse_state([("h", line), ("c", None)], name="Net", parts=["encoder"])
    assert "`h`, `c`" in caught.value.message
    assert "net.py:7" in caught.value.where
    assert "--submodule encoder" in caught.value.remedy
    refuse_state([], name="Net")


# --- shapes ------------------------------------------------------------------------------------------------------


def shapes(declared, *runs):
    return output_shapes({"y": declared}, [(sizes, {"y": shape}) for sizes, shape in runs])["y"]


A, B = {"b": 2, "n": 64}, {"b": 3, "n": 96}


def test_a_declared_dimension_that_holds_is_kept():
    assert shapes(("b", "2*n", 5), (A, (2, 128, 5)), (B, (3, 192, 5))) == ("b", "2*n", 5)


def test_a_declared_constant_that_moves_becomes_what_it_follows():
    assert shapes((2, 64), (A, (2, 64)), (B, (3, 96))) == ("b", "n")
    assert shapes((4, 65), (A, (4, 65)), (B, (6, 97))) == ("2*b", "n + 1")


def test_a_declared_symbol_that_stands_still_becomes_a_constant():
    assert shapes(("u0", "s77"), (A, (7, 64)), (B, (7, 96))) == (7, "n")


def test_what_follows_nothing_gets_a_name_of_its_own():
    assert shapes(("u0", "b"), (A, (5, 2)), (B, (9, 3))) == ("y_dim0", "b")


def test_an_expression_that_is_not_understood_is_not_replaced_by_a_guess():
    assert shapes(("Strange(n, 4)",), (A, (64,)), (B, (96,))) == ("y_dim0",)


def test_a_rank_that_changes_is_left_alone():
    assert output_shapes({"y": ("b",)}, [(A, {"y": (2,)}), (B, {"y": (3, 1)})]) == {}

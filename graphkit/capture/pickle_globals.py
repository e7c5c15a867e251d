"""Which Python objects a pickle names, found without unpickling it.

Loading a pickle imports and calls what it names; reading its opcodes (`pickletools.genops`) does neither.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass

from graphkit.errors import CorruptFile

_UNKNOWN = "?"
_LEGACY_PICKLES = 5  # what legacy torch.save writes, and torch.load reads, before the raw storages


@dataclass(frozen=True, slots=True)
class Globals:
    """Names in a pickle.

    Attributes:
        names: `module.qualname` of every global.
        resolved: False where a name is computed while unpickling, so that `names` may be incomplete.
    """

    names: frozenset[str]
    resolved: bool


def globals_in(data: bytes) -> Globals:
    """Every global that the pickles in `data` (one, or several back to back) name.

    Raises:
        CorruptFile: not a pickle, or cut off.
    """
    names: set[str] = set()
    resolved = True
    offset = 0
    try:
        for _ in range(_LEGACY_PICKLES):
            found, good, offset = _one_pickle(data, offset)
            names |= found
            resolved = resolved and good
            if data[offset : offset + 1] != b"\x80":
                break
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise CorruptFile(f"the pickle in the file is damaged: {error}", remedy="copy the file again") from error
    return Globals(frozenset(names), resolved)


def _name(module: str, name: str = "") -> str:
    """Protocols below 3 spell the built-in modules as Python 2 did."""
    modern = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    return f"{modern}.{name}"


def _one_pickle(data: bytes, offset: int) -> tuple[set[str], bool, int]:
    """Walk one pickle; strings are followed through the memo, because STACK_GLOBAL takes its names from the stack."""
    names: set[str] = set()
    resolved = True
    recent: list[str] = []  # the strings pushed last; anything else that is pushed is _UNKNOWN
    memo: dict[int, str] = {}
    last = offset
    for opcode, argument, position in pickletools.genops(data[offset:]):
        last = offset + (position or 0)
        match opcode.name:
            case "GLOBAL" | "INST":
                names.add(_name(*str(argument).split(" ", 1)))
                recent.append(_UNKNOWN)
            case "STACK_GLOBAL":
                module, name = ([_UNKNOWN, _UNKNOWN, *recent])[-2:]
                if _UNKNOWN in (module, name):
                    resolved = False
                else:
                    names.add(_name(module, name))
                recent.append(_UNKNOWN)
            case "POP" | "POP_MARK":
                recent.clear()  # what lay below is on top again, and was not followed
            case "MEMOIZE":
                memo[len(memo)] = recent[-1] if recent else _UNKNOWN
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument)] = recent[-1] if recent else _UNKNOWN  # type: ignore[arg-type]
            case "GET" | "BINGET" | "LONG_BINGET":
                recent.append(memo.get(int(argument), _UNKNOWN))  # type: ignore[arg-type]
            case _ if isinstance(argument, str) and "UNICODE" in opcode.name:
                recent.append(argument)
            case _ if opcode.stack_after:
                recent.append(_UNKNOWN)
        del recent[:-4]
    return names, resolved, last + 1

"""Is a `.pt2` archive safe to load? Decided from its JSON and raw bytes alone.

`torch.export.load` runs code from five places of the archive (torch 2.13): pickled sample inputs, pickled weights,
opaque constants, custom objects, and `sympy.sympify` on the expression strings of the graph's JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from graphkit.capture.pickle_globals import globals_in
from graphkit.capture.torch_archive import Archive, read_member
from graphkit.errors import CorruptFile, UntrustedSource

_EXPRESSION = re.compile(
    r"""(?x)
    (?: Symbol\('[su]\d+' (?:,\s*(?:positive|integer|nonnegative)=True)* \)
      | Integer\(-?\d+\) | Rational\(-?\d+,\s*\d+\)
      | (?:Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|StrictLessThan
          |LessThan|StrictGreaterThan|GreaterThan|Equality|Unequality|And|Or|Not|TruncToInt|IntTrueDiv|ToFloat
          |Identity|PowByNatural) (?=\()
      | evaluate=False
      | -?\d+ | [(),\s*/+<>=-]
    )*\Z""",
)

_REFUSED_MEMBERS = {
    "data/aotinductor/": "compiled native code",
    "data/executorch/": "compiled native code",
    "data/constants/custom_obj_": "a pickled custom object",
    "data/constants/opaque_obj_": "a pickled object",
}


def check(archive: Archive) -> bool:
    """Whether the archive's sample inputs may be loaded too.

    Raises:
        UntrustedSource: loading the archive would run code that it names.
    """
    inner = [m.removeprefix(archive.root) for m in archive.members]
    for prefix, what in _REFUSED_MEMBERS.items():
        found = next((m for m in inner if m.startswith(prefix)), None)
        if found is not None:
            raise _untrusted(archive, f"{what} in `{found}`")
    for member in inner:
        if member.endswith(".json"):
            _check_json(archive, member)
    samples = [m for m in inner if m.startswith("data/sample_inputs/")]
    return all(_sample_is_plain(archive, m) for m in samples)


def _check_json(archive: Archive, member: str) -> None:
    try:
        content = json.loads(read_member(archive, member))
    except ValueError as error:
        raise CorruptFile(f"{archive.path.name}: `{member}` is not JSON: {error}") from error
    for key, value in _pairs(content):
        if key == "use_pickle" and value is not False:
            raise _untrusted(archive, f"pickled tensors, by `{member}`")
        if key == "expr_str" and not (isinstance(value, str) and _EXPRESSION.match(value)):
            raise _untrusted(archive, f"the expression {str(value)[:80]!r} in `{member}`")


def _pairs(content: Any) -> Iterator[tuple[str, Any]]:
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value.items()
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _sample_is_plain(archive: Archive, member: str) -> bool:
    """Sample inputs are a torch.save archive inside the archive; only plain tensors and containers may be in it."""
    import io
    import zipfile

    from graphkit.capture.torch_load import PLAIN_GLOBALS

    try:
        with zipfile.ZipFile(io.BytesIO(read_member(archive, member))) as file:
            pickles = [n for n in file.namelist() if n.endswith("data.pkl")]
            found = [globals_in(file.read(n)) for n in pickles]
    except zipfile.BadZipFile:
        raise _untrusted(archive, f"sample inputs in an unknown format, `{member}`") from None
    for each in found:
        bad = sorted(n for n in each.names if n not in PLAIN_GLOBALS)
        if bad or not each.resolved:
            raise _untrusted(archive, f"sample inputs that would import {', '.join(bad) or 'computed names'}")
    return bool(pickles)


def _untrusted(archive: Archive, what: str) -> UntrustedSource:
    return UntrustedSource(
        f"loading {archive.path.name} would run code from the file: {what}",
        where=str(archive.path.name),
        remedy="--trust, if you trust the file's author as you trust a program; or export the model again",
    )

"""Calibration data: samples that are read one at a time, each checked against the model's inputs.

A sample is one set of inputs, `{name: array}`: what one run of the model takes.

- `.npz`: arrays under the inputs' names are one set; names like `0/x`, `1/x` are several.
- `.npy`: the model's only input.
- a folder: all its `.npz` by name; or its `.npy`, one per input of one set where they are called like the inputs,
  else one per set, for a model with one input.
- `package.module:function` without arguments, which yields dicts of arrays: the user's own code, which runs here.
- in Python, also an iterable of dicts, or a function that returns one.

A set whose arrays hold several samples along their leading axis is cut into pieces: of the model's own size where its
leading dimension is fixed, else of the declared optimum, else of 8 where the dimension is called `batch`; a leading
dimension of any other name is taken as it is, since it may be no batch.
"""

from __future__ import annotations

import inspect
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.capture import python_callable
from graphkit.errors import BadCallable, BadSample, FileMissing, GraphkitError, ShapeMissing

if TYPE_CHECKING:
    import numpy as np

    from graphkit.model import Model
    from graphkit.shapes import TensorSpec

    Array = np.ndarray[Any, Any]
    InputSet = Mapping[str, Array]

MOST = 512
"""Samples that are taken at most: a generator may never end, and scales settle long before."""

_PIECE = 8
_NUMBERED = re.compile(r"^(\d+)/(.+)$", re.DOTALL)
_YIELDS = "a function without arguments that yields dicts of numpy arrays: {'x': array}"
_FORMS = "a folder, an .npz or .npy file, or package.module:function"


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """Samples for a model; each iteration reads them anew, from the start.

    Attributes:
        name: Where they come from, for people.
        synthetic: Whether nobody gave them: values made up from the graph.
    """

    name: str
    synthetic: bool = False
    _open: Callable[[], Iterator[tuple[str, InputSet]]] = field(repr=False, kw_only=True)
    _model: Model = field(repr=False, kw_only=True)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """The samples, checked, at most `MOST`.

        Raises:
            BadSample: a file is unreadable, an input is missing, of another dtype, or holds NaN or infinity; or there
                are no samples. `UnknownName`: there is no such input. `ShapeMismatch`: a shape does not fit.
            BadCallable: the user's function fails, or yields something else.
        """
        empty = True
        for where, sample in islice(self._pieces(), MOST):
            empty = False
            yield checked(self._model, sample, where)
        if empty:
            raise BadSample(f"{self.name} holds no samples", remedy=f"at least one; {_FORMS}")

    def _pieces(self) -> Iterator[tuple[str, InputSet]]:
        for where, sample in self._open():
            yield from _cut(self._model, where, sample)


def open_data(model: Model, source: Any) -> CalibrationData:
    """Samples for a model; nothing is read yet.

    Args:
        source: One of the forms above.

    Raises:
        FileMissing: there is no such file or folder. `BadSample`: it is of another kind.
    """
    if isinstance(source, str) and python_callable.is_callable_spec(source) and not Path(source).exists():
        return CalibrationData(source, _open=lambda: _generated(source), _model=model)
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise FileMissing(f"no such file or folder: {path}", remedy=_FORMS)
        if path.is_file() and path.suffix not in (".npz", ".npy"):
            raise BadSample(f"{path.name} is no calibration data", remedy=_FORMS)
        return CalibrationData(path.name or str(path), _open=lambda: _files(model, path), _model=model)
    if callable(source) or (isinstance(source, Iterable) and not isinstance(source, Mapping | Iterator)):
        return CalibrationData("the given samples", _open=lambda: _objects(source), _model=model)
    raise BadSample(
        f"a {type(source).__name__} is no calibration data: it is read more than once",
        remedy=f"{_FORMS}; in Python a list of dicts, or a function that returns an iterable of dicts",
    )


def made_up(model: Model, count: int = 8) -> CalibrationData:
    """Samples that nobody gave: N(0, 1), indices that fit their table, 0/1 masks, at several sizes.

    Raises:
        BadSample, ShapeMissing: no values can be made for an input.
    """
    from graphkit.parity.inputs import choose_sizes, make_inputs, plan_inputs

    plans = plan_inputs(model)
    points = choose_sizes(model.signature, model.dims, [model.origin.sizes] if model.origin.sizes else [])

    def draw() -> Iterator[tuple[str, InputSet]]:
        for seed in range(count):
            yield f"made-up sample {seed}", make_inputs(plans, points[seed % len(points)].sizes, seed)

    return CalibrationData("made-up samples", True, _open=draw, _model=model)


def checked(model: Model, sample: InputSet, where: str) -> dict[str, Array]:
    """A sample whose names, dtypes and shapes are the model's, and whose floats are finite.

    Raises: as `CalibrationData`.
    """
    import numpy as np

    from graphkit.parity.inputs import make_inputs, plan_specs

    specs = model.signature.inputs
    lacking = [s.name for s in specs if s.name not in sample]
    if lacking:
        raise BadSample(
            f"a sample lacks the input `{lacking[0]}`",
            where=where,
            remedy=f"every sample has: {', '.join(s.name for s in specs)}",
        )
    if not any(np.size(value) for value in sample.values()):
        raise BadSample("a sample is empty", where=where, remedy="every sample has at least one value")
    try:
        values = make_inputs(plan_specs(specs), {}, 0, sample)
    except ShapeMissing:  # a fixed expression of symbols that no input states alone
        values = {name: np.asarray(value) for name, value in sample.items()}
    except GraphkitError as error:
        raise type(error)(error.message, where=where, remedy=error.remedy, details=error.details) from error
    for name, value in values.items():
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            bad = value[~np.isfinite(value)].reshape(-1)
            raise BadSample(
                f"the sample for `{name}` holds {bad.size} values that are not finite, the first is {bad[0]}",
                where=where,
                remedy="leave such samples out, or repair them: one of them would set the scale of every layer",
            )
    return values


# --- reading -----------------------------------------------------------------------------------------------------


def _files(model: Model, path: Path) -> Iterator[tuple[str, InputSet]]:
    if path.is_file():
        yield from _file(model, path)
        return
    archives, arrays = sorted(path.glob("*.npz")), sorted(path.glob("*.npy"))
    if bool(archives) == bool(arrays):
        what = "both .npz and .npy files" if archives else "neither .npz nor .npy files"
        raise BadSample(f"the folder {path} holds {what}", remedy="files of one of the two kinds")
    names = {spec.name for spec in model.signature.inputs}
    if arrays and {file.stem for file in arrays} & names:
        yield path.name, {file.stem: _load(file) for file in arrays}
        return
    for file in archives or arrays:
        yield from _file(model, file)


def _file(model: Model, path: Path) -> Iterator[tuple[str, InputSet]]:
    if path.suffix == ".npy":
        inputs = model.signature.inputs
        if len(inputs) != 1:
            raise BadSample(
                f"{path.name} is one array, the model has {len(inputs)} inputs: {', '.join(i.name for i in inputs)}",
                remedy="an .npz with one array for each input",
            )
        yield path.name, {inputs[0].name: _load(path)}
        return
    with path.open("rb") as file:  # np.load would leave the file of a broken archive open
        yield from _sets(path, _archive(path, file))


def _sets(path: Path, archive: Any) -> Iterator[tuple[str, InputSet]]:
    numbered = [_NUMBERED.match(name) for name in archive.files]
    if not numbered:
        raise BadSample(f"{path.name} holds no arrays", remedy="np.savez(file, x=array)")
    if not all(numbered):
        yield path.name, {name: _member(path, archive, name) for name in archive.files}
        return
    for number in sorted({int(m[1]) for m in numbered if m}):
        row = {m[2]: m[0] for m in numbered if m and int(m[1]) == number}
        yield f"{path.name}, set {number}", {k: _member(path, archive, name) for k, name in row.items()}


def _archive(path: Path, file: Any) -> Any:
    import numpy as np

    try:
        loaded = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    if isinstance(loaded, np.ndarray):
        raise BadSample(f"{path.name} is one array, not an archive", remedy="np.savez(file, x=array)")
    return loaded


def _load(path: Path) -> Array:
    """The array of an `.npy` file, mapped and not read."""
    import numpy as np

    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error


def _member(path: Path, archive: Any, name: str) -> Array:
    try:
        array: Array = archive[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    return array


def _unreadable(path: Path, error: Exception) -> BadSample:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    if "allow_pickle" in why:  # numpy advises to load what cannot be trusted
        why = "it holds Python objects, or is damaged"
    return BadSample(f"{path.name} holds no plain arrays: {why}", remedy="np.save or np.savez, without objects")


def _generated(spec: str) -> Iterator[tuple[str, InputSet]]:
    made = python_callable.build(spec, "dicts of numpy arrays")
    if not isinstance(made, Iterable) or isinstance(made, Mapping | str):
        raise BadCallable(f"{spec} gives a {type(made).__name__}", remedy=_YIELDS)
    yield from _numbered(spec, made)


def _objects(source: Any) -> Iterator[tuple[str, InputSet]]:
    yield from _numbered("the given samples", source() if callable(source) else source)


def _numbered(name: str, made: Iterable[Any]) -> Iterator[tuple[str, InputSet]]:
    import numpy as np

    number = 0
    stream = iter(made)
    try:
        while True:
            try:
                each = next(stream)
            except StopIteration:
                return
            except (Exception, SystemExit) as error:  # the user's code may raise anything
                raise BadCallable(f"{name} failed: {type(error).__name__}: {error}", remedy=_YIELDS) from error
            if not isinstance(each, Mapping) or not each:
                raise BadCallable(f"{name} yields a {type(each).__name__}", remedy=_YIELDS)
            yield f"{name}, sample {number}", {str(k): np.asarray(v) for k, v in each.items()}
            number += 1
    finally:
        if inspect.isgenerator(made):
            made.close()


# --- cutting along the leading axis ------------------------------------------------------------------------------


def _cut(model: Model, where: str, sample: InputSet) -> Iterator[tuple[str, InputSet]]:
    piece = _piece(model)
    lengths = {array.shape[0] if array.ndim else 0 for array in sample.values()}
    (length,) = lengths if len(lengths) == 1 else (0,)
    if piece is None or length <= piece or (_fixed(model.signature.inputs) and length % piece):
        yield where, sample
        return
    for start in range(0, length, piece):
        yield f"{where}, from {start}", {name: array[start : start + piece] for name, array in sample.items()}


def _piece(model: Model) -> int | None:
    """How many samples one run takes, where the inputs share their leading dimension; None where they do not."""
    specs = model.signature.inputs
    leads = {spec.shape[0] if spec.shape else None for spec in specs}
    if len(leads) != 1:
        return None
    (lead,) = leads
    if not isinstance(lead, str):
        return lead
    declared = next((d.opt for d in model.dims if d.symbol == lead), None)
    return declared or (_PIECE if lead == "batch" else None)


def _fixed(specs: Iterable[TensorSpec]) -> bool:
    return all(isinstance(spec.shape[0], int) for spec in specs if spec.shape)

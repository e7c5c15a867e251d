"""Every operation of a PyTorch run, with its module path, the user's line and its values in files.

Recorded below autograd with a `TorchDispatchMode`: eager modules, TorchScript and ExportedPrograms alike end in ATen
operators. Values are written as they come and not kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphkit.capture.taps import Tap, Tape
from graphkit.capture.torch_source_line import is_users, line_of, shown
from graphkit.model import SourceLine

Call = Callable[[], list[tuple[str, Any]]]


def record(call: Call, module: Any, inputs: Mapping[str, Any], folder: Path, to_array: Callable[[Any], Any]) -> Tape:
    """Run `call` and record it.

    Args:
        call: Runs the module on `inputs`; returns its named outputs.
        module: What runs: a module, for the paths of its parts, or a `ProgramModule`, which is interpreted.
        inputs: The tensors that it is fed, by name.
        to_array: A tensor as an array.
    """
    import torch

    recorder = _Recorder(folder, to_array)
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            recorder.name(value, name)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it runs a whole encoder layer as one operator
    try:
        with _paths(module, recorder), _nodes(module, recorder), _mode(recorder):
            outputs = call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    made = {name: recorder.known(value) for name, value in outputs if isinstance(value, torch.Tensor)}
    return Tape(tuple(recorder.taps), tuple(inputs), {n: v for n, v in made.items() if v is not None})


@dataclass(slots=True)
class _Recorder:
    """What was seen so far."""

    folder: Path
    to_array: Callable[[Any], Any]
    taps: list[Tap] = field(default_factory=list)
    path: list[str] = field(default_factory=lambda: [""])
    node: Any = None  # of an ExportedProgram's graph, while that is interpreted
    _names: Any = None
    _count: int = 0

    def __post_init__(self) -> None:
        from torch.utils.weak import WeakIdKeyDictionary

        self._names = WeakIdKeyDictionary()

    def known(self, tensor: Any) -> str | None:
        """The name of a value, if it was fed or made in this run."""
        name: str | None = self._names.get(tensor)
        return name

    def name(self, tensor: Any, name: str) -> None:
        self._names[tensor] = name

    def add(self, op: Any, arguments: Any, result: Any) -> None:
        """One operation, once it has run."""
        from torch.utils import _pytree as pytree

        tensors = [v for v in pytree.tree_leaves(arguments) if _is_tensor(v)]
        reads = [n for n in dict.fromkeys(self.known(t) for t in tensors) if n is not None]
        stores = {t.untyped_storage().data_ptr() for t in tensors}
        written = {id(t) for t in tensors}
        made: list[str] = []
        files: list[Mapping[str, str]] = []
        for value in (v for v in pytree.tree_leaves(result) if _is_tensor(v)):
            self._count += 1
            name = f"v{self._count}"
            made.append(name)
            view = id(value) not in written and value.numel() and value.untyped_storage().data_ptr() in stores
            if reads and not view and value.is_floating_point():
                files.append(self._save(name, value))
            self.name(value, name)
        if made:
            self.taps.append(Tap(_op_name(op), tuple(reads), tuple(made), self._line(), tuple(files)))

    def _save(self, name: str, value: Any) -> Mapping[str, str]:
        from graphkit.tensor_files import write_tensors

        target = self.folder / name
        target.mkdir()
        return write_tensors({name: self.to_array(value)}, target)[0]

    def _line(self) -> SourceLine | None:
        if self.node is not None:
            parts = [(str(p), str(c)) for p, c in (self.node.meta.get("nn_module_stack") or {}).values()]
            path, classes = parts[-1][0] if parts else "", [c for _, c in parts]
            line = line_of(self.node.meta.get("stack_trace") or "", path, classes)
            return line or (SourceLine(path) if path else None)
        frame: Any = sys._getframe(2)
        while frame is not None and not is_users(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            return SourceLine(self.path[-1]) if self.path[-1] else None
        code = frame.f_code
        return SourceLine(self.path[-1], shown(code.co_filename), frame.f_lineno, code.co_qualname)


@contextmanager
def _mode(recorder: _Recorder) -> Iterator[None]:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recording(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            recorder.add(func, (args, kwargs), result)
            return result

    with Recording():
        yield


@contextmanager
def _paths(module: Any, recorder: _Recorder) -> Iterator[None]:
    """Keep the path of the module that runs on top of `recorder.path`."""
    from torch.nn.modules import module as hooks

    paths = {id(m): p for p, m in module.named_modules()} if hasattr(module, "named_modules") else {}

    def enter(part: Any, _args: Any) -> None:
        recorder.path.append(paths.get(id(part), recorder.path[-1]))

    def leave(_part: Any, _args: Any, _result: Any) -> None:
        recorder.path.pop()

    handles = hooks.register_module_forward_pre_hook(enter), hooks.register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _nodes(module: Any, recorder: _Recorder) -> Iterator[None]:
    """Run the graph of a `ProgramModule` node by node, so that the recorder knows which one runs."""
    import torch

    graph_module = getattr(module, "graph_module", None)
    if graph_module is None:
        yield
        return

    class Interpreting(torch.fx.Interpreter):  # type: ignore[misc, unused-ignore]
        def run_node(self, n: Any) -> Any:
            recorder.node = n
            return super().run_node(n)

    def run(flat: list[Any]) -> Any:
        made = Interpreting(graph_module).run(*flat, enable_io_processing=False)
        return graph_module.graph.process_outputs(made)

    own, module.run = module.run, run
    try:
        yield
    finally:
        module.run = own


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _op_name(op: Any) -> str:
    packet = getattr(op, "overloadpacket", None)
    return str(packet or op)

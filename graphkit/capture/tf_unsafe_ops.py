"""Operations of TensorFlow's that reach files, the network or Python: a graph that holds one is a program.

TensorFlow itself says that an untrusted graph is untrusted code (its SECURITY.md). Seen with TensorFlow 2.21: a
SavedModel's ReadFile returned a file of the system when called, and a WriteFile in an initialiser ran on loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from graphkit.errors import UntrustedSource

CHECKPOINT = re.compile(r"^(Save(V2|Slices)?|Restore(V2|Slice)?|MergeV2Checkpoints|ShardedFile(name|spec))$")
"""Operations of a checkpoint: every SavedModel holds them, where only its saver reaches them."""

_UNSAFE: tuple[tuple[str, str], ...] = (
    (r"(Eager)?PyFunc(Stateless)?$", "calls Python"),
    (r"(Read|Write)File$|MatchingFiles$|ImmutableConst$", "reaches files"),
    (r"Save(V2|Slices)?$|Restore(V2|Slice)?$|MergeV2Checkpoints$|ShardedFile(name|spec)$", "reaches files"),
    (r"LoadAndRemapMatrix$|GenerateVocabRemapping$|InitializeTableFromTextFile(V2)?$", "reads files"),
    (r".*Reader(V2)?$|ReaderRead\w*$", "reads files"),
    (r".*Dataset(V\d)?$|.*DatasetGraph\w*$|DatasetToTFRecord$|DatasetFromGraph$", "reads data, often from files"),
    (r"CreateSummary\w*Writer$|Write\w*Summary$|ImportEvent$|FlushSummaryWriter$|SummaryWriter$", "writes files"),
    (r"PrintV2$", "can write files"),
    (r"Debug(Identity|NanCount|NumericSummary)(V\d)?$", "writes to files or the network"),
    (r"(De|En)codeProto(V2)?$", "reads a description from a file"),
    (r"FileSystemSetConfiguration$|.*ExperimentalCompression.*", "changes how files are reached"),
    (r"Rpc\w*$|TryRpc$|RemoteCall$|RemoteFusedGraphExecute$|_?(Host)?(Send|Recv)$", "reaches other machines"),
    (r"Bigtable\w*|.*BigQuery\w*|Sql\w*|LMDB\w*|Kafka\w*", "reaches databases"),
    (r"RegisterDataset\w*|DataServiceDataset\w*|Collective\w*", "reaches other machines"),
    (r"StaticRegexReplaceFromFile$|.*FromFile$", "reads files"),
)
_PATTERN = re.compile("^(?:" + "|".join(f"(?P<g{i}>{p})" for i, (p, _) in enumerate(_UNSAFE)) + ")")


@dataclass(frozen=True, slots=True)
class UnsafeOp:
    """An operation that reaches out of the graph.

    Attributes:
        op: Its type.
        node: Its name.
        function: The function that holds it; "" for the graph itself.
        does: What it can do.
    """

    op: str
    node: str
    function: str
    does: str

    def __str__(self) -> str:
        return f"{self.op} `{self.node}`" + (f" in function {self.function}" if self.function else "")


def unsafe_ops(nodes: Iterable[Any], function: str = "") -> Iterator[UnsafeOp]:
    """The unsafe ones among these NodeDefs."""
    for node in nodes:
        found = _PATTERN.match(node.op)
        if found is not None:
            does = next(what for i, (_, what) in enumerate(_UNSAFE) if found.group(f"g{i}") is not None)
            yield UnsafeOp(node.op, node.name, function, does)


def refuse(found: Iterable[UnsafeOp], name: str) -> None:
    """Refuse a file that holds such operations.

    Raises:
        UntrustedSource: there is at least one. Nothing was loaded.
    """
    ops = list(found)
    if not ops:
        return
    more = f" and {len(ops) - 1} more" if len(ops) > 1 else ""
    raise UntrustedSource(
        f"{name} holds {ops[0]}, which {ops[0].does}{more}",
        where=f"{name}: node {ops[0].node}",
        details=tuple(f"{op} {op.does}" for op in ops[1:9]),
        remedy="--trust, if you trust the file's author as you trust a program; or save the model without them",
        data={"ops": sorted({op.op for op in ops})},
    )

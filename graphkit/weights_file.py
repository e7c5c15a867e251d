"""The file beside a large model that holds its weights, and the name that its content gives it.

Weights that lie in another file are copied by the kernel (`copy_file_range` in `tofile` of onnx_ir; Btrfs and XFS share
the blocks), and no more than a megabyte of any is in memory. Bytes are always copied, also into the folder of the
source, whose file could be referred to, or linked: a program that writes that file anew, in place, would change the
weights of a finished model, and nobody would be told.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from graphkit import atomic
from graphkit.traversal import graphs_of

if TYPE_CHECKING:
    import onnx_ir as ir

_PIECE = 64 << 20
_BUFFER = 1 << 20
_MOST_THREADS = 4


def unload(model: ir.Model, path: Path, *, more_than: int, durable: bool) -> Path:
    """Write the weights of a graph into a file beside `path`, where the graph then refers to them; returns the file.

    Args:
        model: The graph, which is changed.
        path: Where the `.onnx` will be.
        more_than: Bytes up to which a weight is in the graph itself.
        durable: Whether the file must survive a crash.

    Raises:
        CannotWrite: the disk is full or read-only. OSError: as `write`.
    """
    import onnx_ir as ir

    outside: list[tuple[ir.Value, ir.TensorProtocol]] = []
    for value in (v for each in graphs_of(model.graph) for v in each.initializers.values()):
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes > more_than and tensor.dtype != ir.DataType.STRING:
            outside.append((value, tensor))
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.external_data.convert_tensors_from_external([tensor])[0]
    with atomic.replacing(path.with_name(f"{path.name}.weights"), durable=durable) as temporary:
        offsets, digest = write([tensor for _, tensor in outside], temporary)
        data = path.with_name(f"{path.stem}.{digest[:12]}.data")
        atomic.publish(temporary, data, durable=durable)
    for (value, tensor), offset in zip(outside, offsets, strict=True):
        shape = tensor.shape if isinstance(tensor.shape, ir.Shape) else ir.Shape(tensor.shape.numpy())
        value.const_value = ir.ExternalTensor(
            data.name, offset, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or "", base_dir=path.parent
        )
    return data


def write(tensors: Sequence[ir.TensorProtocol], path: Path) -> tuple[list[int], str]:
    """Write tensors one behind the other into a file that is there and empty.

    Returns:
        Where each begins, in bytes; and the digest of the file: the SHA-256 of the SHA-256 digests of its pieces of
        64 MiB, in hexadecimal. Other threads read the pieces while the next ones are written.

    Raises:
        OSError: the disk is full, or a tensor lies in a file that has become shorter.
    """
    offsets: list[int] = []
    pieces: list[Future[bytes]] = []
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    # not "wb": ext4 takes that for a replacement, and writes all of it to the disk when it is closed
    with path.open("r+b") as file, ThreadPoolExecutor(threads) as pool:
        for tensor in tensors:
            offsets.append(file.tell())
            copy = getattr(tensor, "tofile", None)  # which the protocol does not ask of a tensor
            file.write(tensor.tobytes()) if copy is None else copy(file)
            file.flush()
            while file.tell() >= (len(pieces) + 1) * _PIECE:
                pieces.append(pool.submit(_digest, path, len(pieces) * _PIECE))
        pieces.append(pool.submit(_digest, path, len(pieces) * _PIECE))
        return offsets, hashlib.sha256(b"".join(piece.result() for piece in pieces)).hexdigest()


def _digest(path: Path, start: int) -> bytes:
    """Digest of a piece, the last one shorter; through a buffer, since pages of a mapping would count as memory."""
    found, view, left = hashlib.sha256(), memoryview(bytearray(_BUFFER)), _PIECE
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left:
            count = file.readinto(view[:left])
            if not count:
                break
            found.update(view[:count])
            left -= count
    return found.digest()

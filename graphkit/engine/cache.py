"""Engines that were built before, found by the content that they were built from.

One folder for each engine, named after its key: `engine`, and `entry.json` with the engine's sha256, everything that
graphkit knows of it, and the sha256 of that. An entry appears whole or not at all, and is checked whenever it is used;
one that is damaged is dropped, and the engine built again. Looking up imports neither ONNX nor TensorRT.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import __version__, atomic
from graphkit.errors import CannotWrite
from graphkit.model import Finding, file_sha256, size_inside

if TYPE_CHECKING:
    from graphkit.engine.targets import Built

SCHEMA = "graphkit.cache/1"
VARIABLE = "GRAPHKIT_CACHE_DIR"
"""Environment variable that names another folder for the cache."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine in the cache.

    Attributes:
        key: Its folder's name.
        model: Name of the model that it was built from, for people.
        library: `tensorrt-rtx 1.7.1.116`; "" where the entry cannot be read.
        targets: Compute capabilities.
        size: Bytes on disk.
        used: Seconds since 1970 when it was last stored or taken.
    """

    key: str
    model: str
    library: str
    targets: tuple[str, ...]
    size: int
    used: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "targets": list(self.targets), "used": int(self.used)}


@dataclass(frozen=True, slots=True)
class Hit:
    """What a key led to.

    Attributes:
        built: The engine, copied to where it was wanted; None if it has to be built.
        sidecar: What `sidecar.describe` said of it when it was built.
        damaged: Why an entry was dropped.
    """

    built: Built | None = None
    sidecar: Mapping[str, Any] | None = None
    damaged: str | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        if self.damaged is None:
            return ()
        return (Finding("cache-entry-damaged", f"the cached engine was damaged ({self.damaged}): it is built again"),)


def folder() -> Path:
    """Where the cache is: `$GRAPHKIT_CACHE_DIR`, else `graphkit` in the user's cache folder of this platform.

    That folder is `$XDG_CACHE_HOME` or `~/.cache`; `~/Library/Caches` on macOS; `%LOCALAPPDATA%` on Windows.
    """
    if own := os.environ.get(VARIABLE):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "graphkit" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphkit"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "graphkit"


def digest(model: Path) -> str:
    """Digest of an ONNX file and of the files that hold its external weights, byte for byte.

    Raises:
        FileMissing, CorruptFile, UnsafePath: as `graphkit.view.read`, and of the external files.
    """
    from graphkit.view import read

    found = hashlib.sha256(file_sha256(model).encode())
    names = {weight.location: weight.name for weight in read(model).weights() if weight.location is not None}
    for location, name in sorted(names.items()):
        size_inside(location, model.parent, name)
        found.update(json.dumps([location, file_sha256(model.parent / location)]).encode())
    return found.hexdigest()


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of everything that decides what an engine is: JSON values, in any order."""
    text = json.dumps({"schema": SCHEMA, "graphkit": __version__, **facts}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class EngineCache:
    """The engines under one folder.

    Args:
        root: The folder; it is made when the first engine is stored, readable by its owner alone.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or folder()) / "engines"

    def take(self, key: str, output: Path, *, durable: bool = True) -> Hit:
        """Copy an engine to `output`, whole or not at all, if it is there and still what was stored.

        Raises:
            CannotWrite: `output` cannot be written.
        """
        entry = self.root / key
        try:
            facts = json.loads((entry / "entry.json").read_bytes())
        except FileNotFoundError:
            if entry.exists():
                return self._drop(key, "its description is missing")
            return Hit()
        except (OSError, ValueError) as error:
            return self._drop(key, f"its description cannot be read: {error}")
        try:
            if facts.pop("sha256") != _digest(facts):
                return self._drop(key, "its description is not the one that was stored")
            built = _built(facts, key, output)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return self._drop(key, f"its description is not one: {error!r}")
        damage = self._copy(entry / "engine", output, built.engine.sha256, durable)
        if damage is not None:
            return self._drop(key, damage)
        _touch(entry)
        return Hit(built, facts["sidecar"])

    def _copy(self, source: Path, output: Path, sha256: str, durable: bool) -> str | None:
        """Copy the engine to `output` if it has the digest; else why not."""
        try:
            source.open("rb").close()  # before the copy, whose errors may be those of `output`
        except OSError as error:
            return f"its engine cannot be read: {error.strerror}"
        with atomic.replacing(output, durable=durable) as temporary:
            shutil.copyfile(source, temporary)
            if file_sha256(temporary) != sha256:
                temporary.unlink()
                return "its sha256 differs"
        return None

    def _drop(self, key: str, why: str) -> Hit:
        entry = self.root / key
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()
        return Hit(damaged=why)

    def store(self, key: str, built: Built, sidecar: Mapping[str, Any]) -> Finding | None:
        """Keep an engine that was just built. A cache that cannot be written stops nothing: that is the finding."""
        facts = {
            "schema": SCHEMA,
            "key": key,
            "engine": _engine_to_json(built),
            "left_out": [each.to_json() for each in built.left_out],
            "sidecar": dict(sidecar),
        }
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new.", dir=self.root) as made:
                draft = Path(made, "entry")
                draft.mkdir()
                shutil.copyfile(built.engine.path, draft / "engine")
                text = json.dumps({**facts, "sha256": _digest(facts)}, sort_keys=True, allow_nan=False)
                (draft / "entry.json").write_text(text, encoding="utf-8")
                if not (self.root / key).exists():
                    draft.rename(self.root / key)
        except OSError as error:
            if error.errno in _THERE_ALREADY:  # another process built the same, and was faster
                return None
            why = error.strerror or str(error)
            return Finding("cache-not-written", f"the engine was not kept in the cache: {why}", str(self.root))
        return None

    def entries(self) -> list[Entry]:
        """What is there, the most recently used first."""
        if not self.root.is_dir():
            return []
        found = [entry for path in self.root.iterdir() if (entry := _entry(path)) is not None]
        return sorted(found, key=lambda entry: (-entry.used, entry.key))

    def prune(self, older_than: float | None = None, max_size: int | None = None) -> list[Entry]:
        """Remove entries, and what killed runs left behind; returns the entries removed.

        Args:
            older_than: Seconds since the last use, above which an entry goes.
            max_size: Bytes that the cache may keep; the entries that were not used for longest go first.

        Without either, every entry goes.

        Raises:
            CannotWrite: one cannot be removed.
        """
        now = time.time()
        kept = 0
        removed: list[Entry] = []
        for entry in self.entries():
            kept += entry.size
            old = older_than is not None and now - entry.used > older_than
            large = max_size is not None and kept > max_size
            if old or large or (older_than is None and max_size is None):
                kept -= entry.size
                removed.append(entry)
        try:
            for entry in removed:
                shutil.rmtree(self.root / entry.key)
            for left in self.root.glob(".new.*"):
                if now - left.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise CannotWrite(f"cannot remove {error.filename}: {error.strerror}") from error
        return removed


_THERE_ALREADY = (errno.EEXIST, errno.ENOTEMPTY)

_ABANDONED = 86_400
"""Seconds after which an entry that was never finished is nobody's."""


def _entry(path: Path) -> Entry | None:
    """What is in a folder; None for one that another process is still writing."""
    if path.name.startswith(".") or not path.is_dir():
        return None
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    used = path.stat().st_mtime
    try:
        facts = json.loads((path / "entry.json").read_bytes())
        engine, origin = facts["engine"], facts["sidecar"]["model"]["origin"]
        library = f"{engine['kind']} {engine['version']}"
        return Entry(path.name, str(origin["name"]), library, tuple(map(str, engine["targets"])), size, used)
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(path.name, "", "", (), size, used)


def _touch(entry: Path) -> None:
    try:
        os.utime(entry)
    except OSError:  # a cache on a read-only disk: it is used all the same
        return


def _digest(facts: Mapping[str, Any]) -> str:
    """Of the description itself: what it says of the engine is handed on as it is."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# --- a built engine as JSON --------------------------------------------------------------------------------------


def _engine_to_json(built: Built) -> dict[str, Any]:
    engine = built.engine
    plain = ("kind", "version", "size", "sha256", "model_sha256", "layers", "seconds", "tf32", "precision")
    return {
        **{name: getattr(engine, name) for name in plain},
        "targets": list(engine.targets),
        "weights": list(engine.weights),
        "kernels": [kernel.to_json() for kernel in engine.kernels],
        "profiles": [profile.to_json() for profile in engine.profiles],
        "findings": [finding.to_json() for finding in engine.findings],
    }


def _built(facts: Mapping[str, Any], key: str, output: Path) -> Built:
    """Raises: KeyError, TypeError, ValueError, AttributeError: these are not the facts of an engine of this key."""
    from graphkit.engine.builder import Engine
    from graphkit.engine.kernels import Kernel
    from graphkit.engine.profiles import Profile
    from graphkit.engine.targets import Built, LeftOut

    if facts["schema"] != SCHEMA or facts["key"] != key or not isinstance(facts["sidecar"], dict):
        raise ValueError(f"schema {facts['schema']!r} of key {facts['key']!r}")
    data = dict(facts["engine"])
    first, *more = (Profile.from_json(each) for each in data.pop("profiles"))
    data["targets"], data["weights"] = tuple(data["targets"]), tuple(data["weights"])
    data["kernels"] = tuple(Kernel.from_json(each) for each in data["kernels"])
    data["findings"] = tuple(Finding(**each) for each in data["findings"])
    engine = Engine(path=output, profile=first, more_profiles=tuple(more), **data)
    return Built(engine, tuple(LeftOut.from_json(each) for each in facts["left_out"]))

"""Names in a pickle, read without loading it."""

import pickle
from collections import Counter, OrderedDict
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphkit.capture.pickle_globals import globals_in
from graphkit.errors import CorruptFile

plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=300)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner, inner)),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw imports what the others reuse
@given(plain, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_values_name_nothing(value, protocol):
    found = globals_in(pickle.dumps(value, protocol))
    names = found.names - {"_codecs.encode", "builtins.bytes"}  # what protocol 2 needs for bytes
    assert names == set()
    assert found.resolved


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_every_class_is_found_wherever_it_stands(value, protocol):
    content = {
        "a": value,
        "b": [OrderedDict(x=value), PurePosixPath("x")],
        "c": Counter("abc"),
        "d": PurePosixPath("y"),
    }
    found = globals_in(pickle.dumps(content, protocol))
    assert {"collections.OrderedDict", "collections.Counter", "pathlib.PurePosixPath"} <= found.names
    assert found.resolved


class Calls:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_function_that_would_be_called_is_named_and_not_called(protocol):
    found = globals_in(pickle.dumps([Calls()], protocol))
    assert found.names & {"builtins.eval", "__builtin__.eval"}


def test_several_pickles_back_to_back_are_all_read():
    data = b"".join(pickle.dumps(v, 2) for v in (1, OrderedDict(), [PurePosixPath("x")]))
    assert {"collections.OrderedDict", "pathlib.PurePosixPath"} <= globals_in(data).names


@pytest.mark.parametrize("size", [128, 128 + 256 * 2, 128 + 256 * 4])
def test_raw_storages_after_the_five_pickles_of_a_legacy_file_are_not_read_as_a_pickle(size):
    data = b"".join(pickle.dumps(v, 2) for v in (1, 2, 3, OrderedDict(), 5))
    assert globals_in(data + size.to_bytes(8, "little") + bytes(64)).names == {"collections.OrderedDict"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8c\x02osN\x93.",  # the name is None
        b"\x80\x04\x8c\x02os2\x93.",  # DUP
        b"\x80\x04\x8c\x02os\x8c\x06system\x8c\x0bcollections\x8c\x0bOrderedDict00\x93.",  # POP uncovers other names
        b"\x80\x04\x8c\x02os\x8c\x06system(\x8c\x0bcollections\x8c\x0bOrderedDict1\x93.",  # POP_MARK too
    ],
    ids=["none", "dup", "pop", "pop_mark"],
)
def test_a_name_that_is_hidden_is_not_taken_for_another(data):
    found = globals_in(data)
    assert not found.resolved or found.names == {"os.system"}


@pytest.mark.parametrize("data", [b"\x80\x04", b"\x80\x02}q\x00(X\x05\x00\x00\x00ab", b"\xff\xff", b"not a pickle"])
def test_a_damaged_pickle_is_refused(data):
    with pytest.raises(CorruptFile, match="damaged"):
        globals_in(data)

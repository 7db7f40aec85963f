import io
import os
import pickle
import struct

import numpy as np
import pytest

from unflat.data.plain_pickle import read_object_array
from unflat.errors import UserError


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def with_pickle(content, count=1):
    """An .npy file that announces an array of objects and holds another pickle."""
    header = saved(objects(*range(count)))
    length = struct.unpack("<H", header[8:10])[0]
    return header[: 10 + length] + content


class Harm:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_as_numpy_reads_them(protocol):
    array = objects(
        {
            "image_path": "a/b.png",
            "mask": {"size": [3, 4], "counts": b"\x00\xffab"},
            "bbox": np.arange(6, dtype=">f4").reshape(2, 3),
            "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
            "score": np.float32(0.25),
            "more": [True, None, 2.5, (1, "x"), np.array(["p", "qr"]), objects({"deep": [1]})],
        },
        {"image_path": "\u00fc"},
    )
    found = read_object_array(with_pickle(pickle.dumps(array, protocol), 2), "d.npy")
    wanted = np.load(io.BytesIO(saved(array)), allow_pickle=True)
    assert found.shape == (2,)
    for key in ("image_path", "mask", "score"):
        assert found[0][key] == wanted[0][key]
    for key in ("bbox", "fortran"):
        assert (found[0][key] == wanted[0][key]).all()
    assert found[0]["bbox"].dtype == np.dtype(">f4")
    assert found[0]["more"][:4] == wanted[0]["more"][:4]
    assert found[0]["more"][4].tolist() == ["p", "qr"]
    assert found[0]["more"][5][0] == {"deep": [1]}


def test_numbers_need_no_pickle():
    assert read_object_array(saved(np.arange(3)), "d.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch harmed",)),
        (eval, ("open('harmed', 'w')",)),
        (open, ("harmed", "w")),
        (getattr, ("text", "upper")),
        (np.memmap, ("harmed", "u1", "w+", 0, (5,))),
        (bytearray, (10,)),
    ],
)
def test_what_is_no_plain_value_is_refused_and_not_run(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    for content in (saved(objects({"a": Harm(*call)})), with_pickle(pickle.dumps(Harm(*call)))):
        with pytest.raises(UserError, match=r"d\.npy: asks for .*, which is not run; .* trust"):
            read_object_array(content, "d.npy")
    assert not list(tmp_path.iterdir())


def test_types_cannot_make_addresses_of_bytes():
    """An array of objects whose content is bytes would be one of addresses."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
    kind = b"cnumpy\ndtype\n(X\x01\x00\x00\x00OI0\nI1\ntR"
    state = b"(I1\n(I1\nt" + kind + b"I00\nC\x08AAAAAAAAtb."
    with pytest.raises(UserError, match=r"d\.npy: (is cut short|does not hold)"):
        read_object_array(with_pickle(array + state), "d.npy")
    builder = b"cnumpy\nndarray\n(NX\x01\x00\x00\x00a}tb."
    with pytest.raises(UserError, match="a change of what builds it"):
        read_object_array(with_pickle(builder), "d.npy")


def test_damaged_files_are_refused():
    content = saved(objects({"a": np.arange(5)}, {"b": "text"}))
    for end in range(0, len(content), 7):
        with pytest.raises(UserError, match=r"d\.npy: "):
            read_object_array(content[:end], "d.npy")
    for content in (b"", b"no array", with_pickle(pickle.dumps([1])), with_pickle(pickle.dumps(3))):
        with pytest.raises(UserError, match=r"d\.npy: "):
            read_object_array(content, "d.npy")

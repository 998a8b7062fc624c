"""Tensors in a file of ``torch.save``, without torch and without running what the file says.

Such a file is a zip archive: ``data.pkl`` describes objects, ``data/N`` hold the numbers. The
pickle is read by an unpickler that knows plain data and tensors of numbers, and refuses the rest;
before that its operations are looked through, for some of them make it allocate what they ask for.
"""

from __future__ import annotations

import io
import lzma
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from orchestrator.parsing.experts.expert_shape import BadExpertFile

MAX_BYTES = 512 << 20  # of all tensors together
MAX_PICKLE = 1 << 20
MAX_NUMBERS = 1 << 26  # of one tensor
TYPES = {
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
}

# What torch.save writes of plain data and tensors; not BYTEARRAY8, which reserves its length first.
OPERATIONS = frozenset(
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE"
    " SHORT_BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT"
    " SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BINPERSID MEMOIZE BINPUT LONG_BINPUT BINGET"
    " LONG_BINGET".split()
)

# Nobody bounds what damage makes the readers raise. A zip archive: BadZipFile and EOFError for its
# frame, KeyError for a member that is not there, zlib's and lzma's own errors for its content, and
# RuntimeError for one that is encrypted or (NotImplementedError) compressed in another way.
# A pickle: see pickle.UnpicklingError's documentation; RecursionError is a RuntimeError, too.
_FOREIGN = (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, OSError)
_DAMAGED = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError),
    *(zlib.error, lzma.LZMAError),
)
_REFUSED = (MemoryError, OverflowError, RuntimeError)


def read_torch_archive(file: io.BufferedIOBase) -> Any:
    """The object that was saved, its tensors as arrays. Raises :class:`BadExpertFile`."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _TensorUnpickler(archive).load()
    except BadExpertFile:
        raise
    except _FOREIGN as error:
        raise BadExpertFile(f"no file of torch.save: {str(error)[:200]}") from error
    except _DAMAGED as error:
        raise BadExpertFile(f"damaged: {str(error)[:200]}") from error
    except _REFUSED as error:
        raise BadExpertFile(f"refused: {type(error).__name__}") from error


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile) -> None:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise BadExpertFile("no file of torch.save: it has no data.pkl")
        sizes = [entry.file_size for entry in archive.infolist()]
        if sum(sizes) > MAX_BYTES or archive.getinfo(names[0]).file_size > MAX_PICKLE:
            raise BadExpertFile(f"more than {MAX_BYTES >> 20} MiB of tensors")
        content = archive.read(names[0])
        _check_operations(content)
        super().__init__(io.BytesIO(content))
        self._archive = archive
        self._folder = names[0].removesuffix("data.pkl")

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module_name, global_name) in known:
            return known[module_name, global_name]
        if module_name == "torch" and global_name in TYPES:
            return TYPES[global_name]
        raise BadExpertFile(f"it contains a {module_name}.{global_name}, which is not read")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """A storage: ``("storage", type, key, device, numbers)``."""
        _, kind, key, *_ = pid
        if not isinstance(kind, np.dtype) or not str(key).isdigit():
            raise BadExpertFile("a tensor's numbers are of no known kind")
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype=kind)


def _check_operations(content: bytes) -> None:
    """Raises :class:`BadExpertFile` for an operation that is not known, and for a number of a
    remembered object beyond those there can be: the unpickler makes room for so many.
    """
    for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if operation.name not in OPERATIONS:
            raise BadExpertFile(f"it contains the operation {operation.name}, which is not read")
        if operation.name == "LONG_BINPUT" and int(argument or 0) > count:
            raise BadExpertFile("it remembers more objects than it has")


def _rebuild_tensor(
    storage: object, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A copy of the numbers in the tensor's order; what lies outside the storage is refused."""
    if not isinstance(storage, np.ndarray) or len(size) != len(stride):
        raise BadExpertFile("a tensor without numbers")
    if offset < 0 or min(size, default=0) < 0 or min(stride, default=0) < 0:
        raise BadExpertFile("a tensor with a negative size or stride")
    if int(np.prod(size, dtype=object)) > MAX_NUMBERS:
        raise BadExpertFile(f"a tensor of more than {MAX_NUMBERS} numbers")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True) if n)
    if all(size) and last >= len(storage):
        raise BadExpertFile("a tensor reaches beyond its numbers")
    width = storage.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], shape=size, strides=[step * width for step in stride], writeable=False
    )
    return np.array(view)

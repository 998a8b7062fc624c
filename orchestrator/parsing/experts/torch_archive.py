"""Tensors in a file of ``torch.save``, without torch and without running what the file says.

Such a file is a zip archive: ``data.pkl`` describes objects, ``data/N`` hold the numbers. The
pickle is read by an unpickler that knows plain data and tensors of numbers, and refuses the rest.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from orchestrator.parsing.experts.expert_shape import BadExpertFile

MAX_BYTES = 2 << 30  # of all tensors together
MAX_PICKLE = 64 << 20
MAX_NUMBERS = 1 << 28  # of one tensor
TYPES = {
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
}


def read_torch_archive(file: io.BufferedIOBase) -> Any:
    """The object that was saved, its tensors as arrays. Raises :class:`BadExpertFile`."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _TensorUnpickler(archive).load()
    except BadExpertFile:
        raise
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, OSError) as error:
        raise BadExpertFile(f"no file of torch.save: {str(error)[:200]}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError) as error:
        raise BadExpertFile(f"damaged: {str(error)[:200]}") from error
    except (MemoryError, OverflowError, RecursionError, NotImplementedError, RuntimeError) as error:
        raise BadExpertFile(f"refused: {type(error).__name__}") from error


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile) -> None:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise BadExpertFile("no file of torch.save: it has no data.pkl")
        sizes = [entry.file_size for entry in archive.infolist()]
        if sum(sizes) > MAX_BYTES or archive.getinfo(names[0]).file_size > MAX_PICKLE:
            raise BadExpertFile(f"more than {MAX_BYTES >> 30} GiB of tensors")
        super().__init__(io.BytesIO(archive.read(names[0])))
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

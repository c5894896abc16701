"""Packed weights used where they lie in a mapped file, instead of being copied into memory.

Starting is then as fast as mapping a file, processes share one copy, and the kernel may drop pages
that nobody reads. torch offers this only through the C interface of its ahead-of-time compiler,
so its presence and its result are both checked, and a caller copies where `Mapping.tensor` says
None. It knows safetensors' container and no model.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import threading
from pathlib import Path
from typing import Any, Final

import torch

ALIGNMENT: Final = 64  # of every packed matrix in its file: a cache line, and a vector register
_MKLDNN_LAYOUT: Final = 3  # c10::Layout::Mkldnn
_POPULATE_READ: Final = 22  # Linux 5.14's MADV_POPULATE_READ
_CREATE: Final = "aoti_torch_create_tensor_from_blob_v2"


class Mapping:
    """A safetensors file in memory, by name of tensor."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            # Private and writable: torch wants memory that it could write to, and never does.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        length = int.from_bytes(self._map[:8], "little")
        self._body = 8 + length
        self._table: dict[str, Any] = json.loads(self._map[8 : self._body])
        self._create = _creator()

    def populate(self) -> None:
        """Have the file read in the background, so that the first step need not wait for it."""
        advise = getattr(ctypes.CDLL(None), "madvise", None)
        if advise is None:
            return
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        arguments = (self._start, len(self._map), _POPULATE_READ)
        threading.Thread(target=advise, args=arguments, name="populate", daemon=True).start()

    def tensor(self, name: str, like: torch.Tensor, size: int) -> torch.Tensor | None:
        """The bytes called `name` as a tensor in the opaque layout of `like`.

        It is valid as long as this mapping is. None where they cannot be used in place.
        """
        start, end = self._table[name]["data_offsets"]
        address = self._start + self._body + start
        if self._create is None or end - start != size or address % ALIGNMENT:
            return None
        notes = torch.ops.mkldnn._get_mkldnn_serialized_md(like)
        shape = (ctypes.c_int64 * 2)(*like.shape)
        strides = (ctypes.c_int64 * 2)(1, 1)  # meaningless in an opaque layout, yet wanted
        kind = _library().aoti_torch_dtype_int8()
        found = ctypes.c_void_p()
        code = self._create(
            *(address, 2, shape, strides, 0, kind, 0, 0, ctypes.byref(found)),
            *(_MKLDNN_LAYOUT, notes.data_ptr(), notes.numel()),
        )
        return None if code else _stolen(found)


def _library() -> Any:
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))


def _creator() -> Any:
    """The C function, or None where this torch lacks it."""
    try:
        create = getattr(_library(), _CREATE, None)
    except OSError:
        return None
    if create is None or not hasattr(torch._C, "_aoti"):
        return None
    whole, number, pointer = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p
    create.argtypes = [
        *(pointer, whole, pointer, pointer, whole, number, number, number),
        *(pointer, number, pointer, whole),
    ]
    return create


def _stolen(handle: ctypes.c_void_p) -> torch.Tensor:
    wrap = ctypes.pythonapi.PyCapsule_New
    wrap.restype = ctypes.py_object
    wrap.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = wrap(handle, None, None)
    found: torch.Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(capsule)
    return found

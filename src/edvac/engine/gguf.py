"""Reads GGUF model files (versions 2 and 3) without trusting a byte of them.

It parses the header into plain metadata and a checked table of tensors over a read-only mapping.
Every count and length is compared with a fixed cap and with the bytes that are left *before*
anything is allocated, so a hostile file costs microseconds and a typed error. It does not know
what the metadata means, nor how blocks are decoded (`edvac.engine.quants`).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from edvac.core.errors import ModelFileError

Scalar: TypeAlias = "int | float | bool | str"
Meta: TypeAlias = "Scalar | list[Scalar]"

MAX_TENSORS: Final = 65_536
MAX_KEYS: Final = 65_536
MAX_FIRST_KEYS: Final = 32  # keys among which the architecture is looked for
MAX_KEY_BYTES: Final = 65_535  # the format's own rule
MAX_NAME_BYTES: Final = 64  # the format's own rule for tensor names
MAX_STRING_BYTES: Final = 16 << 20  # chat templates are the longest strings in practice
MAX_ARRAY: Final = 4_000_000  # vocabularies and merges stay below a million
MAX_DIMS: Final = 4
MAX_ALIGNMENT: Final = 1 << 16

_STRING, _ARRAY = 8, 9
_FORMATS: Final[dict[int, str]] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


@dataclass(frozen=True, slots=True)
class BlockType:
    """How one of GGML's tensor types is laid out: `size` bytes hold `items` numbers."""

    name: str
    items: int
    size: int


BLOCK_TYPES: Final[dict[int, BlockType]] = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2),
    2: BlockType("Q4_0", 32, 18),
    3: BlockType("Q4_1", 32, 20),
    6: BlockType("Q5_0", 32, 22),
    7: BlockType("Q5_1", 32, 24),
    8: BlockType("Q8_0", 32, 34),
    10: BlockType("Q2_K", 256, 84),
    11: BlockType("Q3_K", 256, 110),
    12: BlockType("Q4_K", 256, 144),
    13: BlockType("Q5_K", 256, 176),
    14: BlockType("Q6_K", 256, 210),
    20: BlockType("IQ4_NL", 32, 18),
    23: BlockType("IQ4_XS", 256, 136),
    30: BlockType("BF16", 1, 2),
    39: BlockType("MXFP4", 32, 17),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. `shape` is row-major: the last number is the contiguous one."""

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    start: int
    size: int


@dataclass(slots=True)
class GGUFFile:
    """An open, checked file. Tensor bytes are views of the mapping and are never copied here."""

    path: Path
    metadata: dict[str, Meta]
    tensors: dict[str, TensorInfo]
    _map: mmap.mmap = field(repr=False)

    def raw(self, name: str) -> memoryview:
        info = self.tensors.get(name)
        if info is None:
            raise bad("missing_tensor", self.path, f"it has no tensor named {name!r}")
        return memoryview(self._map)[info.start : info.start + info.size]

    def let_go(self) -> None:
        """Let the system take the pages back that were read so far; they come again when needed."""
        advice = getattr(mmap, "MADV_DONTNEED", None)
        if advice is not None:
            self._map.madvise(advice)

    def close(self) -> None:
        """Give the mapping back; fails with BufferError while somebody still holds a view."""
        self._map.close()


def bad(code: str, path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"model_{code}",
        f"the model file {path.name} cannot be used",
        f"Reading it showed that {why}.",
        _OTHERS if code == "unsupported" else _AGAIN,
    )


_AGAIN: Final = "Fetch the model again with `edvac model pull`, or choose another file."
_OTHERS: Final = (
    "Choose a model that docs/reference/models.md names, or have llama-server serve this one and "
    "name its URL as the model."
)


def open_gguf(path: Path) -> GGUFFile:
    """Map and check a GGUF file."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # what mmap says of an empty file
        raise bad("truncated", path, "it is empty") from error
    except OSError as error:
        raise bad("unreadable", path, f"the system says {error.strerror or error}") from error
    try:
        return _parse(path, mapped)
    except ModelFileError:
        mapped.close()
        raise


def read_architecture(path: Path) -> str:
    """What a file says it is, from its first keys; nothing else of it is read.

    Raises:
        ModelFileError: it is no GGUF file, or does not say so near its beginning.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (ValueError, OSError) as error:
        raise bad("unreadable", path, f"the system says {error}") from error
    with mapped:
        reader = _Reader(path, mapped)
        _, key_count = _counts(reader)
        for index in range(min(key_count, MAX_FIRST_KEYS)):
            key = reader.string(MAX_KEY_BYTES, f"the name of key {index}")
            value = reader.value(f"the value of {key!r}")
            if key == "general.architecture":
                return str(value)[:100]
    raise bad("malformed", path, "it does not say what architecture it has")


class _Reader:
    """A cursor that refuses to pass the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0
        self.size = len(data)

    def fail(self, code: str, why: str) -> ModelFileError:
        return bad(code, self.path, why)

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self.fail("truncated", f"it ends inside {what}")
        found = self.data[self.at : self.at + count]
        self.at += count
        return found

    def number(self, form: str, what: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form), what))[0])

    def string(self, cap: int, what: str) -> str:
        length = self.number("<Q", what)
        if length > cap:
            raise self.fail("malformed", f"{what} claims {length} bytes, more than the cap {cap}")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail("malformed", f"{what} is not UTF-8") from error

    def value(self, what: str) -> Meta:
        kind = self.number("<I", what)
        if kind == _ARRAY:
            return self.array(what)
        return self.scalar(kind, what)()

    def scalar(self, kind: int, what: str) -> Callable[[], Scalar]:
        if kind == _STRING:
            return lambda: self.string(MAX_STRING_BYTES, what)
        form = _FORMATS.get(kind)
        if form is None:
            raise self.fail("malformed", f"{what} has the unknown type {kind}")
        packed = struct.Struct(form)
        return lambda: _plain(packed.unpack(self.take(packed.size, what))[0])

    def array(self, what: str) -> list[Scalar]:
        kind = self.number("<I", what)
        if kind == _ARRAY:
            raise self.fail("malformed", f"{what} is an array of arrays")
        one = self.scalar(kind, what)
        count = self.number("<Q", what)
        least = 8 if kind == _STRING else struct.calcsize(_FORMATS[kind])
        if count > MAX_ARRAY or count * least > self.size - self.at:
            raise self.fail("malformed", f"{what} claims {count} items, more than can be there")
        if kind == _STRING:
            return [one() for _ in range(count)]
        form = f"<{count}{_FORMATS[kind][1]}"
        return list(struct.unpack(form, self.take(count * least, what)))


def _plain(value: float | bool) -> Scalar:
    return value


def _counts(reader: _Reader) -> tuple[int, int]:
    """How many tensors and keys follow."""
    if reader.take(4, "the magic number") != b"GGUF":
        raise reader.fail("malformed", "it does not start with the GGUF magic number")
    version = reader.number("<I", "the version")
    if version not in (2, 3):
        raise reader.fail("malformed", f"its version is {version}; versions 2 and 3 are known")
    tensor_count = reader.number("<Q", "the tensor count")
    key_count = reader.number("<Q", "the key count")
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise reader.fail("malformed", f"it claims {tensor_count} tensors and {key_count} keys")
    return tensor_count, key_count


def _parse(path: Path, mapped: mmap.mmap) -> GGUFFile:
    reader = _Reader(path, mapped)
    tensor_count, key_count = _counts(reader)
    metadata: dict[str, Meta] = {}
    for index in range(key_count):
        key = reader.string(MAX_KEY_BYTES, f"the name of key {index}")
        if key in metadata:
            raise reader.fail("malformed", f"the key {key!r} occurs twice")
        metadata[key] = reader.value(f"the value of {key!r}")
    tensors = _tensors(reader, tensor_count, _alignment(reader, metadata))
    return GGUFFile(path, metadata, tensors, mapped)


def _alignment(reader: _Reader, metadata: dict[str, Meta]) -> int:
    found = metadata.get("general.alignment", 32)
    if not isinstance(found, int) or not 1 <= found <= MAX_ALIGNMENT or found & (found - 1):
        why = f"its alignment {found!r} is not a power of two up to {MAX_ALIGNMENT}"
        raise reader.fail("malformed", why)
    return found


def _tensors(reader: _Reader, count: int, alignment: int) -> dict[str, TensorInfo]:
    heads: list[tuple[str, tuple[int, ...], BlockType, int]] = []
    names: set[str] = set()
    for index in range(count):
        head = _tensor_head(reader, index)
        if head[0] in names:
            raise reader.fail("malformed", f"the tensor {head[0]!r} occurs twice")
        names.add(head[0])
        heads.append(head)
    base = -(-reader.at // alignment) * alignment
    found: dict[str, TensorInfo] = {}
    end_before = 0
    for name, shape, kind, offset in sorted(heads, key=lambda head: head[3]):
        items = 1
        for length in shape:
            items *= length
        size = items // kind.items * kind.size
        if offset % alignment:
            raise reader.fail("malformed", f"the tensor {name!r} is not aligned")
        if offset < end_before:
            raise reader.fail("malformed", f"the tensor {name!r} overlaps the one before it")
        if base + offset + size > reader.size:
            raise reader.fail("truncated", f"the tensor {name!r} reaches past the end")
        end_before = offset + size
        found[name] = TensorInfo(name, shape, kind, base + offset, size)
    return found


def _tensor_head(reader: _Reader, index: int) -> tuple[str, tuple[int, ...], BlockType, int]:
    what = f"the description of tensor {index}"
    name = reader.string(MAX_NAME_BYTES, what)
    n_dims = reader.number("<I", what)
    if not 1 <= n_dims <= MAX_DIMS:
        raise reader.fail("malformed", f"the tensor {name!r} claims {n_dims} dimensions")
    dims = [reader.number("<Q", what) for _ in range(n_dims)]
    kind_number = reader.number("<I", what)
    offset = reader.number("<Q", what)
    kind = BLOCK_TYPES.get(kind_number)
    if kind is None:
        why = f"the tensor {name!r} has the type {kind_number}, which edvac cannot decode"
        raise reader.fail("unsupported", why)
    items = 1
    for length in dims:
        if length == 0:
            raise reader.fail("malformed", f"the tensor {name!r} has an empty dimension")
        items *= length
        if items > reader.size * kind.items:  # cannot be in the file, whatever follows
            raise reader.fail("malformed", f"the tensor {name!r} is larger than the file")
    if dims[0] % kind.items:
        raise reader.fail("malformed", f"the rows of {name!r} are no whole number of blocks")
    return name, tuple(reversed(dims)), kind, offset

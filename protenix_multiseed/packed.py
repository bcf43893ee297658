"""Values that stay pickled on their way through a process that does not need them."""

import pickle
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Value = TypeVar("_Value")


class Packed(Generic[_Value]):
    """A value that one process makes, another one uses, and those in between pass on.

    The processes in between import none of the modules of its type, and do not pickle it again. Nobody may change the
    value.

    Args:
        value: Any value that can be pickled.
    """

    __slots__ = ("_pickled", "_value")

    def __init__(self, value: _Value) -> None:
        self._value = value
        self._pickled: bytes | None = None

    @property
    def value(self) -> _Value:
        """The value. It is unpickled when it is first asked for."""
        if not hasattr(self, "_value"):
            assert self._pickled is not None
            self._value = pickle.loads(self._pickled)
        return self._value

    def __reduce__(self) -> tuple[Callable[[bytes], "Packed[Any]"], tuple[bytes]]:
        if self._pickled is None:
            self._pickled = pickle.dumps(self._value, protocol=pickle.HIGHEST_PROTOCOL)
        return _received, (self._pickled,)


def _received(pickled: bytes) -> Packed[Any]:
    made: Packed[Any] = Packed.__new__(Packed)
    made._pickled = pickled
    return made

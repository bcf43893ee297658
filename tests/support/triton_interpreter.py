"""Import this module before Triton to run Triton kernels on the CPU, in Triton's interpreter."""

import os

os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

_original = interpreter._patch_lang_tensor


def _patched(tensor):
    _original(tensor)
    tensor.__index__ = lambda self: int(self.handle.data.item())  # NumPy 2.4 refuses Triton 3.3's int(array)


interpreter._patch_lang_tensor = _patched

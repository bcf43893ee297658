"""The first import of the workers' server: its output goes to /dev/null, and numerical libraries use one thread.

The main process handles output. The libraries read these variables when they are imported.
"""

import contextlib
import os
import sys

with contextlib.suppress(ValueError):
    sys.path.remove("")  # modules of the working folder must not hide installed ones
with contextlib.suppress(OSError):
    _sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(_sink, 1)
    os.dup2(_sink, 2)
    os.close(_sink)
for _stream in ("stdout", "stderr"):
    setattr(sys, _stream, open(os.devnull, "w"))  # noqa: SIM115  for the life of the process
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"

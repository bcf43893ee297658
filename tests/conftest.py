"""What all tests share: their own cache folder, no compiler, and tests/support importable as ``support``.

tests/ has no __init__.py, since Protenix installs a package of that name.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["LAYERNORM_TYPE"] = "torch"  # upstream's default compiles CUDA when it is imported
os.environ["PROTENIX_MS_CACHE"] = tempfile.mkdtemp(prefix="protenix-ms-tests-")
os.environ.pop("PROTENIX_ROOT_DIR", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: a thread each, or they wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
atexit.register(shutil.rmtree, os.environ["PROTENIX_MS_CACHE"], ignore_errors=True)

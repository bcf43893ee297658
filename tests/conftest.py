"""Setup of all tests: a temporary cache folder, no CUDA compilation, and tests/support importable as ``support``.

tests/ has no __init__.py, because Protenix installs a package named ``tests``.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
os.environ["LAYERNORM_TYPE"] = "torch"  # upstream's default compiles CUDA code at import
os.environ["PROTENIX_MS_CACHE"] = tempfile.mkdtemp(prefix="protenix-ms-tests-")
os.environ.pop("PROTENIX_ROOT_DIR", None)
# Hypothesis fails an example that takes 0.2 s, which any example may on a machine that is busy with something else.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
if "PYTEST_XDIST_WORKER" in os.environ:  # parallel test workers: one thread each, or they slow each other down
    os.environ["OMP_NUM_THREADS"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell does so to background jobs, and processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(shutil.rmtree, os.environ["PROTENIX_MS_CACHE"], ignore_errors=True)


@pytest.fixture(scope="module")
def prepared_dictionary():
    """The embedded dictionary, which Protenix's own code reads in this process from now on."""
    from protenix_multiseed.upstream import environment  # imported late: the variables above must be set
    from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

    made = EmbeddedDictionary()
    environment.prepare(made)
    return made

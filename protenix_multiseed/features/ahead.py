"""What workers import to featurize jobs and to write predictions.

Upstream is prepared here, because a worker may write a prediction before it featurizes a job.
"""

import gc
import importlib

from protenix_multiseed.upstream import environment

try:
    importlib.import_module("torch").set_num_threads(1)
    environment.prepare_imports()
    with (
        environment.without("sklearn.neighbors", "KDTree"),
        environment.postponed("pandas"),
        environment.hidden("matplotlib"),
    ):
        importlib.import_module("protenix_multiseed.features.featurize")
    environment.load_data_dumper()
except Exception as error:
    raise ImportError(f"{type(error).__name__}: {error}") from error  # any other error would end the server
gc.freeze()  # a collection in a fork would copy the memory that the forks share

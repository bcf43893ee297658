"""Functions that tests run in other processes. They are in a module so that a spawned process can import them."""

import os
import signal
import sys
import time

import numpy as np

from protenix_multiseed.errors import FeaturizationError


def act(job, _settings):
    """Behave as the job's name says."""
    match job.name:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed twice":
            with open(os.environ["KILLS"], "ab") as file:
                file.write(b".")
                n_try = file.tell()
            if n_try < 3:
                os.kill(os.getpid(), signal.SIGKILL)
        case "killed, then asleep":
            with open(os.environ["KILLS"], "ab") as file:
                file.write(b".")
                n_try = file.tell()
            if n_try > 1:
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL)
        case "wrong":
            raise FeaturizationError("in.json[0] 'wrong': no such thing")
        case "noisy":
            print("to the terminal")
            os.write(2, b"to the terminal, from C")
        case "endless":
            time.sleep(3600)
        case "slow":
            time.sleep(0.5)
    return job.name, os.getpid()


def imported(names):
    """Return those of the modules that this process has imported."""
    return [name for name in names if name in sys.modules]


def make_features(cache_folder, made):
    """Want the same arrays as other processes do, and append a line to ``made`` if they are made here."""
    from support.jobs import job_of

    from protenix_multiseed.features import cache
    from protenix_multiseed.settings import FeatureSettings

    cache.cache_dir = lambda: cache_folder

    def make():
        with open(made, "a") as file:
            file.write("made\n")
        time.sleep(0.5)
        return cache.Made({"a": np.arange(3)})

    arrays = cache.cached(job_of(), FeatureSettings(), [], make).arrays
    assert arrays["a"].tolist() == [0, 1, 2]

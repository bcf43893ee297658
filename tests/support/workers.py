"""A replacement for featurization in worker processes. It is a module so that a spawned process can import it."""

import os
import signal
import time

from protenix_multiseed.errors import FeaturizationError


def act(job, _settings):
    """Behave as the job's name says."""
    match job.name:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wrong":
            raise FeaturizationError("in.json[0] 'wrong': no such thing")
        case "noisy":
            print("to the terminal")
            os.write(2, b"to the terminal, from C")
        case "slow":
            time.sleep(0.5)
    return job.name, os.getpid()

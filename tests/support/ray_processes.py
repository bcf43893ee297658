"""The processes of a run on several GPUs."""

import contextlib

import psutil


def descendants(process):
    return psutil.Process(process.pid).children(recursive=True)


def gpu_processes(process):
    """The processes that predict, among all that a run has started."""
    found = []
    for one in descendants(process):
        with contextlib.suppress(psutil.Error):
            if "_RayWorker" in " ".join([one.name(), *one.cmdline()]):
                found.append(one)
    return found


def still_alive(processes, seconds=120):
    """The processes that do not end in this time."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

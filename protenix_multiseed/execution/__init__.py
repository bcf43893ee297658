"""Running batches: planning from memory, retry, and the executors. See :mod:`protenix_multiseed.execution.base`."""

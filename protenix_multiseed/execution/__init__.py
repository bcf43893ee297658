"""Running batches: plans that fit in memory, retry, and executors. See :mod:`protenix_multiseed.execution.base`."""

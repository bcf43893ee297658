"""The operations that the fast stages are made of, in PyTorch and Triton. Add one as a module of ``ops``.

Nothing is imported here: the probe starts before torch is loaded.
"""

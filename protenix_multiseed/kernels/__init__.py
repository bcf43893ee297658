"""The operations of the fast stages, in PyTorch and Triton. To add an operation, add a module to ``ops``.

This file imports nothing, because the kernel probe starts before torch is loaded.
"""

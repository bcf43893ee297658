"""Imported by the workers' server of a run with ``--offline``, before the modules that could look for a network."""

from protenix_multiseed.offline import forbid_network

forbid_network()

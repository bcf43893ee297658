"""protenix-ms: run many Protenix seeds in one GPU batch. Each result equals that seed run alone."""

__version__ = "0.2.0"

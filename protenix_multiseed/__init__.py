"""protenix-ms: many seeds from Protenix, each exactly its own."""

__version__ = "0.1.0"

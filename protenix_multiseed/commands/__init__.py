"""The commands. Each module runs one command and prints its results."""

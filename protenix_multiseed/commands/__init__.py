"""The commands: each module is a verb and its view."""

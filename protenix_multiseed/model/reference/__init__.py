"""Protenix's own modules, unchanged: the path that defines what a prediction is."""

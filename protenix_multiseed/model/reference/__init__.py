"""Predictions with Protenix's own modules, unchanged. Their results define the correct results."""

"""``protenix-ms report``: one HTML file of a run's results, which opens from disk and needs no network."""

"""The page of ``protenix-ms report``: one HTML file of results. It opens from disk and needs no network."""

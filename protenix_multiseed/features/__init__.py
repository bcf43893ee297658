"""Turn jobs into compact features in CPU workers. Each seed draws the same random numbers as in upstream."""

"""Names of the formats that commands write."""

SHORT_NAMES = {"af3": "alphafold3"}

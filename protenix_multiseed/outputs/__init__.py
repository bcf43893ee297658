"""The output folder: results in upstream's layout, each seed's files appearing all at once."""

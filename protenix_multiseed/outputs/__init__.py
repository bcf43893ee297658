"""Results on disk, in upstream's layout, each seed's files appearing all at once."""

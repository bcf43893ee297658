"""Search databases for the alignments that jobs lack, on a server that the user names or on local databases."""

"""Read input files and return checked jobs. Every problem is reported before any work starts."""

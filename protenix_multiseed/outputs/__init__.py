"""The output folder: results in upstream's layout. All files of a seed appear at the same moment."""

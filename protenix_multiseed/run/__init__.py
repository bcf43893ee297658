"""One run: the main path, with its signals, output folder, early stopping, log and display."""

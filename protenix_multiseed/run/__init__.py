"""One run: the main path, the signals, the output folder, early stopping, the log and the terminal display."""

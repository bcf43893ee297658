"""Jobs to compact features in CPU workers, with the draws of each seed as upstream makes them."""

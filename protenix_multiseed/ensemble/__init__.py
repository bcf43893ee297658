"""What the seeds of a job say together: interfaces, agreement, clusters, convergence. Pure: arrays in, figures out."""

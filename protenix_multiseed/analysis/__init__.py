"""What the seeds of a job say together: interfaces, agreement, clusters, convergence. Arrays in, figures out."""

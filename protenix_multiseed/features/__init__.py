"""Jobs to features: what the model reads, once per job, and what each seed changes."""

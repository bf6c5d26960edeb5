"""Nothing measured is lost: the writer in the trainer, the reader everywhere else."""

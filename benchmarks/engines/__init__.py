"""Several trainings: what each is, and where they run."""

"""TrainVitals in other frameworks: each file is a few lines over `trainvitals.watch`, and imports its own framework."""

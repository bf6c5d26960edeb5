"""The bank: trainings whose faults are known from how they were made, one kind of training a file."""

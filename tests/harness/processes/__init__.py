"""What tests run in several processes: a model with its data, and the program of each process."""

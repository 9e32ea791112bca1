"""Training: phases, optimiser, step, data parallelism, and the loop."""

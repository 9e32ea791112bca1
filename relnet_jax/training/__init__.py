"""Training: state, optimiser, step, data parallelism, checkpoints, fine-tuning, metric writer and the loop that joins them."""

"""Training: state, optimiser, step, data parallelism, checkpoints, fine-tuning, metrics, and the loop."""

"""What lies in the folder of a run: checkpoints, the state they hold, metrics; and what a process does at its start."""

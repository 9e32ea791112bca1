"""Images and annotations: sources -> `Example` -> transforms -> `Batch`, and their checks."""

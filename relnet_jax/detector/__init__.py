"""A trained detector at work: a checkpoint's parameters and compiled functions; images in, findings in their pixels."""

"""Bodies: image -> feature maps."""

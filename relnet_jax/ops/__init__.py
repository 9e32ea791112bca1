"""Pure functions on arrays: no parameters, no config. Shapes are batched and static (see the package docstring)."""

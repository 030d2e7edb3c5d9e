"""See the README: tests mirror the package."""

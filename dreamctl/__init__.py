"""dreamctl teaches an image model a subject or a style from a handful of pictures, and makes pictures with it."""

__version__ = "0.1.0"

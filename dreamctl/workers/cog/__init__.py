"""Replicate's worker, built and served by Cog: the image's files, a trainer, and a runner of what was trained."""

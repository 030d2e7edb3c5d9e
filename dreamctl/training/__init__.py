"""The one training loop: `python -m dreamctl.training RUN_DIR` trains what a run folder says. Light to import."""

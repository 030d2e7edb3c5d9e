"""One file per model architecture, behind the door in `base.py`."""

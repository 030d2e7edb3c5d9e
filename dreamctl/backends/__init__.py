"""Where a run is trained, one file a place, behind the door in `base.py`."""

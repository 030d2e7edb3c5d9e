"""Descriptions of a dataset that other people's trainers read, one file a trainer, behind the door in `base.py`."""

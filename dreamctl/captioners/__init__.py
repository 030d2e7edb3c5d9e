"""Who writes captions: one file for each captioner, behind one door (`base`)."""

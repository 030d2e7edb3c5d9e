"""Where uploads go: one file for each kind of storage, behind one door (`base`)."""

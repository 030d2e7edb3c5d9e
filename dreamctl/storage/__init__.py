"""Where uploads go and pictures come from: one file for each kind of storage, behind one door (`base`)."""
